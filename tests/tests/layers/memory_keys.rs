//! `MemoryKeys`: issuing, importing, revoking, suspending and resuming keys, and the events of these changes.

use std::sync::{Arc, Mutex, Weak};

use futures_util::future::FutureExt as _;
use http::StatusCode;
use tests::suite::{Inner, Stack, at, erase, send, with_key};
use tollgate::{
    CredentialLayer, DenialKind, Environment, KeyFormat, KeyVerifier, MemoryKeys, Principal, RequestContext,
    VerifyLayer,
    clock::ManualClock,
    key::Digest,
    manage::{Actor, HistoryQuery, KeyManager, NewKey},
    store::{EndReason, KeyLookup, KeyRecord, KeyStatus, KeyStore as _, StoreEvent, StoreListener},
};
use tower::{Layer as _, Service as _};

struct Api {
    format: KeyFormat,
    keys: MemoryKeys,
    inner: Inner,
    stack: Stack,
}

impl Api {
    fn new() -> Self {
        let (format, keys, inner) = (KeyFormat::new("sk").unwrap(), MemoryKeys::new(), Inner::new());
        let verifier = KeyVerifier::new(format.clone(), keys.clone()).with_format(KeyFormat::opaque());
        let clock = ManualClock::at(at(0));
        let layers =
            (CredentialLayer::new().with_clock(clock.clone()), VerifyLayer::new(verifier).with_clock(clock));
        let stack = erase(layers.layer(inner.clone()));
        Self { format, keys, inner, stack }
    }

    fn issue(&self, principal: Principal) -> String {
        self.keys.issue(&self.format, Environment::Live, principal).unwrap().expose_secret().to_owned()
    }

    /// `None` if the key is accepted.
    async fn refusal(&mut self, key: &str) -> Option<DenialKind> {
        send(&mut self.stack, with_key(key)).await.kind()
    }

    fn record(&self, secret: &str) -> KeyRecord {
        let found = self
            .keys
            .find(&KeyLookup::new(&[Digest::of(secret)], at(0)))
            .into_future()
            .now_or_never()
            .unwrap();
        found.unwrap().unwrap()
    }
}

#[tokio::test]
async fn an_issued_key_authenticates_its_principal() {
    let mut api = Api::new();
    let key = api.issue(Principal::new("ada").with_tenant("acme"));
    assert_eq!(api.refusal(&key).await, None);
    let inside = api.inner.take_last();
    let principal = RequestContext::of(inside.extensions()).and_then(RequestContext::principal).unwrap();
    assert_eq!((principal.id(), principal.tenant()), ("ada", Some("acme")));
    assert_eq!(principal.environment(), Some(Environment::Live));
    assert_eq!(
        api.refusal(&key[..key.len() - 1]).await,
        Some(DenialKind::KeyUnknown),
        "a truncated key is unknown"
    );
}

#[tokio::test]
async fn a_revoked_key_is_refused_as_soon_as_revoke_returns() {
    let mut api = Api::new();
    let key = api.issue(Principal::new("ada"));
    assert_eq!(api.refusal(&key).await, None);
    let stream = api.inner.take_last();
    let held = RequestContext::of(stream.extensions()).and_then(RequestContext::principal).unwrap();
    assert_eq!(held.end_signal().reason(), None);

    assert!(api.keys.revoke("ada"));
    assert_eq!(api.refusal(&key).await, Some(DenialKind::KeyRevoked));
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked), "open streams are notified");
    assert!(api.keys.revoke("ada"), "revoking again succeeds and changes nothing");
    assert!(!api.keys.revoke("bob"), "unknown key");
}

#[tokio::test]
async fn issuing_again_replaces_the_former_key_at_once() {
    let mut api = Api::new();
    let former = api.issue(Principal::new("ada"));
    let held = api.record(&former).principal().clone();
    let current = api.issue(Principal::new("ada"));
    assert_eq!(api.refusal(&former).await, Some(DenialKind::KeyUnknown));
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(api.refusal(&current).await, None);
    assert!(api.keys.revoke("ada"));
    assert_eq!(api.refusal(&current).await, Some(DenialKind::KeyRevoked));
}

#[tokio::test]
async fn keys_of_one_principal_end_separately() {
    let mut api = Api::new();
    let ada = Principal::new("ada");
    api.keys.import("ada's first key", ada.clone());
    let (first, second) = (api.issue(ada.clone()), "the-second-key");
    api.keys.import(second, ada);
    assert_eq!(api.refusal(&first).await, Some(DenialKind::KeyUnknown));
    assert_eq!(api.refusal(second).await, None);
}

#[tokio::test]
async fn importing_a_key_again_updates_its_principal() {
    let mut api = Api::new();
    api.keys.import("imported-key", Principal::new("ada").with_tenant("acme"));
    let before = api.record("imported-key");
    api.keys.import("imported-key", Principal::new("ada").with_tenant("other"));
    assert_eq!(api.refusal("imported-key").await, None);
    let after = api.record("imported-key");
    assert_eq!(after.principal().tenant(), Some("other"));
    assert!(
        after.generation() > before.generation(),
        "a newer record has a higher generation; otherwise caches keep the old one"
    );
}

#[tokio::test]
async fn revoking_a_key_ends_the_principals_of_an_earlier_import() {
    let api = Api::new();
    api.keys.import("imported-key", Principal::new("ada"));
    let held = api.record("imported-key").principal().clone();
    api.keys.import("imported-key", Principal::new("ada").with_tenant("acme"));
    assert!(api.keys.revoke("ada"));
    assert!(held.end_signal().reason().is_some(), "a stream of the earlier principal never ends");
}

#[tokio::test]
async fn a_revoked_key_that_is_imported_again_has_a_newer_record() {
    let mut api = Api::new();
    api.keys.import("imported-key", Principal::new("ada"));
    api.keys.revoke("ada");
    let revoked = api.record("imported-key").generation();
    api.keys.import("imported-key", Principal::new("ada"));
    assert_eq!(api.refusal("imported-key").await, None);
    assert!(api.record("imported-key").generation() > revoked);
}

#[tokio::test]
async fn revoking_the_former_id_of_a_secret_does_not_revoke_the_secret() {
    let mut api = Api::new();
    api.keys.import("imported-key", Principal::new("ada"));
    let held = api.record("imported-key").principal().clone();
    api.keys.import("imported-key", Principal::new("bob"));
    assert!(held.end_signal().reason().is_some(), "streams of `ada` end, because it has no secret left");
    api.keys.revoke("ada");
    assert_eq!(api.refusal("imported-key").await, None, "the secret belongs to `bob`");
    assert!(api.keys.revoke("bob"));
    assert_eq!(api.refusal("imported-key").await, Some(DenialKind::KeyRevoked));
}

#[tokio::test]
async fn a_suspension_also_applies_to_keys_that_are_issued_during_it() {
    let mut api = Api::new();
    let (ada, bob) = (api.issue(Principal::new("ada").with_tenant("acme")), api.issue(Principal::new("bob")));
    let held = api.record(&ada).principal().clone();
    api.keys.suspend_tenant("acme");
    let late = api.issue(Principal::new("late").with_tenant("acme"));
    for key in [&ada, &late] {
        assert_eq!(api.refusal(key).await, Some(DenialKind::TenantSuspended));
    }
    assert_eq!(held.end_signal().reason(), Some(EndReason::TenantSuspended));
    assert_eq!(api.refusal(&bob).await, None, "another's");

    api.keys.resume_tenant("acme");
    for key in [&ada, &late] {
        assert_eq!(api.refusal(key).await, None);
        assert_eq!(
            api.record(key).principal().end_signal().reason(),
            None,
            "an end signal is final, so a resumed key has a new one"
        );
    }
    assert_eq!(held.end_signal().reason(), Some(EndReason::TenantSuspended));
}

#[tokio::test]
async fn a_revoked_key_stays_revoked_after_a_suspension() {
    let mut api = Api::new();
    let (before, during) = (
        api.issue(Principal::new("before").with_tenant("acme")),
        api.issue(Principal::new("during").with_tenant("acme")),
    );
    api.keys.revoke("before");
    api.keys.suspend_tenant("acme");
    api.keys.revoke("during");
    assert_eq!(api.refusal(&before).await, Some(DenialKind::KeyRevoked));
    assert_eq!(api.refusal(&during).await, Some(DenialKind::KeyRevoked));
    api.keys.resume_tenant("acme");
    assert_eq!(api.refusal(&before).await, Some(DenialKind::KeyRevoked));
    assert_eq!(api.refusal(&during).await, Some(DenialKind::KeyRevoked));
}

#[tokio::test]
async fn every_change_increases_the_generation() {
    let api = Api::new();
    let key = api.issue(Principal::new("ada").with_tenant("acme"));
    let mut last = api.record(&key).generation();
    let steps: [fn(&MemoryKeys); 3] = [
        |keys| keys.suspend_tenant("acme"),
        |keys| keys.resume_tenant("acme"),
        |keys| {
            assert!(keys.revoke("ada"));
        },
    ];
    for step in steps {
        step(&api.keys);
        let now = api.record(&key).generation();
        assert!(now > last);
        last = now;
    }
    assert_eq!(api.record(&key).status(), KeyStatus::Revoked);
}

/// Records the events that it receives.
#[derive(Default)]
struct Received(Mutex<Vec<StoreEvent>>);

impl StoreListener for Received {
    fn on_event(&self, change: &StoreEvent) {
        self.0.lock().unwrap().push(change.clone());
    }
}

impl Received {
    fn take(&self) -> Vec<StoreEvent> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn listeners_are_notified_before_a_change_returns() {
    let api = Api::new();
    api.issue(Principal::new("earlier"));
    let received = Arc::new(Received::default());
    let _ = api.keys.subscribe(Arc::downgrade(&received) as Weak<dyn StoreListener>);
    assert_eq!(received.take(), [StoreEvent::Connected], "within a process, events are connected at once");

    api.issue(Principal::new("ada").with_tenant("acme"));
    assert_eq!(received.take(), [StoreEvent::Key { id: "ada".into(), generation: 2, end: None }]);
    api.keys.revoke("ada");
    assert_eq!(
        received.take(),
        [StoreEvent::Key { id: "ada".into(), generation: 3, end: Some(EndReason::Revoked) }]
    );
    api.keys.revoke("ada");
    api.keys.revoke("unknown");
    assert_eq!(received.take(), [], "nothing changed");
    api.keys.suspend_tenant("acme");
    let end = Some(EndReason::TenantSuspended);
    assert_eq!(received.take(), [StoreEvent::Tenant { tenant: "acme".into(), generation: 4, end }]);
    api.keys.clone().resume_tenant("acme");
    assert_eq!(received.take(), [StoreEvent::Tenant { tenant: "acme".into(), generation: 5, end: None }]);
    drop(received);
    api.keys.revoke("earlier");
}

#[tokio::test]
async fn a_request_that_was_verified_before_the_revocation_passes() {
    let mut api = Api::new();
    let key = api.issue(Principal::new("ada"));
    assert!(tests::suite::is_ready_now(&mut api.stack));
    let response = api.stack.call(with_key(&key));
    api.keys.revoke("ada");
    assert_eq!(response.await.unwrap().status(), StatusCode::OK, "verified before the revocation");
    assert_eq!(api.refusal(&key).await, Some(DenialKind::KeyRevoked));
}

/// One tenant's user renames a key again and again. The history of other tenants stays.
#[tokio::test]
async fn the_history_of_a_tenant_is_not_displaced_by_another_tenant() {
    let keys = MemoryKeys::new();
    let manager = KeyManager::new(KeyFormat::new("sk").unwrap(), keys.clone());
    let root = Actor::new("root");
    let issue = async |tenant: &str| {
        manager.issue(NewKey::named("build").with_tenant(tenant), &root).await.unwrap().details.id
    };
    let (quiet, busy) = (issue("quiet").await, issue("busy").await);
    for number in 0..10_000 {
        manager.rename(&busy, &format!("build {number}"), &root).await.unwrap();
    }
    let history = async |query: HistoryQuery| manager.history(query, &root).await.unwrap().items;
    let of_quiet = history(HistoryQuery::of_key(&*quiet)).await;
    assert_eq!(of_quiet.len(), 1, "the other tenant's event is still there");
    let latest = &history(HistoryQuery::of_key(&*busy).with_limit(1)).await[0];
    assert!(latest.detail.contains("build 9999"), "{latest:?}");
    let everything = history(HistoryQuery::all().with_limit(1_000)).await;
    assert!(everything.is_sorted_by(|newer, older| newer.generation > older.generation));
}
