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
/// its counters and counted in all or none while all their shards are locked. Counters whose windows have passed are
/// dropped before a shard ever grows, so that memory follows the number of subjects that are active now.
pub struct MemoryLimiter {
    shards: Box<[Mutex<Shard>]>,
    hasher: DefaultHashBuilder,
}

/// Enough that two cores seldom meet in one, few enough to cost nothing when idle.
const SHARDS: usize = 64;

#[derive(Default)]
struct Shard {
    subjects: HashTable<Subject>,
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
        let places: SmallVec<[Place; 2]> = charges.iter().map(|charge| self.place(charge)).collect();
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
        decision
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
        let mut order: SmallVec<[usize; 2]> = places.iter().map(|place| place.shard).collect();
        // Always in the same order, or two requests could wait for each other.
        order.sort_unstable();
        order.dedup();
        Self(order.iter().filter_map(|at| Some((*at, lock(shards.get(*at)?)))).collect())
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
        let rehash = |subject: &Subject| Subject::hash(hasher, subject.policy, &subject.name);
        if self.subjects.len() == self.subjects.capacity() && self.find(place, charge).is_none() {
            self.subjects.retain(|subject| !subject.is_idle(now));
            self.subjects.shrink_to(self.subjects.len() * 2, rehash);
        }
        let entry = self.subjects.entry(place.hash, |subject| subject.is(charge), rehash);
        entry.or_insert_with(|| Subject::new(charge)).into_mut()
    }
}

impl Subject {
    fn new(charge: &Charge<'_>) -> Self {
        Self { policy: charge.policy, name: charge.subject.into(), windows: SmallVec::new() }
    }

    fn hash(hasher: &DefaultHashBuilder, policy: &str, name: &str) -> u64 {
        hasher.hash_one((policy, name))
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

fn has_passed(window: Window, counter: Counter, now: SystemTime) -> bool {
    counter.at(window, now) != counter
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
