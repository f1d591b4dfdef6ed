//! Runs slow hashes: a bounded number at a time, away from the threads that serve requests.

use std::sync::Arc;

use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
};
use tollgate::denial::Unavailable;

/// At most this many requests wait for a hash.
const MAX_WAITING: usize = 128;

/// Runs hashes on tokio's threads for blocking work. Clones share their bounds.
#[derive(Clone)]
pub(crate) struct Hashing {
    // Held by the hash, which no caller can stop.
    running: Arc<Semaphore>,
    // Held by the request, which leaves the queue when it is dropped.
    waiting: Arc<Semaphore>,
}

impl Hashing {
    /// At most `limit` hashes at a time.
    pub(crate) fn new(limit: usize) -> Self {
        Self { running: Arc::new(Semaphore::new(limit)), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// On half of the machine's cores, so that hashes leave time for other requests.
    pub(crate) fn on_half_of_the_cores() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores / 2).max(1))
    }

    /// Runs `hash` when it is its turn. A caller that hangs up before that leaves the queue. A hash that has begun counts until its
    /// end, even if its caller has hung up: otherwise callers that hang up could run any number of hashes.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        hash: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let failed = || Unavailable::new("a password hash did not complete");
        let Ok(waiting) = self.waiting.try_acquire() else {
            return Err(Unavailable::new("too many requests wait for a password hash"));
        };
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| failed())?;
        drop(waiting);
        let (answer, answered) = oneshot::channel();
        spawn_blocking(move || {
            let _until_its_end = running;
            // The caller may have hung up while this waited for a thread.
            if !answer.is_closed() {
                tracing::debug!("password hash computed");
                let _ = answer.send(hash());
            }
        });
        answered.await.map_err(|_| failed())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        task::{Context, Waker},
    };

    use super::*;

    /// Polls a future once.
    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A hash that signals its start and ends on request.
    struct Held {
        begun: mpsc::Receiver<()>,
        finish: mpsc::Sender<()>,
    }

    fn held() -> (Held, impl FnOnce() + Send + 'static) {
        let (started, begun) = mpsc::channel();
        let (finish, finished) = mpsc::channel();
        let hash = move || {
            started.send(()).unwrap();
            let _ = finished.recv();
        };
        (Held { begun, finish }, hash)
    }

    #[tokio::test]
    async fn a_hash_counts_until_its_end_even_if_its_caller_hangs_up() {
        let hashing = Hashing::new(1);
        let (first, hash) = held();
        {
            let mut caller = pin!(hashing.run(hash));
            assert!(poll(caller.as_mut()).is_pending());
            first.begun.recv().unwrap();
        } // hangs up
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let mut next = pin!(hashing.run(move || counted.fetch_add(1, Ordering::Relaxed)));
        assert!(poll(next.as_mut()).is_pending());
        assert_eq!(hashing.running.available_permits(), 0, "the first hash still runs");
        assert_eq!(count.load(Ordering::Relaxed), 0, "the second one has not begun");
        first.finish.send(()).unwrap();
        next.await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn callers_that_hang_up_leave_the_queue_and_compute_nothing() {
        let hashing = Hashing::new(1);
        let (first, hash) = held();
        let mut holder = pin!(hashing.run(hash));
        assert!(poll(holder.as_mut()).is_pending());
        first.begun.recv().unwrap();
        let computed = Arc::new(AtomicUsize::new(0));
        {
            let queue: Vec<_> = (0..MAX_WAITING)
                .map(|_| {
                    let computed = Arc::clone(&computed);
                    let mut caller = Box::pin(hashing.run(move || computed.fetch_add(1, Ordering::Relaxed)));
                    assert!(poll(caller.as_mut()).is_pending());
                    caller
                })
                .collect();
            assert!(hashing.run(|| ()).await.is_err(), "the queue is full");
            drop(queue);
        }
        first.finish.send(()).unwrap();
        holder.await.unwrap();
        hashing.run(|| ()).await.unwrap();
        assert_eq!(computed.load(Ordering::Relaxed), 0);
    }
}
