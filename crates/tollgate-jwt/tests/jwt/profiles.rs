//! Profiles, and the events of a key store about tenants.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::{sync::Notify, time::advance};
use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind, Unavailable},
    store::{
        EndReason, EndSignal, KeyLookup, KeyRecord, KeyStore, Listeners, StoreEvent, StoreListener,
        Subscription,
    },
    verify::{Plan, Principal},
};
use tollgate_jwt::{Claims, Issuer, JwtVerifier, Profiles, Revocations, profiles_fn};
use tollgate_testing::{hs256_token, midnight};

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

/// Reads a profile slowly while `change` happens. Returns what the request gets.
async fn during_a_lookup(
    setup: &Setup,
    database: &Database,
    change: impl FnOnce(),
) -> Result<Arc<Principal>, Denial> {
    setup.verifier.connect_at(midnight()).await.unwrap();
    let slow = Arc::new(Notify::new());
    *database.0.slow.lock().unwrap() = Some(Arc::clone(&slow));
    let token = setup.authority.mint(json!({"sub": "u", "tenant": "acme", "jti": "1"}));
    let mut request = Box::pin(setup.verify(&token));
    assert!(request.as_mut().now_or_never().is_none());
    crate::support::eventually(|| database.lookups() == 1).await;
    change();
    *database.0.slow.lock().unwrap() = None;
    slow.notify_one();
    let verified = request.await;
    drop(setup.verify(&token).await);
    verified
}

#[tokio::test]
async fn changes_of_other_tenants_during_a_lookup_cost_nothing() {
    let (setup, database) = setup().await;
    let verified = during_a_lookup(&setup, &database, || {
        for number in 0..100 {
            database.set(&format!("other-{number}"), "pro", None);
        }
    });
    assert!(verified.await.is_ok());
    assert_eq!(database.lookups(), 1, "it is not repeated, and cached");
}

#[tokio::test]
async fn a_lookup_is_repeated_if_the_store_was_disconnected_during_it() {
    let (setup, database) = setup().await;
    let verified = during_a_lookup(&setup, &database, || {
        database.0.listeners.notify(&StoreEvent::Disconnected);
        database.0.plans.lock().unwrap().insert("acme".to_owned(), "pro");
        database.0.listeners.notify(&StoreEvent::Connected);
    });
    assert_eq!(tier(&verified.await.unwrap()), "pro");
    assert_eq!(database.lookups(), 2);
}

#[tokio::test]
async fn a_token_that_is_revoked_during_a_lookup_is_refused() {
    let (setup, database) = setup().await;
    let revocations = Revocations::new();
    let setup = Setup { verifier: setup.verifier.clone().with_revocations(&revocations), ..setup };
    let verified = during_a_lookup(&setup, &database, || {
        revocations.revoke_token("1", midnight() + seconds(3_700)).unwrap();
    });
    assert_eq!(verified.await.unwrap_err().kind(), DenialKind::KeyRevoked);
}

const SECRET: &[u8] = b"a secret of 32 bytes for a test..";

/// A verifier without sockets, so that a test may advance the time.
fn local(profiles: impl Profiles) -> JwtVerifier {
    JwtVerifier::new(Issuer::hs256("i", "a", SECRET).unwrap()).with_profiles(profiles)
}

fn local_token(sub: usize) -> String {
    let claims = json!({"iss": "i", "aud": "a", "sub": sub.to_string(), "exp": 2_000_077_200_u64});
    hs256_token(SECRET, &json!({"alg": "HS256"}), &claims)
}

#[tokio::test(start_paused = true)]
async fn five_failed_lookups_open_the_circuit_breaker_for_a_second() {
    let (calls, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let (counted, is_down) = (Arc::clone(&calls), Arc::clone(&fails));
    let verifier = local(profiles_fn(move |claims: Arc<Claims>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let is_down = is_down.load(Ordering::SeqCst);
        async move { if is_down { Err(Denial::unavailable("no database")) } else { claims.to_principal() } }
    }));
    let request = async |sub| verify(&verifier, &local_token(sub), midnight()).await;
    let calls = || calls.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert!(request(0).await.is_err());
    }
    assert_eq!(calls(), 10, "one user whose profile is broken does not open it");
    for sub in 1..5 {
        assert!(request(sub).await.is_err());
    }
    for sub in 5..10 {
        let denial = request(sub).await.unwrap_err();
        assert!(denial.kind() == DenialKind::Unavailable && denial.log_detail().contains("circuit breaker"));
    }
    assert_eq!(calls(), 14);
    advance(seconds(1)).await;
    assert!(request(20).await.is_err() && request(21).await.is_err());
    assert_eq!(calls(), 15, "one asks, and fails");
    fails.store(false, Ordering::SeqCst);
    assert!(request(22).await.is_err(), "for another second");
    advance(seconds(1)).await;
    assert!(request(23).await.is_ok() && request(24).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_hangs_is_not_joined_after_a_second() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let verifier = local(profiles_fn(move |claims: Arc<Claims>| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move { if call == 0 { std::future::pending().await } else { claims.to_principal() } }
    }));
    let token = local_token(1);
    let mut first = Box::pin(verify(&verifier, &token, midnight()));
    assert!(first.as_mut().now_or_never().is_none());
    advance(std::time::Duration::from_millis(1_001)).await;
    assert!(verify(&verifier, &token, midnight()).await.is_ok());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(first.await.unwrap_err().kind(), DenialKind::Unavailable);
}

#[tokio::test]
async fn store_events_without_profiles_are_a_clear_error() {
    let setup = Setup::with(|verifier| verifier.with_store_events(Database::default())).await;
    let error = setup.verifier.connect_at(midnight()).await.unwrap_err().to_string();
    assert!(error.contains("with_store_events") && error.contains("with_profiles"), "{error}");
    let (kind, detail) = setup.refusal(&setup.authority.mint(json!({"sub": "u"}))).await;
    assert!(kind == DenialKind::Misconfigured && detail.contains("with_profiles"), "{detail}");
}

/// An application may keep a principal for each user, and return clones of it for all tokens of the user.
#[tokio::test]
async fn the_end_of_one_token_does_not_end_another_one_of_the_same_principal() {
    let shared = Principal::new("user_1");
    let revocations = Revocations::new();
    let setup = Setup::with(|verifier| {
        verifier.with_principal(move |_| Ok(shared.clone())).with_revocations(&revocations)
    })
    .await;
    let tokens = ["1", "2"].map(|jti| setup.authority.mint(json!({"sub": "user_1", "jti": jti})));
    let one = setup.verify(&tokens[0]).await.unwrap();
    let two = setup.verify(&tokens[1]).await.unwrap();
    revocations.revoke_token("1", midnight() + seconds(3_700)).unwrap();
    assert_eq!(one.end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(two.end_signal().reason(), None);
    assert!(setup.verify(&tokens[1]).await.is_ok());
}

/// A profile with allowed networks says so without a denial: `VerifyLayer` checks the networks first.
#[tokio::test]
async fn a_principal_that_has_ended_already_stays_ended() {
    let setup = Setup::with(|verifier| {
        verifier.with_principal(|claims| {
            let signal = EndSignal::new();
            signal.end(EndReason::TenantSuspended);
            Ok(claims.to_principal()?.with_end_signal(signal))
        })
    })
    .await;
    let principal = setup.verify(&setup.authority.mint(json!({"sub": "u"}))).await.unwrap();
    assert_eq!(principal.end_signal().reason(), Some(EndReason::TenantSuspended));
}
