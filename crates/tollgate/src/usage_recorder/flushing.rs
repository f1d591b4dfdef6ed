//! Flushing in the background, on tokio.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tollgate_core::denial::Unavailable;

use super::UsageRecorder;
use crate::ConfigurationError;

/// How long to wait between two flushes. Short, since it is what a crash costs; long enough that a busy key is one row of a batch in
/// place of a thousand.
const INTERVAL: Duration = Duration::from_secs(10);

/// Flushes a [`UsageRecorder`] in the background for as long as it lives. Whoever drops it without a
/// [shutdown](Self::shutdown) ends that, and leaves what is not flushed to the recorder.
#[derive(Debug)]
#[must_use = "flushing ends when this is dropped"]
pub struct UsageFlushing {
    recorder: UsageRecorder,
    task: JoinHandle<()>,
}

impl UsageRecorder {
    /// Flushes every ten seconds, and when it gets crowded, in a task of this tokio runtime. Feature `tokio`.
    ///
    /// A flush that fails is an event in the log, and tried again after the next ten seconds.
    ///
    /// # Errors
    /// Outside a runtime.
    pub fn spawn(&self) -> Result<UsageFlushing, ConfigurationError> {
        self.spawn_every(INTERVAL)
    }

    /// The same, with another time between two flushes: what a crash may cost. The store has at most one batch in each, with one
    /// row for each key that was used in it.
    ///
    /// # Errors
    /// Outside a runtime.
    pub fn spawn_every(&self, interval: Duration) -> Result<UsageFlushing, ConfigurationError> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(ConfigurationError::new(
                "UsageRecorder was to flush in the background outside a tokio runtime: call spawn in an async fn of one",
            ));
        };
        let task = runtime.spawn(self.clone().keep_flushing(interval));
        Ok(UsageFlushing { recorder: self.clone(), task })
    }

    async fn keep_flushing(self, interval: Duration) {
        loop {
            // Crowded or not is nobody's question here.
            let _ = timeout(interval, self.wait_until_crowded()).await;
            while let Err(error) = self.flush().await {
                tracing::warn!(target: "tollgate", detail = %error, "usage could not be flushed, and is kept");
                // However crowded it is: a store that is down has to be left alone for a while.
                sleep(interval).await;
            }
        }
    }
}

impl UsageFlushing {
    /// Ends flushing in the background, and flushes a last time. When requests have ended: what they note later stays in
    /// memory.
    ///
    /// # Errors
    /// [`Unavailable`] if the store is. What is not flushed is still in the recorder: [flush](UsageRecorder::flush) again, or it
    /// is lost with the process.
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
