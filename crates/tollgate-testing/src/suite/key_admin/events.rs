//! Events and end signals of changes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tollgate::{
    Plan,
    key::Digest,
    store::{EndReason, KeyLookup, StoreEvent, StoreListener},
};

use super::{Setup, root};
use crate::at;
use crate::suite::soon;

pub(super) async fn listeners_are_notified_of_every_change_before_it_returns(setup: &Setup) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let received = Arc::clone(&received);
        Arc::new(move |event: &StoreEvent| received.lock().unwrap().push(event.clone()))
    };
    let subscription = setup.store.subscribe(Arc::downgrade(&listener));
    assert_eq!(subscription.trusted_for(), None, "a store that manages keys has events");
    let connected = async {
        while received.lock().unwrap().first() != Some(&StoreEvent::Connected) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("the listener is notified `Connected`", connected).await;
    // The newest event of a key or tenant since the last call. A store may send an event twice: when it makes the change, and when
    // its database reports it.
    let notified = |id: &str| {
        let received = std::mem::take(&mut *received.lock().unwrap());
        let of_it = received.into_iter().filter_map(|event| match event {
            StoreEvent::Key { id: of, generation, end } if *of == *id => Some((generation, end)),
            StoreEvent::Tenant { tenant, generation, end } if *tenant == *id => Some((generation, end)),
            _ => None,
        });
        of_it.max_by_key(|(generation, _)| *generation)
    };

    let issued = setup.issue_for("acme", "a").await;
    let id = &issued.details.id;
    assert_eq!(notified(id), Some((issued.details.generation, None)));
    let renamed = setup.manager.rename(id, "b", &root()).await.unwrap();
    assert_eq!(notified(id), Some((renamed.generation, None)));
    let rotated = setup.manager.rotate(id, Some(Duration::from_secs(60)), &root()).await.unwrap();
    assert_eq!(notified(id), Some((rotated.details.generation, None)));
    let rotated = setup.manager.rotate(id, None, &root()).await.unwrap();
    assert_eq!(notified(id), Some((rotated.details.generation, Some(EndReason::Revoked))));
    setup.manager.suspend_tenant("acme", &root()).await.unwrap();
    let (suspended, end) = notified("acme").unwrap();
    assert_eq!(end, Some(EndReason::TenantSuspended));
    setup.manager.resume_tenant("acme", &root()).await.unwrap();
    let (resumed, end) = notified("acme").unwrap();
    assert_eq!(end, None);
    assert!(rotated.details.generation < suspended && suspended < resumed);
    let planned = setup.manager.set_tenant_plan("acme", Some(Plan::active("pro")), &root()).await.unwrap();
    assert_eq!(notified("acme"), Some((planned.generation, None)));
    assert!(planned.generation > resumed);
    let revoked = setup.manager.revoke(id, &root()).await.unwrap();
    assert_eq!(notified(id), Some((revoked.generation, Some(EndReason::Revoked))));
    setup.manager.delete(id, &root()).await.unwrap();
    let (deleted, end) = notified(id).unwrap();
    assert!(deleted > revoked.generation && end == Some(EndReason::Revoked));
}

pub(super) async fn the_principals_of_a_key_end_when_it_ends(setup: &Setup) {
    let (key, other) = (setup.issue_for("acme", "a").await, setup.issue_for("acme", "b").await);
    let (held, others) = (
        setup.verify(key.secret.expose_secret()).await.unwrap(),
        setup.verify(other.secret.expose_secret()).await.unwrap(),
    );
    let id = &key.details.id;
    setup.manager.rename(id, "c", &root()).await.unwrap();
    setup.manager.rotate(id, Some(Duration::from_secs(60)), &root()).await.unwrap();
    assert_eq!(
        held.end_signal().reason(),
        None,
        "a renamed or rotated key does not end while a former secret works"
    );
    let ended = held.wait_until_ended();
    setup.manager.revoke(id, &root()).await.unwrap();
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(ended.await, EndReason::Revoked);
    assert_eq!(others.end_signal().reason(), None);
    setup.manager.delete(&other.details.id, &root()).await.unwrap();
    assert_eq!(others.wait_until_ended().await, EndReason::Revoked);
}

pub(super) async fn every_change_raises_the_generation(setup: &Setup) {
    let issued = setup.issue_for("acme", "a").await;
    let id = &issued.details.id;
    let digest = Digest::of(issued.secret.expose_secret());
    let found = async || {
        let lookup = KeyLookup::new(std::slice::from_ref(&digest), at(0));
        setup.store.find(&lookup).await.unwrap().unwrap().generation()
    };
    let mut generations = vec![found().await];
    assert_eq!(generations, [issued.details.generation]);
    setup.manager.rename(id, "b", &root()).await.unwrap();
    generations.push(found().await);
    setup.manager.suspend_tenant("acme", &root()).await.unwrap();
    generations.push(found().await);
    setup.manager.resume_tenant("acme", &root()).await.unwrap();
    generations.push(found().await);
    setup.manager.set_tenant_plan("acme", Some(Plan::active("pro")), &root()).await.unwrap();
    generations.push(found().await);
    setup.manager.rotate(id, Some(Duration::from_secs(60)), &root()).await.unwrap();
    generations.push(found().await);
    setup.manager.revoke(id, &root()).await.unwrap();
    generations.push(setup.manager.show(id, &root()).await.unwrap().generation);
    assert!(generations.is_sorted_by(|earlier, later| earlier < later), "{generations:?}");
}
