//! How much a store has told.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_core::store::StoreEvent;

/// How many changes were told, and whether more will be. At first none will.
#[derive(Default)]
pub(super) struct Events(AtomicU64);

/// A state of the news: equal to another only if nothing was told in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AsOf(u64);

/// The lowest bit tells whether news flow, the others count them.
const FLOWS: u64 = 1;
const ONE_MORE: u64 = 2;

impl Events {
    pub(super) fn note(&self, change: &StoreEvent) {
        let noted = |state: u64| {
            let state = state.wrapping_add(ONE_MORE);
            match change {
                StoreEvent::Disconnected => state & !FLOWS,
                StoreEvent::Connected => state | FLOWS,
                _ => state,
            }
        };
        // Never fails, since there is always a next state.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| Some(noted(state)));
    }

    pub(super) fn as_of_now(&self) -> AsOf {
        AsOf(self.0.load(Ordering::Acquire))
    }
}

impl AsOf {
    pub(super) fn flows(self) -> bool {
        self.0 & FLOWS != 0
    }
}
