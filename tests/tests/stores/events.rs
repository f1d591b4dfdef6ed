//! Who is told of a change, and when.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tests::suite::at;
use tollgate::{
    key::Digest,
    store::{EndReason, KeyLookup, StoreEvent, StoreListener},
};

use crate::world::{World, root};

pub(crate) async fn watchers_are_told_of_every_change_before_it_is_answered(world: &World) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let heard = Arc::clone(&heard);
        Arc::new(move |change: &StoreEvent| heard.lock().unwrap().push(change.clone()))
    };
    let _ = world.store.subscribe(Arc::downgrade(&listener));
    assert_eq!(std::mem::take(&mut *heard.lock().unwrap()), [StoreEvent::Connected]);
    // A store may tell of a change twice, by itself and, perhaps late, as its database says; and of its database's state in between.
    let told = |id: &str| {
        let heard = std::mem::take(&mut *heard.lock().unwrap());
        let of_it = heard.into_iter().filter_map(|change| match change {
            StoreEvent::Key { id: of, generation, end } if *of == *id => Some((generation, end)),
            StoreEvent::Tenant { tenant, generation, end } if *tenant == *id => Some((generation, end)),
            _ => None,
        });
        of_it.max_by_key(|(generation, _)| *generation)
    };

    let issued = world.issue_for("acme", "a").await;
    let id = &issued.details.id;
    assert_eq!(told(id), Some((issued.details.generation, None)));
    let renamed = world.manager.rename(id, "b", &root()).await.unwrap();
    assert_eq!(told(id), Some((renamed.generation, None)));
    let rotated = world.manager.rotate(id, Some(Duration::from_mins(1)), &root()).await.unwrap();
    assert_eq!(told(id), Some((rotated.details.generation, None)));
    let rotated = world.manager.rotate(id, None, &root()).await.unwrap();
    assert_eq!(told(id), Some((rotated.details.generation, Some(EndReason::Revoked))));
    world.manager.suspend_tenant("acme", &root()).await.unwrap();
    let (suspended, end) = told("acme").unwrap();
    assert_eq!(end, Some(EndReason::TenantSuspended));
    world.manager.resume_tenant("acme", &root()).await.unwrap();
    let (resumed, end) = told("acme").unwrap();
    assert_eq!(end, None);
    assert!(rotated.details.generation < suspended && suspended < resumed);
    let revoked = world.manager.revoke(id, &root()).await.unwrap();
    assert_eq!(told(id), Some((revoked.generation, Some(EndReason::Revoked))));
    world.manager.delete(id, &root()).await.unwrap();
    let (deleted, end) = told(id).unwrap();
    assert!(deleted > revoked.generation && end == Some(EndReason::Revoked));
}

pub(crate) async fn streams_are_told_of_their_end_and_of_nothing_else(world: &World) {
    let (key, other) = (world.issue_for("acme", "a").await, world.issue_for("acme", "b").await);
    let (held, others) = (
        world.verify(key.secret.expose_secret()).await.unwrap(),
        world.verify(other.secret.expose_secret()).await.unwrap(),
    );
    let id = &key.details.id;
    world.manager.rename(id, "c", &root()).await.unwrap();
    world.manager.rotate(id, Some(Duration::from_mins(1)), &root()).await.unwrap();
    assert_eq!(held.end_signal().reason(), None, "its secret is still good");
    let ended = held.wait_until_ended();
    world.manager.revoke(id, &root()).await.unwrap();
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(ended.await, EndReason::Revoked);
    assert_eq!(others.end_signal().reason(), None);
    world.manager.delete(&other.details.id, &root()).await.unwrap();
    assert_eq!(others.wait_until_ended().await, EndReason::Revoked);
}

pub(crate) async fn every_change_raises_the_generation(world: &World) {
    let issued = world.issue_for("acme", "a").await;
    let id = &issued.details.id;
    let digest = Digest::of(issued.secret.expose_secret());
    let found = async || {
        let lookup = KeyLookup::new(std::slice::from_ref(&digest), at(0));
        world.store.find(&lookup).await.unwrap().unwrap().generation()
    };
    let mut generations = vec![found().await];
    assert_eq!(generations, [issued.details.generation]);
    world.manager.rename(id, "b", &root()).await.unwrap();
    generations.push(found().await);
    world.manager.suspend_tenant("acme", &root()).await.unwrap();
    generations.push(found().await);
    world.manager.resume_tenant("acme", &root()).await.unwrap();
    generations.push(found().await);
    world.manager.rotate(id, Some(Duration::from_mins(1)), &root()).await.unwrap();
    generations.push(found().await);
    world.manager.revoke(id, &root()).await.unwrap();
    generations.push(world.manager.show(id, &root()).await.unwrap().generation);
    assert!(generations.is_sorted_by(|earlier, later| earlier < later), "{generations:?}");
}
