//! Work that concurrent requests share.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::Instant};
use tollgate_core::{answer::Pending, denial::Unavailable};

/// Why a [`Waiter`] has no result.
pub(crate) const ENDED: &str = "the task ended without an answer: the application's code has panicked, or the tokio runtime was shut down";

/// Tasks in progress, by what they are about. A task runs to its end, also if no request waits for it any more: so it must have a time
/// limit of its own.
pub(crate) struct SharedTasks<K, T>(Arc<Mutex<Tasks<K, T>>>);

struct Tasks<K, T> {
    by_key: HashMap<K, Task<T>>,
    next: u64,
}

struct Task<T> {
    number: u64,
    began: Instant,
    result: watch::Receiver<Option<T>>,
}

/// A request's share in a task.
pub(crate) struct Waiter<T>(watch::Receiver<Option<T>>);

impl<K, T> Default for SharedTasks<K, T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Tasks { by_key: HashMap::new(), next: 0 })))
    }
}

impl<K, T> SharedTasks<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the task that is in progress, or begins it. A task that is older than `max_age` is not joined.
    pub(crate) fn join(
        &self,
        key: K,
        max_age: Duration,
        begin: impl FnOnce() -> Pending<T>,
    ) -> Result<Waiter<T>, Unavailable> {
        let runtime = Handle::try_current().map_err(|_| {
            Unavailable::new("a JWT verifier was used outside a tokio runtime: call it from a task on tokio")
        })?;
        let mut tasks = lock(&self.0);
        let now = Instant::now();
        if let Some(task) = tasks.by_key.get(&key)
            && now.duration_since(task.began) <= max_age
        {
            return Ok(Waiter(task.result.clone()));
        }
        tasks.next += 1;
        let (sender, receiver) = watch::channel(None);
        let number = tasks.next;
        tasks.by_key.insert(key.clone(), Task { number, began: now, result: receiver.clone() });
        let ticket = Ticket { tasks: Arc::clone(&self.0), key, number };
        // A runtime that is shutting down drops a new task at once, and its ticket takes the lock.
        drop(tasks);
        let task = begin();
        runtime.spawn(async move {
            let result = task.await;
            // It cannot be joined any more before the requests continue.
            drop(ticket);
            sender.send_replace(Some(result));
        });
        Ok(Waiter(receiver))
    }

    /// Whether a task is in progress.
    pub(crate) fn is_in_progress(&self, key: &K) -> bool {
        lock(&self.0).by_key.contains_key(key)
    }
}

impl<T: Clone> Waiter<T> {
    /// Waits for the result. `None` if the task has panicked, or if its runtime was shut down.
    pub(crate) async fn result(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|result| result.clone())
    }
}

/// Held by a task. Dropped with it, it removes the task from the list.
struct Ticket<K: Eq + Hash, T> {
    tasks: Arc<Mutex<Tasks<K, T>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, T> Drop for Ticket<K, T> {
    fn drop(&mut self) {
        let mut tasks = lock(&self.tasks);
        if tasks.by_key.get(&self.key).is_some_and(|task| task.number == self.number) {
            tasks.by_key.remove(&self.key);
        }
    }
}

fn lock<K, T>(tasks: &Mutex<Tasks<K, T>>) -> MutexGuard<'_, Tasks<K, T>> {
    // Every change is one call, so a panic on another thread leaves the value valid.
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}
