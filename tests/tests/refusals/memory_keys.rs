//! Keys in this process: issued, imported, revoked, suspended and resumed, and the news of it.

use std::sync::{Arc, Mutex, Weak};

use futures_util::future::FutureExt as _;
use http::StatusCode;
use tests::suite::{Inner, Stack, at, erase, send, with_key};
use tollgate::{
    CredentialLayer, DenialKind, Environment, KeyFormat, KeyVerifier, MemoryKeys, Principal, RequestContext,
    VerifyLayer,
    clock::ManualClock,
    key::Digest,
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

    /// `None` if the key is good.
    async fn refusal(&mut self, key: &str) -> Option<DenialKind> {
        send(&mut self.stack, with_key(key)).await.kind()
    }

    fn record(&self, secret: &str) -> KeyRecord {
        let found =
            self.keys.find(&KeyLookup::new(&[Digest::of(secret)], at(0))).wait().now_or_never().unwrap();
        found.unwrap().unwrap()
    }
}

#[tokio::test]
async fn an_issued_key_proves_its_principal() {
    let mut api = Api::new();
    let key = api.issue(Principal::new("ada").with_tenant("acme"));
    assert_eq!(api.refusal(&key).await, None);
    let inside = api.inner.take_last();
    let principal = RequestContext::of(inside.extensions()).and_then(RequestContext::principal).unwrap();
    assert_eq!((principal.id(), principal.tenant()), ("ada", Some("acme")));
    assert_eq!(principal.environment(), Some(Environment::Live));
    assert_eq!(api.refusal(&key[..key.len() - 1]).await, Some(DenialKind::KeyUnknown), "too short is opaque");
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
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked), "open streams are told");
    assert!(api.keys.revoke("ada"), "again, which changes nothing");
    assert!(!api.keys.revoke("bob"), "there is no such key");
}

#[tokio::test]
async fn issuing_again_replaces_the_former_key_at_the_same_moment() {
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
async fn keys_made_of_one_principal_end_each_by_itself() {
    let mut api = Api::new();
    let ada = Principal::new("ada");
    api.keys.import("ada's first key", ada.clone());
    let (first, second) = (api.issue(ada.clone()), "the-second-key");
    api.keys.import(second, ada);
    assert_eq!(api.refusal(&first).await, Some(DenialKind::KeyUnknown));
    assert_eq!(api.refusal(second).await, None);
}

#[tokio::test]
async fn importing_a_key_again_takes_over_what_its_principal_now_is() {
    let mut api = Api::new();
    api.keys.import("imported-key", Principal::new("ada").with_tenant("acme"));
    let before = api.record("imported-key");
    api.keys.import("imported-key", Principal::new("ada").with_tenant("other"));
    assert_eq!(api.refusal("imported-key").await, None);
    let after = api.record("imported-key");
    assert_eq!(after.principal().tenant(), Some("other"));
    assert!(
        after.generation() > before.generation(),
        "a newer record has a higher generation, or caches keep the older"
    );
}

#[tokio::test]
async fn whoever_holds_a_key_that_was_imported_twice_is_told_of_its_end() {
    let api = Api::new();
    api.keys.import("imported-key", Principal::new("ada"));
    let held = api.record("imported-key").principal().clone();
    api.keys.import("imported-key", Principal::new("ada").with_tenant("acme"));
    assert!(api.keys.revoke("ada"));
    assert!(held.end_signal().reason().is_some(), "a stream of the former principal stays open for ever");
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
async fn a_secret_that_now_belongs_to_another_identifier_is_not_revoked_by_the_former() {
    let mut api = Api::new();
    api.keys.import("imported-key", Principal::new("ada"));
    let held = api.record("imported-key").principal().clone();
    api.keys.import("imported-key", Principal::new("bob"));
    assert!(held.end_signal().reason().is_some(), "ada's streams end, for she has no key any more");
    api.keys.revoke("ada");
    assert_eq!(api.refusal("imported-key").await, None, "it is bob's");
    assert!(api.keys.revoke("bob"));
    assert_eq!(api.refusal("imported-key").await, Some(DenialKind::KeyRevoked));
}

#[tokio::test]
async fn a_suspension_holds_until_it_is_lifted_and_for_keys_issued_meanwhile() {
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
            "a signal cannot be taken back: a new one"
        );
    }
    assert_eq!(held.end_signal().reason(), Some(EndReason::TenantSuspended));
}

#[tokio::test]
async fn what_was_revoked_stays_revoked_through_a_suspension() {
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
async fn every_change_raises_the_generation() {
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

/// Keeps what it is told.
#[derive(Default)]
struct Heard(Mutex<Vec<StoreEvent>>);

impl StoreListener for Heard {
    fn on_event(&self, change: &StoreEvent) {
        self.0.lock().unwrap().push(change.clone());
    }
}

impl Heard {
    fn take(&self) -> Vec<StoreEvent> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn watchers_are_told_what_changed_before_whoever_changed_it_is_answered() {
    let api = Api::new();
    api.issue(Principal::new("earlier"));
    let heard = Arc::new(Heard::default());
    api.keys.subscribe(Arc::downgrade(&heard) as Weak<dyn StoreListener>);
    assert_eq!(heard.take(), [StoreEvent::Connected], "in this process no news are missed");

    api.issue(Principal::new("ada").with_tenant("acme"));
    assert_eq!(heard.take(), [StoreEvent::Key { id: "ada".into(), generation: 2, end: None }]);
    api.keys.revoke("ada");
    assert_eq!(
        heard.take(),
        [StoreEvent::Key { id: "ada".into(), generation: 3, end: Some(EndReason::Revoked) }]
    );
    api.keys.revoke("ada");
    api.keys.revoke("nobody");
    assert_eq!(heard.take(), [], "nothing changed");
    api.keys.suspend_tenant("acme");
    let end = Some(EndReason::TenantSuspended);
    assert_eq!(heard.take(), [StoreEvent::Tenant { tenant: "acme".into(), generation: 4, end }]);
    api.keys.clone().resume_tenant("acme");
    assert_eq!(heard.take(), [StoreEvent::Tenant { tenant: "acme".into(), generation: 5, end: None }]);
    drop(heard);
    api.keys.revoke("earlier");
}

#[tokio::test]
async fn a_request_under_way_while_its_key_is_revoked_sees_one_or_the_other() {
    let mut api = Api::new();
    let key = api.issue(Principal::new("ada"));
    assert!(tests::suite::is_ready_now(&mut api.stack));
    let response = api.stack.call(with_key(&key));
    api.keys.revoke("ada");
    assert_eq!(response.await.unwrap().status(), StatusCode::OK, "it was let in before");
    assert_eq!(api.refusal(&key).await, Some(DenialKind::KeyRevoked));
}
