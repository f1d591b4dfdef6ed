//! The circuit breaker: protects a store or a verifier that does not answer.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use smallvec::SmallVec;

/// The circuit breaker opens after this many failed lookups in a row, of different keys: one key with a broken record must not
/// shut out the others.
const FAILURES: usize = 5;

/// While the circuit breaker is open, one request may ask the backend in each such interval.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens after the lookups of five different keys in a row have failed. Then one request a second asks the backend, until a lookup
/// succeeds: the others do not wait for a likely failure, and a backend that recovers is not overloaded.
#[derive(Default)]
pub(crate) struct CircuitBreaker(Mutex<State>);

#[derive(Default)]
struct State {
    failed: SmallVec<[u64; FAILURES]>,
    // When the backend was last asked, while the circuit breaker is open.
    asked_at: Option<SystemTime>,
}

/// How a request may ask the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// The circuit breaker is closed.
    Freely,
    /// The circuit breaker is open, and waits for this answer. So the lookup goes on even if the request is dropped: otherwise
    /// callers that hang up could keep the circuit breaker open.
    AsProbe,
}

impl CircuitBreaker {
    /// Whether, and how, a request at `now` may ask the backend.
    pub(crate) fn admit(&self, now: SystemTime) -> Option<Admitted> {
        let mut state = self.lock();
        let Some(asked_at) = state.asked_at else { return Some(Admitted::Freely) };
        // A clock that is set back ends the pause, which could last for hours otherwise.
        if now.duration_since(asked_at).is_ok_and(|since| since < PAUSE) {
            return None;
        }
        state.asked_at = Some(now);
        Some(Admitted::AsProbe)
    }

    /// Records the result of a lookup, at `now`, of the key with this hash.
    pub(crate) fn record(&self, key: u64, is_answered: bool, now: SystemTime) {
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

    fn opened_at(millis: u64) -> CircuitBreaker {
        let breaker = CircuitBreaker::default();
        (0..5).for_each(|key| breaker.record(key, false, at(millis)));
        breaker
    }

    #[test]
    fn opens_after_five_failed_keys_in_a_row() {
        let breaker = CircuitBreaker::default();
        (0..4).for_each(|key| breaker.record(key, false, at(0)));
        assert_eq!(breaker.admit(at(0)), Some(Admitted::Freely));
        breaker.record(9, true, at(0));
        (0..4).for_each(|key| breaker.record(key, false, at(0)));
        assert_eq!(breaker.admit(at(0)), Some(Admitted::Freely), "a lookup succeeded in between");
        breaker.record(4, false, at(0));
        assert_eq!(breaker.admit(at(0)), None);
    }

    #[test]
    fn one_broken_key_does_not_open_it() {
        let breaker = CircuitBreaker::default();
        (0..100).for_each(|_| breaker.record(1, false, at(0)));
        assert_eq!(breaker.admit(at(0)), Some(Admitted::Freely));
    }

    #[test]
    fn one_request_a_second_asks_until_a_lookup_succeeds() {
        let breaker = opened_at(0);
        assert_eq!(breaker.admit(at(999)), None);
        assert_eq!(breaker.admit(at(1_000)), Some(Admitted::AsProbe), "one request asks");
        assert_eq!(breaker.admit(at(1_000)), None, "and the others do not");
        breaker.record(1, false, at(1_000));
        assert_eq!(breaker.admit(at(1_999)), None);
        assert_eq!(breaker.admit(at(2_000)), Some(Admitted::AsProbe));
        breaker.record(1, true, at(2_000));
        assert_eq!([(); 2].map(|()| breaker.admit(at(2_000))), [Some(Admitted::Freely); 2]);
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_pause() {
        let breaker = opened_at(500_000);
        assert_eq!(breaker.admit(at(0)), Some(Admitted::AsProbe));
        assert_eq!(breaker.admit(at(0)), None);
    }
}
