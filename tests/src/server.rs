//! What the servers that tests start have in common: a process that ends with its test, and a folder and a port of its own.

pub(crate) mod folder;
pub(crate) mod process;

use std::{
    thread,
    time::{Duration, Instant},
};

/// The limit for operations that take milliseconds on a machine without load.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

const PAUSE: Duration = Duration::from_millis(5);

/// Runs blocking work on another thread, so that it does not block the runtime of a test, and does not advance a paused tokio
/// clock.
pub(crate) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let result = tokio::task::spawn_blocking(work).await;
    // It is never cancelled, so an error is a panic.
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until there is something.
#[expect(clippy::disallowed_methods, reason = "a server uses the real time")]
pub(crate) fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} until {what}");
        thread::sleep(PAUSE);
    }
}
