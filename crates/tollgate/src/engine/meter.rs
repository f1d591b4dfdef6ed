//! Counts a body's bytes, and charges for them when it has ended.

use std::{
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tollgate_core::{Answer, Pending};

use super::settlement::{self, Settlement};

/// Counts a body's bytes. What they cost is charged when the body ends, or when it is dropped half-way.
pub(super) struct Meter {
    bytes: u64,
    // None are left once they are charged.
    settlements: Vec<Settlement>,
    has_ended: bool,
    is_settled: bool,
    // What limiters take their time for. Never locked: only that makes it something that bodies may hold, which are shared.
    pending: Mutex<Vec<Pending<()>>>,
}

impl Meter {
    pub(super) fn new(settlements: Vec<Settlement>) -> Self {
        Self { bytes: 0, settlements, has_ended: false, is_settled: false, pending: Mutex::default() }
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether the body has, and only limiters are waited for.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Charges for a body that has ended, and waits for those who take their time.
    pub(super) fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.has_ended = true;
        self.settle();
        let pending = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner);
        while let Some(answer) = pending.last_mut() {
            ready!(answer.as_mut().poll(context));
            pending.pop();
        }
        self.is_settled = true;
        Poll::Ready(())
    }

    /// Asks for what the bytes cost, once.
    pub(super) fn settle(&mut self) {
        let pending = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner);
        for settlement in self.settlements.drain(..) {
            match settlement.settle_body(self.bytes) {
                None | Some(Answer::Now(Ok(_))) => {}
                Some(Answer::Now(Err(error))) => settlement::report(&error),
                Some(Answer::Later(answer)) => pending.push(Box::pin(async {
                    if let Err(error) = answer.await {
                        settlement::report(&error);
                    }
                })),
            }
        }
    }
}

impl Drop for Meter {
    /// A body that nobody reads to its end is charged for what was read. Nobody is left to wait for a limiter that answers later;
    /// it has been asked.
    fn drop(&mut self) {
        self.settle();
    }
}
