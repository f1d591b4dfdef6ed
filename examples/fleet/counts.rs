//! Who admits how much of the busy key's quota, and how often Redis was asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tollgate::{
    Answer,
    denial::Unavailable,
    limit::{Decision, LimitRequest, Limiter},
};

use crate::instance::BUSY;

/// What an instance has decided in each window, by the second in which the window ends.
pub(crate) type Windows = BTreeMap<u64, Window>;

/// What an instance has decided in one window.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    /// How many of both were decided without waiting for Redis.
    pub(crate) locally: u64,
}

/// How many windows are kept.
const KEPT: usize = 3;

/// The counts of an instance. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<Windows>>);

impl Counts {
    pub(crate) fn get(&self) -> Windows {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, windows: Windows) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = windows;
    }

    fn add(&self, decision: &Decision, is_local: bool) {
        let Some(state) = decision.windows().first() else { return };
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(state.reset_second).or_default();
        if decision.is_allowed() {
            window.admitted += 1;
        } else {
            window.refused += 1;
        }
        window.locally += u64::from(is_local);
        while windows.len() > KEPT {
            windows.pop_first();
        }
    }
}

/// A limiter whose decisions about the busy key are counted.
pub(crate) struct Counted<L> {
    limiter: L,
    counts: Counts,
}

impl<L> Counted<L> {
    pub(crate) fn new(limiter: L, counts: Counts) -> Self {
        Self { limiter, counts }
    }
}

impl<L: Limiter> Limiter for Counted<L> {
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>> {
        let is_busy = request.charges.iter().any(|charge| charge.group == BUSY);
        let answer = self.limiter.acquire(request);
        if !is_busy {
            return answer;
        }
        let is_local = matches!(answer, Answer::Now(_));
        let counts = self.counts.clone();
        answer.map(move |decision| {
            if let Ok(decision) = &decision {
                counts.add(decision, is_local);
            }
            decision
        })
    }
}
