//! One instant for a request: handed from layer to layer for as long as nothing can come between.

use std::{cell::Cell, time::SystemTime};

thread_local! {
    // The instant of the request whose inner service is being called on this thread right now.
    static CALLING: Cell<Option<SystemTime>> = const { Cell::new(None) };
}

/// While it lives, an inner service is being called: layers that are called meanwhile share the instant of the one that calls.
///
/// A call returns at once, as [`Service`](tower_service::Service) asks of it: whatever waits (a queue, a buffer that collects the
/// body) does so after it has returned, and calls on from elsewhere, where the instant counts no more. Whoever blocks within a
/// call blocks a thread of the runtime, and lets what is inside judge by an instant that is as old as the block is long.
pub(super) struct Calling {
    before: Option<SystemTime>,
}

impl Calling {
    pub(super) fn at(now: Option<SystemTime>) -> Self {
        Self { before: CALLING.replace(now) }
    }
}

impl Drop for Calling {
    /// Also when the call panics: the thread may serve others.
    fn drop(&mut self) {
        CALLING.set(self.before);
    }
}

/// Whether the layer whose instant this is calls the present one, and nothing has waited in between.
pub(super) fn is_present(now: Option<SystemTime>) -> bool {
    now.is_some() && now == CALLING.get()
}
