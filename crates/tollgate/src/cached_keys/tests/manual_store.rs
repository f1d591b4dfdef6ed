//! A store whose answers and events the test sends.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, UNIX_EPOCH},
};

use tokio::{runtime::Runtime, sync::oneshot};
use tollgate_core::{store::EndReason, verify::Principal};

use super::*;

/// Answers a lookup when the test does, and has no events but the test's.
#[derive(Clone, Default)]
pub(super) struct ManualStore(Arc<State>);

#[derive(Default)]
struct State {
    listeners: Listeners,
    // Without events, if it is set.
    trusted_for: Option<Duration>,
    lookups: Mutex<Vec<PendingLookup>>,
    asked: Mutex<usize>,
}

/// A lookup that waits for its answer.
pub(super) struct PendingLookup {
    answer: oneshot::Sender<Found>,
}

impl PendingLookup {
    pub(super) fn answer(self, found: Found) {
        let _ = self.answer.send(found);
        run_lookups();
    }

    /// Whether the lookup was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        run_lookups();
        self.answer.is_closed()
    }
}

impl ManualStore {
    /// A store without events.
    pub(super) fn trusted_for(time: Duration) -> Self {
        Self(Arc::new(State { trusted_for: Some(time), ..State::default() }))
    }

    /// The number of lookups so far.
    pub(super) fn asked(&self) -> usize {
        *self.0.asked.lock().unwrap()
    }

    /// The oldest lookup that was not cancelled.
    pub(super) fn oldest(&self) -> PendingLookup {
        run_lookups();
        let mut lookups = self.0.lookups.lock().unwrap();
        lookups.retain(|lookup| !lookup.answer.is_closed());
        lookups.remove(0)
    }

    pub(super) fn notify(&self, event: &StoreEvent) {
        self.0.listeners.notify(event);
    }
}

impl KeyStore for ManualStore {
    fn find(&self, _lookup: &KeyLookup<'_>) -> Answer<Found> {
        let (answer, answered) = oneshot::channel();
        self.0.lookups.lock().unwrap().push(PendingLookup { answer });
        *self.0.asked.lock().unwrap() += 1;
        Answer::later(async { answered.await.expect("a lookup is answered or cancelled") })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        match self.0.trusted_for {
            Some(time) => Subscription::trust_for(time),
            None => self.0.listeners.subscribe(listener),
        }
    }
}

thread_local! {
    /// The runtime of the lookups that this thread's requests begin.
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
}

/// Polls all lookups that can go on.
fn run_lookups() {
    RUNTIME.with(|runtime| runtime.block_on(tokio::task::yield_now()));
}

/// Moves the runtime's clock past the deadlines of all lookups.
pub(super) fn let_deadlines_pass() {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(6)).await;
            tokio::time::resume();
        });
    });
    run_lookups();
}

/// A request, answered or waiting.
pub(super) enum Request {
    Answered(Found),
    Waits(tollgate_core::answer::Pending<Found>),
}

impl Request {
    /// Polls the request; its answer, if there is one.
    pub(super) fn poll(&mut self) -> Option<&Found> {
        if let Self::Waits(pending) = self
            && let Poll::Ready(found) = Pin::as_mut(pending).poll(&mut Context::from_waker(Waker::noop()))
        {
            *self = Self::Answered(found);
        }
        match self {
            Self::Answered(found) => Some(found),
            Self::Waits(_) => None,
        }
    }

    pub(super) fn generation(&mut self) -> Option<u64> {
        self.poll()?.as_ref().ok()?.as_ref().map(KeyRecord::generation)
    }

    pub(super) fn is_unavailable(&mut self) -> bool {
        matches!(self.poll(), Some(Err(_)))
    }
}

/// A cache in front of a connected store.
pub(super) fn cached() -> (ManualStore, CachedKeys) {
    cached_as(|keys| keys)
}

pub(super) fn cached_as(set: impl FnOnce(CachedKeys) -> CachedKeys) -> (ManualStore, CachedKeys) {
    let store = ManualStore::default();
    let keys = set(CachedKeys::new(store.clone()));
    store.notify(&StoreEvent::Connected);
    (store, keys)
}

impl CachedKeys {
    /// Begins a request for key number `key`, so many milliseconds after the start.
    pub(super) fn request(&self, key: u64, millis: u64) -> Request {
        self.request_by(&[digest(key)], millis)
    }

    pub(super) fn request_by(&self, digests: &[Digest], millis: u64) -> Request {
        let found = RUNTIME.with(|runtime| {
            let _context = runtime.enter();
            self.find(&KeyLookup::new(digests, at(millis)))
        });
        match found {
            Answer::Now(found) => Request::Answered(found),
            Answer::Later(pending) => {
                run_lookups();
                Request::Waits(pending)
            }
        }
    }

    /// A request that must ask the store, which answers `found`.
    pub(super) fn ask_of(&self, store: &ManualStore, key: u64, millis: u64, found: Found) -> Request {
        let asked = store.asked();
        let mut request = self.request(key, millis);
        assert_eq!(store.asked(), asked + 1, "key {key} is not known at {millis}");
        store.oldest().answer(found);
        assert!(request.poll().is_some());
        request
    }
}

pub(super) fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_millis(millis)
}

pub(super) fn digest(key: u64) -> Digest {
    Digest::of(key.to_string())
}

pub(super) fn principal(key: u64) -> Principal {
    Principal::new(format!("key_{key}")).with_tenant("acme")
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a store answers")]
pub(super) fn found(principal: Principal, status: KeyStatus, generation: u64) -> Found {
    Ok(Some(KeyRecord::new(Arc::new(principal), status, generation)))
}

pub(super) fn active(key: u64, generation: u64) -> Found {
    found(principal(key), KeyStatus::Active, generation)
}

pub(super) fn revoked(key: u64, generation: u64) -> Found {
    let principal = principal(key);
    principal.end_signal().end(EndReason::Revoked);
    found(principal, KeyStatus::Revoked, generation)
}

pub(super) fn down() -> Found {
    Err(Unavailable::new("down"))
}

pub(super) fn change_of(key: u64, generation: u64) -> StoreEvent {
    StoreEvent::Key { id: format!("key_{key}").into(), generation, end: None }
}
