//! Counts what makes answers outdated: the events of a store, or invalidations by hand.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_core::store::StoreEvent;

/// The number of events so far, and whether the store is connected. At first it is not.
#[derive(Default)]
pub(crate) struct EventCount(AtomicU64);

/// A moment: equal to another if there was no event in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AsOf(u64);

/// The lowest bit is set while the store is connected. The others count events.
const CONNECTED: u64 = 1;
const ONE_EVENT: u64 = 2;

impl EventCount {
    pub(crate) fn record(&self, event: &StoreEvent) {
        let after = |state: u64| {
            let state = state.wrapping_add(ONE_EVENT);
            match event {
                StoreEvent::Disconnected => state & !CONNECTED,
                StoreEvent::Connected => state | CONNECTED,
                _ => state,
            }
        };
        // Cannot fail, since the closure always returns a state.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| Some(after(state)));
    }

    pub(crate) fn as_of_now(&self) -> AsOf {
        AsOf(self.0.load(Ordering::Acquire))
    }
}

impl AsOf {
    pub(crate) fn is_connected(self) -> bool {
        self.0 & CONNECTED != 0
    }
}
