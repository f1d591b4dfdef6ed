//! One instant for a request: layers share it while one calls the next directly.

use std::{cell::Cell, time::SystemTime};

thread_local! {
    // The instant of the request whose inner service is being called on this thread at this moment.
    static CALLING: Cell<Option<SystemTime>> = const { Cell::new(None) };
}

/// Marks that an inner service is being called. Layers that are called meanwhile share the caller's instant.
///
/// A call returns at once, as [`Service`](tower_service::Service) requires. Anything that waits, such as a queue or a buffer,
/// calls on from elsewhere after it has returned, and then the layers behind it read the clock anew.
pub(super) struct Calling {
    before: Option<SystemTime>,
}

impl Calling {
    pub(super) fn at(now: SystemTime) -> Self {
        Self { before: CALLING.replace(Some(now)) }
    }
}

impl Drop for Calling {
    /// Also when the call panics: the thread serves other requests afterwards.
    fn drop(&mut self) {
        CALLING.set(self.before);
    }
}

/// Whether the layer that took this instant calls the present one at this moment, so that nothing has waited in between.
pub(super) fn is_current(now: Option<SystemTime>) -> bool {
    now.is_some() && now == CALLING.get()
}
