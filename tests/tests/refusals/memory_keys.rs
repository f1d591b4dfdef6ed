//! Keys in this process: issued, imported, revoked, suspended and resumed, and the news of it.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_util::{Stream as _, StreamExt as _, future::FutureExt as _};
use http::StatusCode;
use tests::suite::{Inner, Stack, at, erase, send, with_key};
use tollgate::{
    Change, Changes, CredentialLayer, DenialKind, Digest, EndReason, Environment, KeyFormat, KeyRecord,
    KeyStatus, KeyStore as _, KeyVerifier, ManualClock, MemoryKeys, Passage, Principal, VerifyLayer,
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
        let found = self.keys.find(&[Digest::of(secret)]).wait().now_or_never().unwrap();
        found.unwrap().unwrap()
    }
}

#[tokio::test]
async fn an_issued_key_proves_its_principal() {
    let mut api = Api::new();
    let key = api.issue(Principal::new("ada").with_tenant("acme"));
    assert_eq!(api.refusal(&key).await, None);
    let inside = api.inner.take_last();
    let principal = Passage::of(inside.extensions()).and_then(Passage::principal).unwrap();
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
    let held = Passage::of(stream.extensions()).and_then(Passage::principal).unwrap();
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

/// What a feed has to tell at the moment.
fn news(changes: &mut Changes) -> Vec<Change> {
    std::iter::from_fn(|| changes.next().now_or_never().flatten()).collect()
}

#[tokio::test]
async fn a_feed_tells_what_changed_from_now_on() {
    let api = Api::new();
    api.issue(Principal::new("earlier"));
    let mut changes = api.keys.changes();
    assert_eq!(news(&mut changes), []);
    api.issue(Principal::new("ada").with_tenant("acme"));
    api.keys.revoke("ada");
    api.keys.revoke("nobody");
    api.keys.suspend_tenant("acme");
    api.keys.clone().resume_tenant("acme");
    let (key, tenant) = (|| Change::Key("ada".into()), || Change::Tenant("acme".into()));
    assert_eq!(news(&mut changes), [key(), key(), tenant(), tenant()]);
    assert_eq!(news(&mut changes), []);
}

#[tokio::test]
async fn a_subscriber_that_falls_behind_is_told_to_forget_everything() {
    let api = Api::new();
    let (mut slow, mut quick) = (api.keys.changes(), api.keys.changes());
    for at in 0..1_024 {
        api.keys.import(&format!("imported-{at}"), Principal::new(format!("key{at}")));
    }
    assert_eq!(news(&mut quick).len(), 1_024, "so many it keeps");
    api.keys.revoke("key7");
    api.keys.revoke("key8");
    assert_eq!(
        news(&mut slow),
        [Change::Lost, Change::Key("key8".into())],
        "what came later is told after it"
    );
    assert_eq!(news(&mut quick), [Change::Key("key7".into()), Change::Key("key8".into())]);
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken() {
    let api = Api::new();
    let mut changes = api.keys.changes();
    let reader = tokio::spawn(async move { changes.next().await });
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    api.keys.import("imported-key", Principal::new("ada"));
    assert_eq!(reader.await.unwrap(), Some(Change::Key("ada".into())));
}

#[tokio::test]
async fn a_feed_ends_with_its_store() {
    let keys = MemoryKeys::new();
    let mut changes = keys.changes();
    keys.import("imported-key", Principal::new("ada"));
    drop(keys);
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(Pin::new(&mut changes).poll_next(&mut context), Poll::Ready(Some(Change::Key("ada".into()))));
    assert_eq!(Pin::new(&mut changes).poll_next(&mut context), Poll::Ready(None));
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
