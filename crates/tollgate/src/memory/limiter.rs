//! Counters in this process.

use std::{
    fmt,
    hash::BuildHasher,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;
use tollgate_core::{Answer, Charge, Counter, Decision, Limiter, Unavailable, Window, WindowState};

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
        let homes: SmallVec<[usize; 2]> = charges.iter().map(|charge| self.home(charge)).collect();
        let mut locked = Locked::new(&self.shards, &homes);

        let states = charges.iter().zip(&homes).flat_map(|(charge, home)| {
            let subject = locked.shard(*home).and_then(|shard| shard.find(&self.hasher, charge));
            charge.quota.limits().iter().map(move |limit| {
                let counter = subject.and_then(|subject| subject.counter(limit.window)).unwrap_or_default();
                WindowState::new(charge.policy, limit.window, limit.limit, counter.at(limit.window, now))
            })
        });
        let decision = Decision::weigh(now, cost, states);

        if decision.is_allowed() && cost > 0 {
            let mut states = decision.windows().iter();
            for (charge, home) in charges.iter().zip(&homes) {
                let states = states.by_ref().take(charge.quota.limits().len());
                if let Some(shard) = locked.shard_mut(*home) {
                    let subject = shard.find_or_insert(&self.hasher, charge, now);
                    states.for_each(|state| subject.record(state, now));
                }
            }
        }
        decision
    }

    fn home(&self, charge: &Charge<'_>) -> usize {
        usize::try_from(self.hasher.hash_one(charge.group) % SHARDS as u64).unwrap_or_default()
    }
}

impl Limiter for MemoryLimiter {
    fn take(
        &self,
        charges: &[Charge<'_>],
        cost: u64,
        now: SystemTime,
    ) -> Answer<Result<Decision, Unavailable>> {
        Answer::Now(Ok(self.decide(charges, cost, now)))
    }
}

/// The shards that a request's counters live in, all of them locked: nearly always one.
struct Locked<'s>(SmallVec<[(usize, MutexGuard<'s, Shard>); 2]>);

impl<'s> Locked<'s> {
    fn new(shards: &'s [Mutex<Shard>], homes: &[usize]) -> Self {
        let mut order: SmallVec<[usize; 2]> = homes.into();
        // Always in the same order, or two requests could wait for each other.
        order.sort_unstable();
        order.dedup();
        Self(order.iter().filter_map(|home| Some((*home, lock(shards.get(*home)?)))).collect())
    }

    fn shard(&self, home: usize) -> Option<&Shard> {
        self.0.iter().find(|(own, _)| *own == home).map(|(_, shard)| &**shard)
    }

    fn shard_mut(&mut self, home: usize) -> Option<&mut Shard> {
        self.0.iter_mut().find(|(own, _)| *own == home).map(|(_, shard)| &mut **shard)
    }
}

/// A counter is never left half changed, so a panic of another thread has left it whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn find(&self, hasher: &DefaultHashBuilder, charge: &Charge<'_>) -> Option<&Subject> {
        let hash = hasher.hash_one((charge.policy, charge.subject));
        self.subjects.find(hash, |subject| subject.is(charge))
    }

    fn find_or_insert(
        &mut self,
        hasher: &DefaultHashBuilder,
        charge: &Charge<'_>,
        now: SystemTime,
    ) -> &mut Subject {
        let rehash = |subject: &Subject| hasher.hash_one((subject.policy, &*subject.name));
        let hash = hasher.hash_one((charge.policy, charge.subject));
        let is_new = self.subjects.find(hash, |subject| subject.is(charge)).is_none();
        if is_new && self.subjects.len() == self.subjects.capacity() {
            self.subjects.retain(|subject| !subject.is_idle(now));
            self.subjects.shrink_to(self.subjects.len() * 2, rehash);
        }
        let entry = self.subjects.entry(hash, |subject| subject.is(charge), rehash);
        entry.or_insert_with(|| Subject::new(charge)).into_mut()
    }
}

impl Subject {
    fn new(charge: &Charge<'_>) -> Self {
        Self { policy: charge.policy, name: charge.subject.into(), windows: SmallVec::new() }
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
