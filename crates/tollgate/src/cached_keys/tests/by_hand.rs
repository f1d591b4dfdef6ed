//! A store that answers when it is told to.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, UNIX_EPOCH},
};

use tokio::sync::oneshot;
use tollgate_core::{store::EndReason, verify::Principal};

use super::*;

/// Answers when it is told to, and tells what it is told to.
#[derive(Clone, Default)]
pub(super) struct ByHand(Arc<State>);

#[derive(Default)]
struct State {
    listeners: Listeners,
    questions: Mutex<Vec<Question>>,
    asked: Mutex<usize>,
}

/// A question that waits for its answer.
pub(super) struct Question {
    answer: oneshot::Sender<Found>,
}

impl Question {
    pub(super) fn answer(self, found: Found) {
        let _ = self.answer.send(found);
    }

    /// Whether nobody waits any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }
}

impl ByHand {
    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        *self.0.asked.lock().unwrap()
    }

    /// The oldest question that somebody waits for.
    pub(super) fn oldest(&self) -> Question {
        let mut questions = self.0.questions.lock().unwrap();
        questions.retain(|question| !question.is_given_up());
        questions.remove(0)
    }

    pub(super) fn notify(&self, change: &StoreEvent) {
        self.0.listeners.notify(change);
    }
}

impl KeyStore for ByHand {
    fn find(&self, _lookup: &KeyLookup<'_>) -> Answer<Found> {
        let (answer, waits) = oneshot::channel();
        self.0.questions.lock().unwrap().push(Question { answer });
        *self.0.asked.lock().unwrap() += 1;
        Answer::later(async { waits.await.expect("a question is answered or given up") })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        self.0.listeners.add(listener);
    }
}

/// A request that waits, or does not.
pub(super) enum Request {
    Answered(Found),
    Waits(tollgate_core::answer::Pending<Found>),
}

impl Request {
    /// Whether it was answered at once, or is now.
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

/// A cache of which the store has said that news flow.
pub(super) fn cached() -> (ByHand, CachedKeys) {
    cached_as(|keys| keys)
}

pub(super) fn cached_as(set: impl FnOnce(CachedKeys) -> CachedKeys) -> (ByHand, CachedKeys) {
    let store = ByHand::default();
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
        let mut request = match self.find(&KeyLookup::new(digests, at(millis))) {
            Answer::Now(found) => Request::Answered(found),
            Answer::Later(pending) => Request::Waits(pending),
        };
        request.poll();
        request
    }

    /// A request that must ask the store, which answers `found`.
    pub(super) fn ask_of(&self, store: &ByHand, key: u64, millis: u64, found: Found) -> Request {
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
