//! One instant for a request: handed from layer to layer for as long as nothing can come between.

use std::{cell::Cell, time::SystemTime};

thread_local! {
    // The instant of the request whose inner service is being called on this thread right now.
    static CALLING: Cell<Option<SystemTime>> = const { Cell::new(None) };
}

/// Calls an inner service. Layers that are called within this call share the instant of the one that calls.
///
/// A call returns at once: whatever waits (a queue, a buffer that collects the body) does so after it has returned, and calls
/// on from elsewhere, where the instant counts no more.
pub(super) fn calling<T>(now: SystemTime, call: impl FnOnce() -> T) -> T {
    // Also when the call panics: the thread may serve others.
    struct Before(Option<SystemTime>);
    impl Drop for Before {
        fn drop(&mut self) {
            CALLING.set(self.0);
        }
    }
    let _before = Before(CALLING.replace(Some(now)));
    call()
}

/// Whether the layer whose instant this is calls the present one, and nothing has waited in between.
pub(super) fn is_present(now: Option<SystemTime>) -> bool {
    now.is_some() && now == CALLING.get()
}
