//! Places of requests in flight.

mod builder;
mod keeper;
mod script;

use std::{fmt, sync::Arc};

use redis::Value;
use tokio::time::timeout;
use tollgate::in_flight::MemoryPlaces;
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    in_flight::{Place, PlaceRequest, Places},
};

pub use self::builder::RedisPlacesBuilder;
use self::{
    keeper::{Attempt, Keeper},
    script::Scripts,
};
use crate::{
    Outage, Redis,
    limiter::key_name::{Escaped, HashTag},
    redis_connection::SendError,
};

/// Counts requests in flight for all processes that share a Redis or Valkey server: a subject has at most as many as its limit says.
///
/// ```no_run
/// use tollgate::InFlightLimitLayer;
/// use tollgate_redis::{Redis, RedisPlaces};
///
/// # async fn example() -> Result<(), tollgate_redis::ConnectError> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let layer = InFlightLimitLayer::new(10).with_places("key", RedisPlaces::new(redis));
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
///
/// Taking a place is one round trip. A subject that has used up its limit in this process alone is refused without one. A task gives
/// freed places back, many at once.
///
/// # When a process dies
///
/// A place expires 30 seconds after it was taken or renewed ([`with_ttl`](RedisPlacesBuilder::with_ttl)), by the server's clock. A task
/// renews all places of this process every third of that time. So:
///
/// | event | effect |
/// |---|---|
/// | a process is killed | its places are free after 30 s at most |
/// | a process cannot renew for 30 s, because it is stopped, or cut off from Redis | its places are given to others: a subject may exceed its limit until these requests have ended |
/// | Redis loses its data | the same, until the places are renewed: within 250 ms after the process has connected again; in a cluster, within 10 s |
/// | a freed place cannot be given back | it is tried again, and expires after 30 s at most |
/// | the caller hangs up, or the deadline passes, while Redis takes a place | the place is given back, as any other |
///
/// # While Redis is down
///
/// [`Outage`] chooses. No request waits longer than the [deadline](crate::RedisSettings::with_deadline).
///
/// | outage | a request |
/// |---|---|
/// | [`CountLocally`](Outage::CountLocally), the default | is counted in this process, together with the places that it already holds |
/// | [`Refuse`](Outage::Refuse) | is refused with 503 |
/// | [`Allow`](Outage::Allow) | is admitted, and not counted |
///
/// With `CountLocally`, a subject has at most its limit in each process, at any time. So all processes together admit at most the limit
/// times their number during an outage, and afterwards until the requests that began in it have ended.
///
/// # What is stored
///
/// A subject is one sorted set, `tollgate:places:{group}:name:subject`, with a member of about 25 bytes for each place. It expires with
/// its last place. The names of groups, limits and subjects are readable in Redis. This process keeps about 100 bytes for each place
/// that it holds, and for each one that it could not give back yet, until that expires. A user of Redis also needs the permissions
/// `+zadd`, `+zrem`, `+zcard`, `+zscore`, `+zremrangebyscore`, `+pttl` and `+pexpire`.
///
/// A clone is a handle of the same places. The task ends when the last handle and the last place are dropped.
#[derive(Clone)]
pub struct RedisPlaces {
    shared: Arc<Shared>,
}

struct Shared {
    redis: Redis,
    scripts: Arc<Scripts>,
    outage: Outage,
    keeper: Keeper,
    // Also counts the places that this process has taken in Redis.
    local: MemoryPlaces,
}

impl RedisPlaces {
    /// Places with the default settings: they expire after 30 seconds, and are counted in this process while Redis is down.
    pub fn new(redis: Redis) -> Self {
        Self::builder(redis).build()
    }

    /// Places with other settings.
    pub fn builder(redis: Redis) -> RedisPlacesBuilder {
        RedisPlacesBuilder::new(redis)
    }

    fn start(redis: Redis, scripts: Scripts, outage: Outage) -> Self {
        let scripts = Arc::new(scripts);
        let keeper = Keeper::start(redis.clone(), Arc::clone(&scripts));
        let local = MemoryPlaces::new();
        Self { shared: Arc::new(Shared { redis, scripts, outage, keeper, local }) }
    }
}

impl Places for RedisPlaces {
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
        let shared = &self.shared;
        let is_up = shared.redis.is_up();
        if !is_up && shared.outage == Outage::Allow {
            return Answer::Now(Ok(Some(Place::new(|| {}))));
        }
        // Before Redis: what this process holds alone is part of what all processes hold.
        let local = match shared.local.take(request) {
            Answer::Now(Ok(Some(place))) => place,
            refused => return refused,
        };
        if !is_up {
            return Answer::Now(shared.outage(local, SendError::Down.into()));
        }
        let key = key_name(&shared.redis.settings().prefix, request);
        let (attempt, limit, shared) = (shared.keeper.attempt(key), request.limit, Arc::clone(shared));
        Answer::later(async move { shared.take(attempt, limit, local).await })
    }
}

impl Shared {
    /// Takes a place in Redis, too. However this ends, the attempt gives back what Redis may have counted.
    async fn take(&self, attempt: Attempt, limit: u32, local: Place) -> Result<Option<Place>, Unavailable> {
        let (deadline, connection) = (self.redis.settings().deadline, self.redis.number());
        let taken = timeout(deadline, self.scripts.take(&self.redis, attempt.place(), limit)).await;
        let late = |_| {
            // The command was dropped in the moment in which it would have been late.
            self.redis.count_late(connection);
            Err(SendError::Late(deadline))
        };
        match taken.unwrap_or_else(late) {
            Ok(Value::Int(1)) => Ok(Some(attempt.succeed(local))),
            Ok(Value::Int(0)) => {
                attempt.fail();
                Ok(None)
            }
            Ok(_) => self.outage(local, Unavailable::new("the reply of Redis cannot be read")),
            Err(SendError::Down) => {
                attempt.fail();
                self.outage(local, SendError::Down.into())
            }
            Err(error) => self.outage(local, error.into()),
        }
    }

    /// Decides without Redis about a request that has its place in this process.
    fn outage(&self, local: Place, error: Unavailable) -> Result<Option<Place>, Unavailable> {
        match self.outage {
            Outage::CountLocally | Outage::Allow => Ok(Some(local)),
            Outage::Refuse => Err(error),
        }
    }
}

/// The key of a subject's places: `tollgate:places:{acme}:key:ada`. No limiter has such a key, and a cluster keeps it beside the
/// other keys of the group.
fn key_name(prefix: &str, request: &PlaceRequest<'_>) -> String {
    let PlaceRequest { name, subject, group, .. } = *request;
    format!("{prefix}:places:{}:{}:{subject}", HashTag(group), Escaped(name))
}

impl fmt::Debug for RedisPlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPlaces")
            .field("redis", &self.shared.redis)
            .field("outage", &self.shared.outage)
            .field("ttl", &self.shared.scripts.ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_key_has_a_name_that_can_be_read() {
        let request =
            |name, subject, group| PlaceRequest::new(name, subject, group, 1, SystemTime::UNIX_EPOCH);
        assert_eq!(key_name("tollgate", &request("key", "ada", "acme")), "tollgate:places:{acme}:key:ada");
        assert_eq!(key_name("shop", &request("a:b", ":c", "")), "shop:places:{%}:a%3Ab::c");
    }
}
