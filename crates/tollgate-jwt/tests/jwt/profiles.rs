//! Profiles, and the events of a key store about tenants.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::sync::Notify;
use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind, Unavailable},
    store::{EndReason, KeyLookup, KeyRecord, KeyStore, Listeners, StoreEvent, StoreListener, Subscription},
    verify::{Plan, Principal},
};
use tollgate_jwt::{Claims, JwtVerifier, Profiles, profiles_fn};
use tollgate_testing::midnight;

use crate::support::{Setup, seconds, verify};

/// A database of profiles, and a key store that publishes the changes of tenants.
#[derive(Clone, Default)]
struct Database(Arc<Tables>);

#[derive(Default)]
struct Tables {
    listeners: Listeners,
    plans: Mutex<HashMap<String, &'static str>>,
    lookups: Mutex<usize>,
    // A lookup that has read its row waits for this.
    slow: Mutex<Option<Arc<Notify>>>,
}

impl Database {
    fn lookups(&self) -> usize {
        *self.0.lookups.lock().unwrap()
    }

    fn set(&self, tenant: &str, plan: &'static str, end: Option<EndReason>) {
        self.0.plans.lock().unwrap().insert(tenant.to_owned(), plan);
        self.0.listeners.notify(&StoreEvent::Tenant { tenant: tenant.into(), generation: 1, end });
    }
}

impl Profiles for Database {
    fn find(&self, claims: &Arc<Claims>) -> Answer<Result<Principal, Denial>> {
        let (database, claims) = (self.clone(), Arc::clone(claims));
        Answer::later(async move {
            *database.0.lookups.lock().unwrap() += 1;
            let tenant = claims.require_text("tenant")?.to_owned();
            let plan = database.0.plans.lock().unwrap().get(&tenant).copied().unwrap_or("free");
            let slow = database.0.slow.lock().unwrap().clone();
            if let Some(slow) = slow {
                slow.notified().await;
            }
            match plan {
                "suspended" => Err(Denial::new(DenialKind::TenantSuspended)),
                plan => Ok(claims.to_principal()?.with_tenant(tenant).with_plan(Plan::active(plan))),
            }
        })
    }
}

impl KeyStore for Database {
    fn find(&self, _: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        Answer::Now(Ok(None))
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.0.listeners.subscribe(listener)
    }
}

async fn setup() -> (Setup, Database) {
    let database = Database::default();
    database.0.listeners.notify(&StoreEvent::Connected);
    let change =
        |verifier: JwtVerifier| verifier.with_profiles(database.clone()).with_store_events(database.clone());
    (Setup::with(change).await, database)
}

fn tier(principal: &Principal) -> &str {
    principal.plan().expect("a plan").tier()
}

#[tokio::test]
async fn a_profile_is_cached_for_30_seconds() {
    let (setup, database) = setup().await;
    let token = setup.authority.mint(json!({"sub": "u", "tenant": "acme"}));
    for (advance, lookups) in [(0, 1), (29, 1), (1, 2), (29, 2)] {
        setup.clock.advance(seconds(advance));
        setup.verify(&token).await.unwrap();
        assert_eq!(database.lookups(), lookups);
    }
}

#[tokio::test]
async fn a_new_plan_and_a_suspension_take_effect_at_once() {
    let (setup, database) = setup().await;
    let token = setup.authority.mint(json!({"sub": "u", "tenant": "acme"}));
    let other = setup.verify(&setup.authority.mint(json!({"sub": "u", "tenant": "other"}))).await.unwrap();
    assert_eq!(tier(&setup.verify(&token).await.unwrap()), "free");
    database.set("acme", "pro", None);
    let principal = setup.verify(&token).await.unwrap();
    assert_eq!((tier(&principal), principal.end_signal().reason()), ("pro", None));
    let stream = principal.wait_until_ended();
    database.set("acme", "suspended", Some(EndReason::TenantSuspended));
    assert_eq!(stream.await, EndReason::TenantSuspended);
    assert_eq!(setup.refusal(&token).await.0, DenialKind::TenantSuspended);
    assert_eq!(other.end_signal().reason(), None);
    database.set("acme", "pro", None);
    assert!(setup.verify(&token).await.is_ok(), "a refusal is not cached");
}

#[tokio::test]
async fn nothing_is_cached_while_the_store_is_disconnected() {
    let (setup, database) = setup().await;
    let token = setup.authority.mint(json!({"sub": "u", "tenant": "acme"}));
    setup.verify(&token).await.unwrap();
    database.0.listeners.notify(&StoreEvent::Disconnected);
    for lookups in 2..5 {
        setup.verify(&token).await.unwrap();
        assert_eq!(database.lookups(), lookups);
    }
    database.0.listeners.notify(&StoreEvent::Connected);
    for _ in 0..3 {
        setup.verify(&token).await.unwrap();
        assert_eq!(database.lookups(), 5);
    }
    database.0.listeners.notify(&StoreEvent::Key {
        id: "u".into(),
        generation: 1,
        end: Some(EndReason::Revoked),
    });
    assert_eq!(
        setup.verify(&token).await.unwrap().end_signal().reason(),
        None,
        "an event of a key is about no token"
    );
    assert_eq!(database.lookups(), 5);
}

/// A profile was read just before its tenant is suspended, and arrives after it.
#[tokio::test]
async fn a_lookup_that_began_before_an_event_begins_anew() {
    let (setup, database) = setup().await;
    let setup = Arc::new(setup);
    setup.verifier.connect().await.unwrap();
    let slow = Arc::new(Notify::new());
    *database.0.slow.lock().unwrap() = Some(Arc::clone(&slow));
    let request = {
        let setup = Arc::clone(&setup);
        tokio::spawn(async move {
            let token = setup.authority.mint(json!({"sub": "u", "tenant": "acme"}));
            setup.verify(&token).await
        })
    };
    crate::support::eventually(|| database.lookups() == 1).await;
    database.set("acme", "suspended", Some(EndReason::TenantSuspended));
    *database.0.slow.lock().unwrap() = None;
    slow.notify_one();
    assert_eq!(request.await.unwrap().unwrap_err().kind(), DenialKind::TenantSuspended);
    assert_eq!(database.lookups(), 2);
}

#[tokio::test]
async fn concurrent_requests_share_a_lookup_that_survives_callers_who_hang_up() {
    let (setup, database) = setup().await;
    // Another caller, so that the keys are known: a caller who hangs up before that begins no lookup.
    setup.verify(&setup.authority.mint(json!({"sub": "other", "tenant": "acme"}))).await.unwrap();
    let token = setup.authority.mint(json!({"sub": "u", "tenant": "acme"}));
    let slow = Arc::new(Notify::new());
    *database.0.slow.lock().unwrap() = Some(Arc::clone(&slow));
    for _ in 0..5 {
        // Polled once, and dropped.
        assert!(setup.verify(&token).now_or_never().is_none());
    }
    crate::support::eventually(|| database.lookups() == 2).await;
    slow.notify_one();
    assert!(setup.verify(&token).await.is_ok());
    assert_eq!(database.lookups(), 2);
}

#[tokio::test]
async fn a_profile_that_does_not_arrive_is_unavailable_after_the_deadline() {
    let setup = Setup::with(|verifier| {
        verifier
            .with_profiles(profiles_fn(|_| std::future::pending()))
            .with_profile_deadline(std::time::Duration::from_millis(20))
    })
    .await;
    let token = setup.authority.mint(json!({"sub": "u"}));
    let (kind, detail) = setup.refusal(&token).await;
    assert!(kind == DenialKind::Unavailable && detail.contains("20ms"), "{detail}");
    let panics = setup
        .verifier
        .clone()
        .with_profiles(profiles_fn(|_| async { panic!("a mistake of the application") }));
    assert_eq!(verify(&panics, &token, midnight()).await.unwrap_err().kind(), DenialKind::Unavailable);
}

/// A key store without events says how long its records may be trusted.
#[tokio::test]
async fn a_store_without_events_limits_the_time() {
    struct NoEvents;
    impl KeyStore for NoEvents {
        fn find(&self, _: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
            Answer::Now(Ok(None))
        }
        fn subscribe(&self, _: Weak<dyn StoreListener>) -> Subscription {
            Subscription::trust_for(seconds(10))
        }
    }
    let database = Database::default();
    let setup =
        Setup::with(|verifier| verifier.with_profiles(database.clone()).with_store_events(NoEvents)).await;
    let token = setup.authority.mint(json!({"sub": "u", "tenant": "acme"}));
    for (advance, lookups) in [(0, 1), (9, 1), (1, 2)] {
        setup.clock.advance(seconds(advance));
        setup.verify(&token).await.unwrap();
        assert_eq!(database.lookups(), lookups);
    }
}
