//! The scripts that take, keep and free places.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use redis::{Script, Value};

use crate::{Redis, redis_connection::SendError};

const TAKE: &str = include_str!("take.lua");
const KEEP: &str = include_str!("keep.lua");

/// A place that this process has taken in Redis, or tries to.
#[derive(Clone, Debug)]
pub(super) struct TakenPlace {
    /// The key of the subject's places.
    pub(super) key: Arc<str>,
    pub(super) number: u64,
}

/// What happens to places that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Keep,
    Free,
}

pub(super) struct Scripts {
    take: Script,
    keep: Script,
    /// After what time a place expires.
    pub(super) ttl: Duration,
    // Tells the places of this process from those of others.
    process: u64,
}

impl Scripts {
    pub(super) fn new(ttl: Duration) -> Self {
        let process = RandomState::new().hash_one(std::process::id());
        Self { take: Script::new(TAKE), keep: Script::new(KEEP), ttl, process }
    }

    /// Replies 1 if the place is taken, and 0 if the subject has as many as it may.
    pub(super) async fn take(
        &self,
        redis: &Redis,
        place: &TakenPlace,
        limit: u32,
    ) -> Result<Value, SendError> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(&*place.key).arg(self.name(place)).arg(limit).arg(self.millis());
            command
        };
        redis.run(&self.take, TAKE, command).await
    }

    /// Keeps or frees places. Those of one subject stand beside each other.
    pub(super) async fn keep(
        &self,
        redis: &Redis,
        action: Action,
        places: &[TakenPlace],
    ) -> Result<(), SendError> {
        let subjects = || places.chunk_by(|one, other| one.key == other.key);
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(subjects().count());
            for place in subjects().filter_map(|of_subject| of_subject.first()) {
                command.arg(&*place.key);
            }
            command.arg(if action == Action::Keep { "keep" } else { "free" }).arg(self.millis());
            for of_subject in subjects() {
                command.arg(of_subject.len());
                for place in of_subject {
                    command.arg(self.name(place));
                }
            }
            command
        };
        redis.run(&self.keep, KEEP, command).await.map(drop)
    }

    fn name(&self, place: &TakenPlace) -> String {
        format!("{:016x}:{}", self.process, place.number)
    }

    /// Milliseconds, of at most one day.
    fn millis(&self) -> u64 {
        u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripts").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}
