//! Usage: how often each key is used, and where that is kept.

use std::{sync::Arc, time::SystemTime};

use crate::{answer::Answer, denial::Unavailable, verify::Principal};

/// Notes that a principal has used the API.
pub trait UsageSink: Send + Sync + 'static {
    /// Called on a request's path: it notes, and never waits.
    fn record(&self, usage: &Usage<'_>);
}

impl<S: UsageSink + ?Sized> UsageSink for Arc<S> {
    fn record(&self, usage: &Usage<'_>) {
        (**self).record(usage);
    }
}

/// One use of the API.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Usage<'r> {
    /// Whose.
    pub principal: &'r Principal,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> Usage<'r> {
    /// A use by this principal at `now`.
    pub fn new(principal: &'r Principal, now: SystemTime) -> Self {
        Self { principal, now }
    }
}

/// Keeps what was used, by key and hour.
pub trait UsageStore: Send + Sync + 'static {
    /// Adds what one writer has counted since its batch before, all or nothing. A batch that is added again, since nobody
    /// knew whether it had arrived, changes nothing.
    ///
    /// A key's last use only ever moves forward. What belongs to keys that are unknown is dropped. A writer that has added
    /// nothing for days may be forgotten.
    ///
    /// # Errors
    /// [`Unavailable`] if nobody knows whether it was added: the same batch is added again later.
    fn add(&self, batch: UsageBatch) -> Answer<Result<(), Unavailable>>;

    /// How often a key was used by the hour, and how far a writer had come by then: both as of one moment, so that the writer
    /// can add what it has counted since, and nothing twice. Hours that are long past may be forgotten.
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

/// What one writer has counted since its batch before. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageBatch {
    /// Who counted: a number that no other process, and no other run of this one, has.
    pub writer: u128,
    /// Which of the writer's batches this is: the first is 1, and each has the number after the one before. A store adds those
    /// that are higher than the last one it has added.
    pub number: u64,
    /// What was counted: each key and hour once, in ascending order, so that stores which lock what they change always do so in
    /// the same order. Shared, as a batch may have to be added again.
    pub counts: Arc<[UsageCount]>,
}

impl UsageBatch {
    /// A writer's batch of this number.
    pub fn new(writer: u128, number: u64, counts: impl Into<Arc<[UsageCount]>>) -> Self {
        Self { writer, number, counts: counts.into() }
    }
}

/// How often one key was used in one hour, as far as a batch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageCount {
    /// The key's identifier.
    pub key: Box<str>,
    /// When the hour began.
    pub hour: SystemTime,
    /// How many requests.
    pub requests: u64,
    /// When the last of them came.
    pub last_used_at: SystemTime,
}

impl UsageCount {
    /// So many requests by a key in the hour that began at `hour`, the last of them at `last_used_at`.
    pub fn new(key: impl Into<Box<str>>, hour: SystemTime, requests: u64, last_used_at: SystemTime) -> Self {
        Self { key: key.into(), hour, requests, last_used_at }
    }
}

/// How often a key was used in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HourlyUsage {
    /// When the hour began.
    pub hour: SystemTime,
    /// How many requests.
    pub requests: u64,
}

impl HourlyUsage {
    /// So many requests in the hour that began at `hour`.
    pub fn new(hour: SystemTime, requests: u64) -> Self {
        Self { hour, requests }
    }
}

/// Asks what a key was used for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UsageQuery<'r> {
    /// The key's identifier.
    pub key: &'r str,
    /// The hours that begin at this instant or later.
    pub from: SystemTime,
    /// The hours that begin before this instant.
    pub until: SystemTime,
    /// Whose last batch is asked for as well.
    pub writer: Option<u128>,
}

impl<'r> UsageQuery<'r> {
    /// The hours of a key that begin at `from` or later, and before `until`.
    pub fn new(key: &'r str, from: SystemTime, until: SystemTime) -> Self {
        Self { key, from, until, writer: None }
    }

    /// Also asks how far a writer has come.
    pub fn with_writer(self, writer: u128) -> Self {
        Self { writer: Some(writer), ..self }
    }
}

/// What a store holds of a key, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredUsage {
    /// The earliest hour first; hours without use are left out.
    pub hours: Vec<HourlyUsage>,
    /// The number of the last batch of the writer that was asked for; 0 if it has added none.
    pub last_number: u64,
}

impl StoredUsage {
    /// These hours, and the number of the writer's last batch.
    pub fn new(hours: Vec<HourlyUsage>, last_number: u64) -> Self {
        Self { hours, last_number }
    }
}
