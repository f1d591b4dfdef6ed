//! Concurrent changes: a revoked key stays revoked, and every listener is notified.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Wake, Waker},
    thread,
    time::Duration,
};

use futures_util::future::FutureExt as _;
use http::{HeaderValue, Request};
use tests::suite::at;
use tollgate::{
    Denial, DenialKind, MemoryKeys, Principal,
    key::Digest,
    request::RequestHead,
    store::{
        EndReason, EndSignal, KeyLookup, KeyRecord, KeyStatus, KeyStore as _, StoreEvent, StoreListener,
    },
    verify::{Credential, CredentialSource, Verify as _, VerifyRequest},
};

use super::Keys;

const SECRET: &str = "an-imported-secret";

fn find(keys: &MemoryKeys, secret: &str) -> Option<KeyRecord> {
    keys.find(&KeyLookup::new(&[Digest::of(secret)], at(0))).into_future().now_or_never().unwrap().unwrap()
}

/// The verifier's answer for a key.
fn verify(keys: &Keys, key: &str) -> Result<Arc<Principal>, Denial> {
    let credential = Credential::new(HeaderValue::from_str(key).unwrap(), 0, CredentialSource::Bearer);
    let (head, ()) = Request::new(()).into_parts();
    keys.verifier()
        .verify(&VerifyRequest::new(&credential, RequestHead::from(&head), at(0)))
        .into_future()
        .now_or_never()
        .unwrap()
}

/// A waker that changes keys while it is woken, like an executor that runs tasks inline.
struct ChangesKeys(MemoryKeys);

impl Wake for ChangesKeys {
    fn wake(self: Arc<Self>) {
        assert!(self.0.revoke("other"));
        self.0.suspend_tenant("acme");
        assert!(find(&self.0, SECRET).is_some());
    }
}

/// Runs `attack` on a store with two keys, in a separate thread. A deadlock fails the test.
fn without_deadlock(attack: fn(&MemoryKeys, &mut Context<'_>)) {
    let (done, outcome) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let keys = MemoryKeys::new();
        keys.import(SECRET, Principal::new("ada"));
        keys.import("another-secret", Principal::new("other").with_tenant("acme"));
        let waker = Waker::from(Arc::new(ChangesKeys(keys.clone())));
        attack(&keys, &mut Context::from_waker(&waker));
        let other = find(&keys, "another-secret").unwrap();
        done.send(other.principal().end_signal().reason()).unwrap();
    });
    let reason = outcome.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(reason, Some(EndReason::Revoked), "the nested change is applied");
}

/// The task of an open stream changes keys when it is notified of its end.
#[test]
fn a_stream_may_change_keys_when_it_ends() {
    without_deadlock(|keys, context| {
        let mut end = Box::pin(find(keys, SECRET).unwrap().principal().wait_until_ended());
        assert!(end.as_mut().poll(context).is_pending());
        assert!(keys.revoke("ada"));
    });
}

/// A listener changes keys while it is notified of a change.
#[test]
fn a_listener_may_change_keys_when_it_is_notified() {
    without_deadlock(|keys, _| {
        let waker = Arc::new(ChangesKeys(keys.clone()));
        let has_run = AtomicBool::new(false);
        let listener: Arc<dyn StoreListener> = Arc::new(move |change: &StoreEvent| {
            if *change != StoreEvent::Connected && !has_run.swap(true, Ordering::SeqCst) {
                Arc::clone(&waker).wake();
            }
        });
        let _ = keys.subscribe(Arc::downgrade(&listener));
        keys.import(SECRET, Principal::new("ada"));
    });
}

/// Application data that changes keys while it is dropped.
#[derive(Clone)]
struct ChangesKeysOnDrop(MemoryKeys);

impl Drop for ChangesKeysOnDrop {
    fn drop(&mut self) {
        assert!(self.0.revoke("other"));
        assert!(find(&self.0, "another-secret").is_some());
    }
}

#[test]
fn data_of_a_principal_may_change_keys_when_it_is_dropped() {
    without_deadlock(|keys, _| {
        let ada = || Principal::new("ada").with_extension(ChangesKeysOnDrop(keys.clone()));
        // Replaced with the same secret, with another secret, by another principal, then deleted.
        keys.import(SECRET, ada());
        keys.import(SECRET, ada());
        keys.import("a-third-secret", ada());
        keys.import(SECRET, Principal::new("grace"));
        assert!(keys.delete("ada"));
    });
}

/// Two threads present a key while others revoke it, and suspend and resume its tenant.
#[test]
fn no_race_accepts_a_key_after_revoke_returns() {
    for _ in 0..100 {
        let keys = Keys::new();
        let key = keys.issue(Principal::new("ada").with_tenant("acme"));
        let is_revoked = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let before = is_revoked.load(Ordering::SeqCst);
                        let principal = verify(&keys, &key).ok();
                        let is_good = principal.is_some_and(|principal| principal.ended(at(0)).is_none());
                        if before {
                            assert!(!is_good, "accepted after revoke returned");
                            break;
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..20 {
                    keys.store.suspend_tenant("acme");
                    keys.store.resume_tenant("acme");
                }
            });
            scope.spawn(|| {
                assert!(keys.store.revoke("ada"));
                is_revoked.store(true, Ordering::SeqCst);
            });
        });
        assert_eq!(verify(&keys, &key).unwrap_err().kind(), DenialKind::KeyRevoked);
    }
}

/// More threads than the store has read locks look up a key while it is revoked and imported again.
#[test]
fn no_race_finds_a_stale_record() {
    const READERS: usize = 12;
    let keys = MemoryKeys::new();
    // The generation after the last change that has returned. No reader may see an older one.
    let (least, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let least = least.load(Ordering::SeqCst);
                    let Some(record) = find(&keys, SECRET) else {
                        assert_eq!(least, 0, "no record is found after the first import");
                        continue;
                    };
                    assert!(record.generation() >= least, "a stale record");
                    // Imports and revocations alternate, and each one adds a generation.
                    let expected =
                        if record.generation() % 2 == 1 { KeyStatus::Active } else { KeyStatus::Revoked };
                    assert_eq!(record.status(), expected, "a partial change");
                }
            });
        }
        for generation in 1..500 {
            if generation % 2 == 1 {
                keys.import(SECRET, Principal::new("ada"));
            } else {
                assert!(keys.revoke("ada"));
            }
            least.store(generation, Ordering::SeqCst);
            thread::yield_now();
        }
        is_over.store(true, Ordering::SeqCst);
    });
}

/// A stream begins to wait for its end at the moment when the end is signalled.
#[test]
fn no_race_misses_the_end_of_a_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for _ in 0..1_000 {
        let signal = EndSignal::new();
        let end = signal.wait();
        let store = thread::spawn(move || signal.end(EndReason::Revoked));
        let reason = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), end).await });
        assert_eq!(reason, Ok(EndReason::Revoked));
        store.join().unwrap();
    }
}

/// The attacker rotates a key without end. Replaced secrets must be freed.
#[test]
fn rotating_a_key_does_not_fill_the_store() {
    let keys = Keys::new();
    let first = keys.issue(Principal::new("ada"));
    for _ in 0..1_000 {
        keys.issue(Principal::new("ada"));
    }
    assert_eq!(format!("{:?}", keys.store), "MemoryKeys { keys: 1 }");
    assert_eq!(verify(&keys, &first).unwrap_err().kind(), DenialKind::KeyUnknown);
}

/// The attacker keeps a stream open, and the secret, after the key is deleted.
#[test]
fn a_deleted_key_is_unknown_and_its_streams_end() {
    let keys = Keys::new();
    let key = keys.issue(Principal::new("ada"));
    let held = verify(&keys, &key).unwrap();
    assert!(keys.store.delete("ada"));
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(verify(&keys, &key).unwrap_err().kind(), DenialKind::KeyUnknown);
    assert!(!keys.store.delete("ada") && !keys.store.revoke("ada"), "the key is gone");
    assert_eq!(format!("{:?}", keys.store), "MemoryKeys { keys: 0 }");
}

/// A key is removed, imported again and revoked, while a cache keeps the record with the highest generation.
#[test]
fn a_key_that_is_imported_again_has_a_higher_generation_than_before() {
    let replace: fn(&MemoryKeys) = |keys| keys.import("another-secret", Principal::new("ada"));
    let delete: fn(&MemoryKeys) = |keys| assert!(keys.delete("ada"));
    for (how, remove) in [("replaced", replace), ("deleted", delete)] {
        let keys = MemoryKeys::new();
        keys.import(SECRET, Principal::new("ada").with_tenant("acme"));
        keys.suspend_tenant("acme");
        keys.resume_tenant("acme");
        let cached = find(&keys, SECRET).unwrap().generation();
        remove(&keys);
        keys.import(SECRET, Principal::new("ada").with_tenant("acme"));
        assert!(keys.revoke("ada"));
        let revoked = find(&keys, SECRET).unwrap().generation();
        assert!(revoked > cached, "{how}: revoked at {revoked}, active in a cache at {cached}");
    }
}
