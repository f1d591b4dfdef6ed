//! Usage: how often each key is used, and where that is stored.

use std::{fmt, sync::Arc, time::SystemTime};

use crate::{answer::Answer, denial::Unavailable, verify::Principal};

/// Records that a principal has used the API. [`usage_fn`] makes one from a closure.
pub trait UsageSink: Send + Sync + 'static {
    /// Called once for each request that is let through. It must be quick and must not block.
    fn record(&self, usage: &Usage<'_>);
}

impl<S: UsageSink + ?Sized> UsageSink for Arc<S> {
    fn record(&self, usage: &Usage<'_>) {
        (**self).record(usage);
    }
}

/// A usage sink made from a closure.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use tollgate_core::usage::{Usage, usage_fn};
///
/// static REQUESTS: AtomicU64 = AtomicU64::new(0);
///
/// let sink = usage_fn(|_usage: &Usage<'_>| {
///     REQUESTS.fetch_add(1, Ordering::Relaxed);
/// });
/// # fn is_sink(_: impl tollgate_core::usage::UsageSink) {}
/// # is_sink(sink);
/// ```
pub fn usage_fn<F>(record: F) -> UsageFn<F>
where
    F: Fn(&Usage<'_>) + Send + Sync + 'static,
{
    UsageFn(record)
}

/// What [`usage_fn`] returns.
#[derive(Clone, Copy)]
pub struct UsageFn<F>(F);

impl<F: Fn(&Usage<'_>) + Send + Sync + 'static> UsageSink for UsageFn<F> {
    fn record(&self, usage: &Usage<'_>) {
        (self.0)(usage);
    }
}

impl<F> fmt::Debug for UsageFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageFn").finish_non_exhaustive()
    }
}

/// One request that used the API.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Usage<'r> {
    /// The principal of the request.
    pub principal: &'r Principal,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> Usage<'r> {
    /// A request by this principal at `now`.
    pub fn new(principal: &'r Principal, now: SystemTime) -> Self {
        Self { principal, now }
    }
}

/// Stores usage by key and hour.
pub trait UsageStore: Send + Sync + 'static {
    /// Adds one writer's batch. A batch that was added before changes nothing: a writer repeats a batch if it does not know whether
    /// it arrived. A store may add a batch in parts: then all counts of a key are in the same part, and a repetition adds only the
    /// parts that are missing.
    ///
    /// A key's last use only moves forward. Usage of unknown keys is dropped. A store may forget a writer that has added nothing
    /// for days.
    ///
    /// # Errors
    /// [`Unavailable`] if it is not known whether the batch was added: the writer adds it again later.
    fn add(&self, batch: UsageBatch) -> Answer<Result<(), Unavailable>>;

    /// A key's usage by hour, and the number of one writer's last batch whose counts of this key were added. Both are read as
    /// of one moment, so that the writer can add what it has counted since, and nothing twice. A store may forget hours that
    /// are long past.
    ///
    /// # Errors
    /// [`Unavailable`] if the store cannot be reached.
    fn usage(&self, query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>>;
}

impl<S: UsageStore + ?Sized> UsageStore for Arc<S> {
    fn add(&self, batch: UsageBatch) -> Answer<Result<(), Unavailable>> {
        (**self).add(batch)
    }

    fn usage(&self, query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>> {
        (**self).usage(query)
    }
}

/// What one writer has counted since its previous batch. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageBatch {
    /// The writer: a number that no other process, and no other run of the same program, uses.
    pub writer: u128,
    /// The number of the batch: a writer's first batch is 1, and each next one is higher by 1. A store adds a batch only if its
    /// number is higher than that of the writer's last one.
    pub number: u64,
    /// The counts: one for each key and hour, in ascending order, so that stores which lock rows always lock them in the same
    /// order. Shared, since a batch may be added again.
    pub counts: Arc<[UsageCount]>,
}

impl UsageBatch {
    /// A writer's batch of this number.
    pub fn new(writer: u128, number: u64, counts: impl Into<Arc<[UsageCount]>>) -> Self {
        Self { writer, number, counts: counts.into() }
    }
}

/// One batch's count of one key's requests in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageCount {
    /// The key's identifier.
    pub key: Box<str>,
    /// The beginning of the hour.
    pub hour: SystemTime,
    /// The number of requests.
    pub requests: u64,
    /// The instant of the last of them.
    pub last_used_at: SystemTime,
}

impl UsageCount {
    /// A count of `requests` by a key in the hour that began at `hour`. The last of them came at `last_used_at`.
    pub fn new(key: impl Into<Box<str>>, hour: SystemTime, requests: u64, last_used_at: SystemTime) -> Self {
        Self { key: key.into(), hour, requests, last_used_at }
    }
}

/// A key's requests in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HourlyUsage {
    /// The beginning of the hour.
    pub hour: SystemTime,
    /// The number of requests.
    pub requests: u64,
}

impl HourlyUsage {
    /// A number of requests in the hour that began at `hour`.
    pub fn new(hour: SystemTime, requests: u64) -> Self {
        Self { hour, requests }
    }
}

/// Selects a key's usage.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UsageQuery<'r> {
    /// The key's identifier.
    pub key: &'r str,
    /// Only hours that begin at this instant or later.
    pub from: SystemTime,
    /// Only hours that begin before this instant.
    pub until: SystemTime,
    /// The writer whose last batch number is wanted, too.
    pub writer: Option<u128>,
}

impl<'r> UsageQuery<'r> {
    /// A key's hours that begin at `from` or later, and before `until`.
    pub fn new(key: &'r str, from: SystemTime, until: SystemTime) -> Self {
        Self { key, from, until, writer: None }
    }

    /// Also asks for the number of this writer's last batch.
    pub fn with_writer(self, writer: u128) -> Self {
        Self { writer: Some(writer), ..self }
    }
}

/// A key's stored usage, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredUsage {
    /// The hours with requests, the earliest first.
    pub hours: Vec<HourlyUsage>,
    /// The number of the last batch of the writer in the query whose counts of this key were added; 0 if there is none.
    pub last_number: u64,
}

impl StoredUsage {
    /// These hours, and the number of the writer's last batch.
    pub fn new(hours: Vec<HourlyUsage>, last_number: u64) -> Self {
        Self { hours, last_number }
    }
}
