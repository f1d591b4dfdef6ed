//! Changes and lookups at the same time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tollgate::{
    DenialKind,
    manage::{KeyAdminError, KeyQuery, NewKey},
    store::KeyStatus,
};

use super::{Setup, root};
use crate::suite::soon;

pub(super) async fn of_many_keys_with_one_name_one_is_issued(setup: &Setup) {
    let issuing: Vec<_> = (0..20)
        .map(|_| {
            let manager = setup.manager.clone();
            tokio::spawn(
                async move { manager.issue(NewKey::named("the one").with_tenant("acme"), &root()).await },
            )
        })
        .collect();
    let (mut issued, mut taken) = (0, 0);
    for outcome in issuing {
        match outcome.await.unwrap() {
            Ok(_) => issued += 1,
            Err(KeyAdminError::NameTaken) => taken += 1,
            Err(other) => panic!("expected `NameTaken`, got {other}"),
        }
    }
    assert_eq!((issued, taken), (1, 19));
    assert_eq!(setup.manager.list(KeyQuery::all(), &root()).await.unwrap().items.len(), 1);
}

pub(super) async fn no_request_is_let_in_once_revoke_has_returned(setup: &Setup) {
    for round in 0..10 {
        let key = Arc::new(setup.issue(&format!("{round}")).await);
        let is_revoked = AtomicBool::new(false);
        let presenting = async {
            loop {
                let before = is_revoked.load(Ordering::SeqCst);
                let outcome = setup.refusal(&key).await;
                if before {
                    assert_eq!(
                        outcome,
                        Some(DenialKind::KeyRevoked),
                        "a request was let in after `revoke` had returned"
                    );
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let revoking = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            setup.manager.revoke(&key.details.id, &root()).await.unwrap();
            is_revoked.store(true, Ordering::SeqCst);
        };
        tokio::join!(presenting, revoking);
    }
}

pub(super) async fn no_key_of_a_suspended_tenant_stays_active(setup: &Setup) {
    for round in 0..5 {
        let tenant = format!("tenant {round}");
        let issuing: Vec<_> = (0..8)
            .map(|number| {
                let (manager, tenant) = (setup.manager.clone(), tenant.clone());
                tokio::spawn(async move {
                    manager
                        .issue(NewKey::named(format!("{number}")).with_tenant(tenant), &root())
                        .await
                        .unwrap()
                })
            })
            .collect();
        let suspending = {
            let (manager, tenant) = (setup.manager.clone(), tenant.clone());
            tokio::spawn(async move { manager.suspend_tenant(&tenant, &root()).await.unwrap() })
        };
        let mut issued = Vec::new();
        for key in issuing {
            issued.push(key.await.unwrap());
        }
        suspending.await.unwrap();
        for key in issued {
            assert_eq!(setup.refusal(&key).await, Some(DenialKind::TenantSuspended));
        }
    }
}

/// The caller disconnects, at any moment.
pub(super) async fn a_cancelled_change_is_made_completely_or_not_at_all(setup: &Setup) {
    for micros in (0..2_000).step_by(100) {
        let name = format!("{micros}");
        let key = setup.issue(&name).await;
        let held = setup.verify(key.secret.expose_secret()).await.unwrap();
        let actor = root();
        let revoking = setup.manager.revoke(&key.details.id, &actor);
        let _ = tokio::time::timeout(Duration::from_micros(micros), revoking).await;
        // The change was made or not, and this process agrees with the store.
        let settled = async {
            loop {
                let shown = setup.manager.show(&key.details.id, &root()).await.unwrap();
                let is_revoked = shown.status == KeyStatus::Revoked;
                let has_ended = held.end_signal().reason().is_some();
                if is_revoked == has_ended {
                    break is_revoked;
                }
                tokio::task::yield_now().await;
            }
        };
        let is_revoked = soon("the store and its principals agree after a cancelled change", settled).await;
        let history = setup.actions(&key.details.id).await;
        // If it was not revoked yet, it may have been since.
        if is_revoked {
            assert_eq!(history, ["revoked", "issued"]);
            assert_eq!(setup.refusal(&key).await, Some(DenialKind::KeyRevoked));
        }
    }
}
