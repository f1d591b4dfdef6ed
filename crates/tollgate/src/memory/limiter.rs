//! Counters in this process.

use std::{
    fmt,
    hash::BuildHasher,
    sync::{Mutex, MutexGuard},
    time::SystemTime,
};

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;
use tollgate_core::{Answer, Charge, Counter, Decision, Limiter, Take, Unavailable, Window, WindowState};

use super::lock;

/// Counts in this process, exactly.
///
/// The counters of one group (a tenant and its keys) live in one shard, behind one lock. A request is weighed against all of
/// its counters and counted in all or none while all their shards are locked. Every so many requests one of them drops a few
/// counters whose windows have passed, of one shard after the other: memory follows the number of subjects that are active
/// now, without a task in the background and without a scan of all.
pub struct MemoryLimiter {
    shards: Box<[Mutex<Shard>]>,
    hasher: DefaultHashBuilder,
}

/// Enough that two cores seldom meet in one, few enough to cost nothing when idle.
const SHARDS: usize = 64;

/// How often a shard's requests sweep, and how many places at a time: two for each request.
const REQUESTS_PER_SWEEP: usize = 32;
const PLACES_PER_SWEEP: usize = 64;

#[derive(Default)]
struct Shard {
    subjects: HashTable<Subject>,
    // Requests that were counted here, and the place where the last sweep of this shard ended.
    requests: usize,
    swept_to: usize,
}

/// All windows of one subject under one policy.
struct Subject {
    policy: &'static str,
    name: Box<str>,
    windows: SmallVec<[(Window, Counter); 3]>,
}

impl MemoryLimiter {
    /// Without any counts.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// How many subjects are counted at the moment, those whose windows have passed included.
    pub fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).subjects.len()).sum()
    }

    fn decide(&self, charges: &[Charge<'_>], cost: u64, now: SystemTime) -> Decision {
        let mut places = SmallVec::<[Place; 2]>::new();
        for charge in charges {
            places.push(self.place(charge));
        }
        let mut locked = Locked::new(&self.shards, &places);

        let mut states = SmallVec::<[WindowState; 4]>::new();
        for (charge, place) in charges.iter().zip(&places) {
            let subject = locked.shard(*place).and_then(|shard| shard.find(*place, charge));
            for limit in charge.quota.limits() {
                let counter = subject.and_then(|subject| subject.counter(limit.window)).unwrap_or_default();
                let counter = counter.at(limit.window, now);
                states.push(WindowState::new(charge.policy, limit.window, limit.limit, counter));
            }
        }
        let decision = Decision::weigh(now, cost, states);

        if decision.is_allowed() && cost > 0 {
            let mut states = decision.windows().iter();
            for (charge, place) in charges.iter().zip(&places) {
                let states = states.by_ref().take(charge.quota.limits().len());
                if let Some(shard) = locked.shard_mut(*place) {
                    let subject = shard.find_or_insert(&self.hasher, *place, charge, now);
                    states.for_each(|state| subject.record(state, now));
                }
            }
        }
        let due = places.first().and_then(|place| locked.shard_mut(*place)?.next_to_sweep(place.shard));
        drop(locked);
        if let Some(shard) = due {
            self.sweep(shard, now);
        }
        decision
    }

    /// Drops a few counters of a shard, unless somebody else is at work there.
    fn sweep(&self, shard: usize, now: SystemTime) {
        if let Some(Ok(mut shard)) = self.shards.get(shard).map(Mutex::try_lock) {
            shard.sweep(&self.hasher, now);
        }
    }

    fn place(&self, charge: &Charge<'_>) -> Place {
        let shard = usize::try_from(self.hasher.hash_one(charge.group) % SHARDS as u64).unwrap_or_default();
        Place { shard, hash: Subject::hash(&self.hasher, charge.policy, charge.subject) }
    }
}

/// Where a counter lives: its shard, and its hash within that.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    hash: u64,
}

impl Limiter for MemoryLimiter {
    fn take(&self, take: &Take<'_>) -> Answer<Result<Decision, Unavailable>> {
        Answer::Now(Ok(self.decide(take.charges, take.cost, take.now)))
    }
}

/// The shards that a request's counters live in, all of them locked: nearly always one.
struct Locked<'s>(SmallVec<[(usize, MutexGuard<'s, Shard>); 1]>);

impl<'s> Locked<'s> {
    fn new(shards: &'s [Mutex<Shard>], places: &[Place]) -> Self {
        let mut order = SmallVec::<[usize; 2]>::new();
        for place in places {
            if !order.contains(&place.shard) {
                order.push(place.shard);
            }
        }
        // Always in the same order, or two requests could wait for each other.
        order.sort_unstable();
        let mut locked = SmallVec::new();
        for at in order {
            if let Some(shard) = shards.get(at) {
                locked.push((at, lock(shard)));
            }
        }
        Self(locked)
    }

    fn shard(&self, place: Place) -> Option<&Shard> {
        self.0.iter().find(|(at, _)| *at == place.shard).map(|(_, shard)| &**shard)
    }

    fn shard_mut(&mut self, place: Place) -> Option<&mut Shard> {
        self.0.iter_mut().find(|(at, _)| *at == place.shard).map(|(_, shard)| &mut **shard)
    }
}

impl Shard {
    fn find(&self, place: Place, charge: &Charge<'_>) -> Option<&Subject> {
        self.subjects.find(place.hash, |subject| subject.is(charge))
    }

    fn find_or_insert(
        &mut self,
        hasher: &DefaultHashBuilder,
        place: Place,
        charge: &Charge<'_>,
        now: SystemTime,
    ) -> &mut Subject {
        if self.subjects.len() == self.subjects.capacity() && self.find(place, charge).is_none() {
            // Better to look everywhere once than to grow for counters that nobody needs.
            self.subjects.retain(|subject| !subject.is_idle(now));
        }
        let entry = self.subjects.entry(place.hash, |subject| subject.is(charge), Subject::rehash(hasher));
        entry.or_insert_with(|| Subject::new(charge)).into_mut()
    }

    /// Counts a request, and tells which shard is to be swept after it: all of them in turn, as this one's requests come.
    fn next_to_sweep(&mut self, own: usize) -> Option<usize> {
        self.requests = self.requests.wrapping_add(1);
        let is_due = self.requests.is_multiple_of(REQUESTS_PER_SWEEP);
        is_due.then_some(own.wrapping_add(self.requests / REQUESTS_PER_SWEEP) % SHARDS)
    }

    fn sweep(&mut self, hasher: &DefaultHashBuilder, now: SystemTime) {
        let places = self.subjects.num_buckets();
        for _ in 0..PLACES_PER_SWEEP.min(places) {
            self.swept_to = (self.swept_to + 1) % places;
            if let Ok(entry) = self.subjects.get_bucket_entry(self.swept_to)
                && entry.get().is_idle(now)
            {
                entry.remove();
            }
        }
        if self.subjects.len() < self.subjects.capacity() / 8 {
            self.subjects.shrink_to(self.subjects.len() * 2, Subject::rehash(hasher));
        }
    }
}

impl Subject {
    fn new(charge: &Charge<'_>) -> Self {
        Self { policy: charge.policy, name: charge.subject.into(), windows: SmallVec::new() }
    }

    fn hash(hasher: &DefaultHashBuilder, policy: &str, name: &str) -> u64 {
        hasher.hash_one((policy, name))
    }

    fn rehash(hasher: &DefaultHashBuilder) -> impl Fn(&Self) -> u64 {
        |subject| Self::hash(hasher, subject.policy, &subject.name)
    }

    fn is(&self, charge: &Charge<'_>) -> bool {
        *self.name == *charge.subject && self.policy == charge.policy
    }

    fn counter(&self, window: Window) -> Option<Counter> {
        self.windows.iter().find(|(own, _)| *own == window).map(|(_, counter)| *counter)
    }

    /// Takes over what was decided for one window. Windows that the quota no longer names are dropped when they have passed.
    fn record(&mut self, state: &WindowState, now: SystemTime) {
        if let Some((_, own)) = self.windows.iter_mut().find(|(own, _)| *own == state.window) {
            *own = state.counter;
        } else {
            self.windows.retain(|(window, own)| !has_passed(*window, *own, now));
            self.windows.push((state.window, state.counter));
        }
    }

    fn is_idle(&self, now: SystemTime) -> bool {
        self.windows.iter().all(|(window, counter)| has_passed(*window, *counter, now))
    }
}

/// A counter from the future, left by a clock that was set back, has not passed.
fn has_passed(window: Window, counter: Counter, now: SystemTime) -> bool {
    counter.index < window.index_at(now)
}

impl Default for MemoryLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLimiter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tollgate_core::{PerWindow, Quota};

    use super::*;

    fn take(limiter: &MemoryLimiter, subject: &str, quota: &Quota, seconds: u64) -> Decision {
        let charges = [Charge::new("test", subject, subject, quota)];
        limiter.decide(&charges, 1, UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds))
    }

    #[test]
    fn a_flood_is_forgotten_while_a_few_go_on() {
        let limiter = MemoryLimiter::new();
        let quota = 5.per_minute();
        for subject in 0..50_000 {
            take(&limiter, &subject.to_string(), &quota, 0);
        }
        assert_eq!(limiter.subjects(), 50_000);
        let places = || -> usize { limiter.shards.iter().map(|shard| lock(shard).subjects.capacity()).sum() };
        let crowded = places();
        // Ten callers, each of them once a minute, are in a few shards only, and sweep them all.
        for minute in 1..20_000 {
            for subject in 0..10 {
                assert!(take(&limiter, &subject.to_string(), &quota, minute * 60).is_allowed());
            }
        }
        assert!(limiter.subjects() <= 10 + SHARDS, "{} subjects are left", limiter.subjects());
        assert!(places() < crowded / 10, "room for {} of {crowded} is left", places());
    }

    #[test]
    fn a_sweep_leaves_what_counts() {
        let limiter = MemoryLimiter::new();
        let quota = 1.per_day();
        for subject in 0..1_000 {
            assert!(take(&limiter, &subject.to_string(), &quota, 0).is_allowed());
        }
        for _ in 0..100 {
            for subject in 0..1_000 {
                assert!(!take(&limiter, &subject.to_string(), &quota, 60).is_allowed());
            }
        }
        assert_eq!(limiter.subjects(), 1_000);
    }
}
