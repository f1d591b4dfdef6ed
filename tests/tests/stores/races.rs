//! What happens at the same time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tollgate::{
    DenialKind,
    manage::{KeyAdminError, KeyQuery, NewKey},
    store::KeyStatus,
};

use crate::world::{World, root};

pub(crate) async fn of_many_that_want_one_name_one_gets_it(world: &World) {
    let wanted = (0..20).map(|_| {
        let manager = world.manager.clone();
        tokio::spawn(
            async move { manager.issue(NewKey::named("the one").with_tenant("acme"), &root()).await },
        )
    });
    let outcomes = join_all(wanted).await;
    let (mut issued, mut taken) = (0, 0);
    for outcome in outcomes {
        match outcome.unwrap() {
            Ok(_) => issued += 1,
            Err(KeyAdminError::NameTaken) => taken += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((issued, taken), (1, 19));
    assert_eq!(world.manager.list(KeyQuery::all(), &root()).await.unwrap().items.len(), 1);
}

pub(crate) async fn nobody_is_let_in_once_revoke_has_returned(world: &World) {
    for round in 0..10 {
        let key = Arc::new(world.issue(&format!("{round}")).await);
        let is_revoked = AtomicBool::new(false);
        let presenting = async {
            loop {
                let before = is_revoked.load(Ordering::SeqCst);
                let outcome = world.refusal(&key).await;
                if before {
                    assert_eq!(outcome, Some(DenialKind::KeyRevoked), "let in after revoke had returned");
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let revoking = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            world.manager.revoke(&key.details.id, &root()).await.unwrap();
            is_revoked.store(true, Ordering::SeqCst);
        };
        tokio::join!(join_all([presenting,]), revoking);
    }
}

pub(crate) async fn no_key_of_a_suspended_tenant_is_left_active(world: &World) {
    for round in 0..5 {
        let tenant = format!("tenant {round}");
        let issuing = (0..8).map(|number| {
            let (manager, tenant) = (world.manager.clone(), tenant.clone());
            tokio::spawn(async move {
                manager.issue(NewKey::named(format!("{number}")).with_tenant(tenant), &root()).await.unwrap()
            })
        });
        let suspending = {
            let (manager, tenant) = (world.manager.clone(), tenant.clone());
            tokio::spawn(async move { manager.suspend_tenant(&tenant, &root()).await.unwrap() })
        };
        let (issued, suspended) = tokio::join!(join_all(issuing), suspending);
        suspended.unwrap();
        for key in issued {
            assert_eq!(world.refusal(&key.unwrap()).await, Some(DenialKind::TenantSuspended));
        }
    }
}

/// Whoever asked hangs up, at any moment.
pub(crate) async fn a_change_that_nobody_waits_for_is_made_as_a_whole(world: &World) {
    for micros in (0..2_000).step_by(100) {
        let name = format!("{micros}");
        let key = world.issue(&name).await;
        let held = world.verify(key.secret.expose_secret()).await.unwrap();
        let actor = root();
        let revoking = world.manager.revoke(&key.details.id, &actor);
        let _ = tokio::time::timeout(Duration::from_micros(micros), revoking).await;
        // Made or not made, and what is known in this process is what the store says.
        let settled = async {
            loop {
                let shown = world.manager.show(&key.details.id, &root()).await.unwrap();
                let is_revoked = shown.status == KeyStatus::Revoked;
                let is_told = held.end_signal().reason().is_some();
                if is_revoked == is_told {
                    break is_revoked;
                }
                tokio::task::yield_now().await;
            }
        };
        let is_revoked = tokio::time::timeout(Duration::from_secs(10), settled).await.unwrap();
        let history = world.actions(&key.details.id).await;
        // It may have been made since.
        if is_revoked {
            assert_eq!(history, ["revoked", "issued"]);
            assert_eq!(world.refusal(&key).await, Some(DenialKind::KeyRevoked));
        }
    }
}
