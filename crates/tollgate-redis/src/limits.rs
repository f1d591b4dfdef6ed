//! Where the limits in Redis stand, and their reset by an operator.

mod counter_state;
mod query;
mod reset_log;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::Value;
use tollgate_core::{denial::Unavailable, manage::Actor};

pub use self::{counter_state::CounterState, query::LimitQuery, reset_log::LimitReset};
use crate::{Redis, limiter::key_name::KeyName, redis_connection::SendError};

/// Shows where the limits in Redis stand, and resets them, for operators.
///
/// ```no_run
/// use tollgate_core::manage::Actor;
/// use tollgate_redis::{LimitQuery, Redis, RedisLimits};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let limits = RedisLimits::new(Redis::connect("redis://127.0.0.1:6379").await?);
/// for counter in limits.show(&LimitQuery::of_group("acme")).await? {
///     println!("{} {}: {} of {}", counter.policy, counter.subject, counter.used, counter.limit);
/// }
/// let reset = limits.reset(&LimitQuery::of_subject("key_1"), &Actor::new("ada")).await?;
/// println!("{} counters", reset.before.len());
/// # Ok(())
/// # }
/// ```
///
/// # Leases
///
/// What processes have [borrowed](crate::Leases) is counted as used.
///
/// # Cost
///
/// The keys are found by `SCAN`, which reads the names of all keys of the server, in steps of 1,000: about a second for a million
/// keys. It blocks no request.
#[derive(Clone, Debug)]
pub struct RedisLimits {
    redis: Redis,
}

/// The records of subjects by their keys, as text.
type Records = BTreeMap<String, (KeyName, String)>;

/// How many keys a `SCAN` visits, and how many a command names at most.
const STEP: usize = 1_000;

impl RedisLimits {
    /// For the server and the prefix of this connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// The counters that match, in order of group, policy, subject, window and limit. Counters of which nothing is used are left out.
    ///
    /// All of them are read into memory: about 300 bytes each.
    ///
    /// # Errors
    /// If the server does not answer, or is a cluster and the query has no group: then the server that has the keys is not known.
    pub async fn show(&self, query: &LimitQuery) -> Result<Vec<CounterState>, Unavailable> {
        let (records, now) = self.find(query).await?;
        let mut counters: Vec<_> =
            records.values().flat_map(|(name, record)| CounterState::read(name, record, now)).collect();
        counters.sort_by(CounterState::in_order);
        Ok(counters)
    }

    /// Removes the counters that match: their whole quota is available again. An actor of a tenant resets the counters of this tenant
    /// only.
    ///
    /// The reset is recorded first, and then made: by whom, when, and where the counters stood. Nothing is recorded if nothing matches.
    ///
    /// A process that knows a quota to be used up refuses for up to one second more. What processes have borrowed before the reset is
    /// not counted after it, so they can admit as much more, once.
    ///
    /// # Errors
    /// Those of [`show`](Self::show). Then a part of the counters may be reset: repeat it.
    pub async fn reset(&self, query: &LimitQuery, actor: &Actor) -> Result<LimitReset, Unavailable> {
        let Some(query) = query.restricted_to(actor) else {
            return Ok(LimitReset::new(query, actor, &Records::new(), UNIX_EPOCH));
        };
        let (records, now) = self.find(&query).await?;
        let reset = LimitReset::new(&query, actor, &records, now);
        if records.is_empty() {
            return Ok(reset);
        }
        self.redis.send(&reset.to_command(self.prefix(), &records)).await?;
        let keys: Vec<_> = records.keys().collect();
        for keys in keys.chunks(STEP) {
            self.redis.send(redis::cmd("DEL").arg(keys)).await?;
        }
        Ok(reset)
    }

    /// The recorded resets, the latest first: the last 1,000. All are forgotten 90 days after the latest one.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn resets(&self) -> Result<Vec<LimitReset>, Unavailable> {
        let reply = self.redis.send(&LimitReset::list_command(self.prefix())).await?;
        let entries = elements(&reply).ok_or_else(unreadable)?;
        Ok(entries.iter().filter_map(|entry| LimitReset::read(self.prefix(), entry)).collect())
    }

    fn prefix(&self) -> &str {
        &self.redis.settings().prefix
    }

    /// The records that match, and the time of the server.
    async fn find(&self, query: &LimitQuery) -> Result<(Records, SystemTime), Unavailable> {
        if query.group.is_none() && self.redis.settings().is_cluster() {
            return Err(Unavailable::new("in a Redis Cluster, counters are found by their tenant: name it"));
        }
        let pattern = query.pattern(self.prefix());
        let (mut records, mut cursor) = (Records::new(), "0".to_owned());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP).arg("TYPE").arg("string");
            // All keys of a group have its hash tag, so that they are on one server.
            let page = self.redis.send_to_server_of(&pattern, &scan).await?;
            let [next, keys] = elements(&page).ok_or_else(unreadable)? else { return Err(unreadable()) };
            let keys = elements(keys).ok_or_else(unreadable)?.iter().filter_map(text);
            self.read_into(&mut records, query, keys.collect()).await?;
            cursor = text(next).ok_or_else(unreadable)?.to_owned();
            if cursor == "0" {
                break;
            }
        }
        let time = self.redis.send_to_server_of(&pattern, &redis::cmd("TIME")).await;
        Ok((records, read_time(&time?).ok_or_else(unreadable)?))
    }

    async fn read_into(
        &self,
        records: &mut Records,
        query: &LimitQuery,
        keys: Vec<&str>,
    ) -> Result<(), SendError> {
        let named = keys.into_iter().filter_map(|key| Some((key, KeyName::read(self.prefix(), key)?)));
        // The pattern also matches a subject that contains colons.
        let named: Vec<_> = named.filter(|(_, name)| query.matches(name)).collect();
        if named.is_empty() {
            return Ok(());
        }
        let mut get = redis::cmd("MGET");
        for (key, _) in &named {
            get.arg(key);
        }
        let values = self.redis.send(&get).await?;
        // A key may have expired meanwhile.
        let values = elements(&values).unwrap_or_default().iter();
        let read = named
            .into_iter()
            .zip(values)
            .filter_map(|((key, name), value)| Some((key.to_owned(), (name, text(value)?.to_owned()))));
        records.extend(read);
        Ok(())
    }
}

fn elements(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(elements) => Some(elements),
        _ => None,
    }
}

/// `None` also for text that is not UTF-8, which this crate does not write.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The reply of `TIME`.
fn read_time(reply: &Value) -> Option<SystemTime> {
    let [seconds, micros] = elements(reply)? else { return None };
    let seconds = Duration::from_secs(text(seconds)?.parse().ok()?);
    UNIX_EPOCH.checked_add(seconds)?.checked_add(Duration::from_micros(text(micros)?.parse().ok()?))
}

fn unreadable() -> Unavailable {
    Unavailable::new("the reply of Redis cannot be read")
}
