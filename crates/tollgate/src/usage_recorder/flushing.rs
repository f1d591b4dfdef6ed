//! Flushing in a tokio task.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tollgate_core::denial::Unavailable;

use super::UsageRecorder;
use crate::ConfigurationError;

/// The time between two flushes. Short, because a crash loses this much usage; long enough that a busy key is one row per batch
/// instead of a thousand.
const INTERVAL: Duration = Duration::from_secs(10);

/// Flushes a [`UsageRecorder`] in the background until it is dropped. If it is dropped without a
/// [shutdown](Self::shutdown), usage that is not flushed stays in the recorder.
#[derive(Debug)]
#[must_use = "flushing stops when this is dropped"]
pub struct UsageFlushing {
    recorder: UsageRecorder,
    task: JoinHandle<()>,
}

impl UsageRecorder {
    /// Flushes every 10 seconds, and when the recorder is half full, in a task of this tokio runtime.
    ///
    /// A failed flush is logged and retried after 10 seconds.
    ///
    /// # Errors
    /// [`ConfigurationError`] outside a tokio runtime.
    pub fn spawn(&self) -> Result<UsageFlushing, ConfigurationError> {
        self.spawn_every(INTERVAL)
    }

    /// Like [`spawn`](Self::spawn), with another interval between two flushes. A crash loses at most the usage of one interval. The
    /// store gets one batch per interval, or more if the recorder is half full earlier, with one row for each key that was used.
    ///
    /// # Errors
    /// [`ConfigurationError`] outside a tokio runtime.
    pub fn spawn_every(&self, interval: Duration) -> Result<UsageFlushing, ConfigurationError> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(ConfigurationError::new(
                "UsageRecorder::spawn was called outside a tokio runtime: call it in an async fn that runs on tokio",
            ));
        };
        let task = runtime.spawn(self.clone().keep_flushing(interval));
        Ok(UsageFlushing { recorder: self.clone(), task })
    }

    async fn keep_flushing(self, interval: Duration) {
        loop {
            // A timeout is not an error: the recorder is flushed in both cases.
            let _ = timeout(interval, self.wait_until_half_full()).await;
            while let Err(error) = self.flush().await {
                tracing::warn!(target: "tollgate", detail = format!("{error:#}"), "usage flush failed, will be retried");
                // Even if the recorder is half full: an unavailable store must not be retried at once.
                sleep(interval).await;
            }
        }
    }
}

impl UsageFlushing {
    /// Stops the background task, and flushes a last time. Call it when all requests have ended: later usage stays in memory.
    ///
    /// # Errors
    /// [`Unavailable`] if the store is unavailable. Usage that is not flushed is still in the recorder. Call
    /// [`flush`](UsageRecorder::flush) again, or it is lost when the process ends.
    pub async fn shutdown(self) -> Result<(), Unavailable> {
        self.task.abort();
        self.recorder.flush().await
    }
}

impl Drop for UsageFlushing {
    fn drop(&mut self) {
        self.task.abort();
    }
}
