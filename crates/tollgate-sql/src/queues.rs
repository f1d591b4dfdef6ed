//! The order in which this process changes accounts of credits.
//!
//! PostgreSQL would make concurrent changes of an account wait as well, but each of them would occupy a connection while it waits. So
//! a tenant with many requests would delay those of all others, and key lookups too.

use std::hash::{BuildHasher as _, RandomState};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fault::Fault;

/// More than there are connections. Two accounts with the same queue only wait for each other.
const QUEUES: usize = 256;

/// Queues of one place each. An account always has the same one.
pub(crate) struct Queues {
    queues: [Semaphore; QUEUES],
    hasher: RandomState,
}

impl Queues {
    /// Waits until no other task of this process changes the account.
    #[expect(clippy::indexing_slicing, reason = "the index is below QUEUES")]
    pub(crate) async fn turn(&self, account: &str) -> Result<SemaphorePermit<'_>, Fault> {
        let hash = self.hasher.hash_one(account) % QUEUES as u64;
        // Cannot fail: it is below QUEUES.
        let queue = &self.queues[usize::try_from(hash).unwrap_or(0)];
        queue.acquire().await.map_err(|_| Fault::Stopped)
    }
}

impl Default for Queues {
    fn default() -> Self {
        Self { queues: std::array::from_fn(|_| Semaphore::new(1)), hasher: RandomState::new() }
    }
}
