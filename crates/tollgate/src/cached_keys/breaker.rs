//! Spares a store that does not answer.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use smallvec::SmallVec;

/// So many keys in a row could not be looked up. Different ones, since one whose record is broken says nothing of the others.
const FAILURES: usize = 5;

/// For so long nobody asks then, before one may.
const PAUSE: Duration = Duration::from_secs(1);

/// After five different keys in a row could not be looked up, only one request a second asks, until one is answered: the others
/// do not wait for what will most likely fail, and a store that recovers is not run over.
#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failed: SmallVec<[u64; FAILURES]>,
    asked_at: Option<SystemTime>,
}

impl Breaker {
    /// Whether a request at `now` may ask.
    pub(super) fn admits(&self, now: SystemTime) -> bool {
        let mut state = self.lock();
        let Some(asked_at) = state.asked_at else { return true };
        // A clock that was set back ends the pause, or it could last for hours.
        let pauses = now.duration_since(asked_at).is_ok_and(|since| since < PAUSE);
        if !pauses {
            state.asked_at = Some(now);
        }
        !pauses
    }

    /// What became of a request at `now` for a key with this hash.
    pub(super) fn note(&self, key: u64, is_answered: bool, now: SystemTime) {
        let mut state = self.lock();
        if is_answered {
            *state = State::default();
        } else if state.asked_at.is_none() && !state.failed.contains(&key) {
            state.failed.push(key);
            if state.failed.len() >= FAILURES {
                state.asked_at = Some(now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    fn broken_at(millis: u64) -> Breaker {
        let breaker = Breaker::default();
        (0..5).for_each(|key| breaker.note(key, false, at(millis)));
        breaker
    }

    #[test]
    fn breaks_after_five_keys_in_a_row() {
        let breaker = Breaker::default();
        (0..4).for_each(|key| breaker.note(key, false, at(0)));
        assert!(breaker.admits(at(0)));
        breaker.note(9, true, at(0));
        (0..4).for_each(|key| breaker.note(key, false, at(0)));
        assert!(breaker.admits(at(0)), "one was answered in between");
        breaker.note(4, false, at(0));
        assert!(!breaker.admits(at(0)));
    }

    #[test]
    fn one_broken_key_shuts_nobody_out() {
        let breaker = Breaker::default();
        (0..100).for_each(|_| breaker.note(1, false, at(0)));
        assert!(breaker.admits(at(0)));
    }

    #[test]
    fn one_a_second_asks_until_one_is_answered() {
        let breaker = broken_at(0);
        assert!(!breaker.admits(at(999)));
        assert!(breaker.admits(at(1_000)), "one asks");
        assert!(!breaker.admits(at(1_000)), "and the others wait for what it learns");
        breaker.note(1, false, at(1_000));
        assert!(!breaker.admits(at(1_999)));
        assert!(breaker.admits(at(2_000)));
        breaker.note(1, true, at(2_000));
        assert!(breaker.admits(at(2_000)) && breaker.admits(at(2_000)));
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_pause() {
        let breaker = broken_at(500_000);
        assert!(breaker.admits(at(0)));
        assert!(!breaker.admits(at(0)));
    }
}
