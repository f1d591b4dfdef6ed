//! The circuit breaker: spares a source of profiles that does not answer.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::digest::TokenDigest;

/// It opens after this many failed lookups in a row, of different tokens: one user whose profile is broken must not shut out the others.
const FAILURES: usize = 5;

/// While it is open, one request may ask in each such interval.
const PAUSE: Duration = Duration::from_secs(1);

/// Opens after the lookups of five different tokens in a row have failed. Then one request a second asks, until a lookup succeeds.
#[derive(Default)]
pub(crate) struct CircuitBreaker(Mutex<State>);

#[derive(Default)]
struct State {
    failed: Vec<TokenDigest>,
    // When it has opened, or when a request last asked since.
    asked_at: Option<Instant>,
}

impl CircuitBreaker {
    /// Whether a request may ask now.
    pub(crate) fn admits(&self) -> bool {
        let mut state = self.lock();
        let Some(asked_at) = state.asked_at else { return true };
        let now = Instant::now();
        let admits = now.duration_since(asked_at) >= PAUSE;
        if admits {
            state.asked_at = Some(now);
        }
        admits
    }

    /// Records the end of a lookup.
    pub(crate) fn record(&self, token: TokenDigest, is_answered: bool) {
        let mut state = self.lock();
        if is_answered {
            *state = State::default();
        } else if state.asked_at.is_none() && !state.failed.contains(&token) {
            state.failed.push(token);
            if state.failed.len() == FAILURES {
                state.asked_at = Some(Instant::now());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
