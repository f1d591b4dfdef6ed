//! Asks the backend of a cache.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle, time::timeout};
use tollgate_core::{answer::Pending, denial::Unavailable, key::Digest};

use super::{
    AsOf, EventCount, circuit_breaker::CircuitBreaker, single_flight::SingleFlight, single_flight::Waiter,
};

/// Asks the backend of a cache. Concurrent requests share a lookup, each lookup has a deadline, and a circuit breaker spares a backend
/// that does not answer.
pub(crate) struct SharedLookups<T, E> {
    /// The backend, as errors name it.
    backend: &'static str,
    deadline: Duration,
    is_answered: fn(&Result<T, E>) -> bool,
    single_flight: Arc<SingleFlight<T, E>>,
    breaker: Arc<CircuitBreaker>,
}

impl<T, E> SharedLookups<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + From<Unavailable> + Send + Sync + 'static,
{
    /// `is_answered`: whether a result is the backend's answer, and not a failure.
    pub(crate) fn new(
        backend: &'static str,
        deadline: Duration,
        is_answered: fn(&Result<T, E>) -> bool,
    ) -> Self {
        Self { backend, deadline, is_answered, single_flight: Arc::default(), breaker: Arc::default() }
    }

    /// Joins the lookup of these digests, or begins it, if the backend may be asked. `lookup` asks the backend when it is first polled;
    /// `insert` caches its result, which is as of a moment in `events`.
    pub(crate) fn join(
        &self,
        (hash, digests): (u64, &[Digest]),
        now: SystemTime,
        events: &EventCount,
        lookup: Pending<Result<T, E>>,
        insert: impl FnOnce(&Result<T, E>, AsOf) + Send + 'static,
    ) -> Result<Waiter<T, E>, Unavailable> {
        let Self { backend, deadline, is_answered, .. } = *self;
        let Ok(runtime) = Handle::try_current() else {
            return Err(Unavailable::new(format!(
                "the cache of the {backend} was used outside a tokio runtime: call it from a task on tokio"
            )));
        };
        let Some(admitted) = self.breaker.admit(now) else {
            return Err(Unavailable::new(format!("{backend} circuit breaker is open")));
        };
        let breaker = Arc::clone(&self.breaker);
        Ok(self.single_flight.join(digests, events, admitted, now, &runtime, |as_of| {
            Box::pin(async move {
                let found = timeout(deadline, lookup).await.unwrap_or_else(|_| {
                    Err(Unavailable::new(format!("no answer from the {backend} within {deadline:?}")).into())
                });
                breaker.record(hash, is_answered(&found), now);
                insert(&found, as_of);
                found
            })
        }))
    }

    /// The number of lookups in progress.
    pub(crate) fn len(&self) -> usize {
        self.single_flight.len()
    }
}
