//! Counters in this process.

mod fingerprint;
mod shard;
mod subject;
mod table;
mod wide;

use std::{
    fmt,
    hash::BuildHasher,
    sync::{Mutex, MutexGuard},
};

use hashbrown::DefaultHashBuilder;
use smallvec::SmallVec;
use tollgate_core::{
    Answer, Charge, Counter, Decision, Limiter, Take, Unavailable, WindowLimit, WindowState,
};

use self::{
    fingerprint::{Fingerprint, Fingerprinter},
    shard::Shard,
    subject::WINDOWS,
};
use super::lock;

/// Counts in this process, exactly.
///
/// The counters of one group (a tenant and its keys) live in one shard, behind one lock. A request is weighed against all of
/// its counters and counted in all or none while all their shards are locked. Names are not kept, but fingerprints of 128 bits
/// that nobody can forge: a subject takes about 60 bytes, whatever it is called, with up to three windows and counts below
/// 2^32. Every so many requests one of them drops a few subjects whose windows have passed, of one shard after the other, and
/// more while it finds many: memory follows the number of subjects that are active now, without a task in the background and
/// without a scan of all.
pub struct MemoryLimiter {
    shards: Box<[OnItsOwn<Mutex<Shard>>]>,
    fingerprinter: Fingerprinter,
    // Chooses the shard: whoever guesses it gains nothing but a neighbour.
    hasher: DefaultHashBuilder,
}

/// Enough that two cores seldom meet in one, few enough to cost nothing when idle.
const SHARDS: usize = 64;

/// On cache lines that hold nothing else, or cores at work in two shards would wait for each other: two lines, since processors
/// fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct OnItsOwn<T>(T);

impl MemoryLimiter {
    /// Without any counts.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| OnItsOwn::default()).collect(),
            fingerprinter: Fingerprinter::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// How many subjects are counted at the moment, those whose windows have passed included.
    pub fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.0).subjects()).sum()
    }

    /// Decides about a single charge to a known subject, as nearly all are. `None`, and nothing is done, for any other.
    #[inline]
    fn take_one(&self, charge: &Charge<'_>, cost: u64, second: u64) -> Option<[Counter; WINDOWS]> {
        let place = self.place(charge);
        let (before, due) = {
            let mut shard = lock(&self.shards.get(place.shard)?.0);
            (shard.take(place.name, charge, cost, second)?, shard.next_sweep())
        };
        self.sweep(place.shard, due, second);
        Some(before)
    }

    /// Decides about any charges.
    #[inline(never)]
    fn take_all(&self, take: &Take<'_>, second: u64) -> Decision {
        let places: SmallVec<[Place; 2]> = take.charges.iter().map(|charge| self.place(charge)).collect();
        let mut locked = Locked::new(&self.shards, &places);

        let mut states = SmallVec::<[WindowState; 4]>::new();
        for (charge, place) in take.charges.iter().zip(&places) {
            if let Some(shard) = locked.shard(*place) {
                states.extend(shard.states(place.name, charge, second));
            }
        }
        let decision = Decision::weigh(take.now, take.cost, states);

        if decision.is_allowed() && take.cost > 0 {
            let mut rest = decision.windows();
            for (charge, place) in take.charges.iter().zip(&places) {
                let Some((states, others)) = rest.split_at_checked(charge.quota.limits().len()) else {
                    break;
                };
                rest = others;
                if let Some(shard) = locked.shard(*place) {
                    shard.record(place.name, states, second);
                }
            }
        }
        let first = places.first();
        let due = first.and_then(|place| locked.shard(*place)?.next_sweep());
        drop(locked);
        if let Some(place) = first {
            self.sweep(place.shard, due, second);
        }
        decision
    }

    #[inline]
    fn place(&self, charge: &Charge<'_>) -> Place {
        let shard = usize::try_from(self.hasher.hash_one(charge.group) % SHARDS as u64).unwrap_or_default();
        Place { shard, name: self.fingerprinter.of(charge.policy, charge.subject) }
    }

    /// Sweeps a shard if that is due: all of them in turn, as the requests of one come.
    #[inline]
    fn sweep(&self, own: usize, due: Option<u32>, second: u64) {
        if let Some(number) = due {
            self.sweep_shard(own.wrapping_add(number as usize) % SHARDS, second);
        }
    }

    #[cold]
    fn sweep_shard(&self, shard: usize, second: u64) {
        // Unless somebody is at work there.
        if let Some(Ok(mut shard)) = self.shards.get(shard).map(|shard| shard.0.try_lock()) {
            shard.sweep(second);
        }
    }
}

/// Where a counter lives: its shard, and its name within that.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    name: Fingerprint,
}

impl Limiter for MemoryLimiter {
    fn take(&self, take: &Take<'_>) -> Answer<Result<Decision, Unavailable>> {
        let second = take.second();
        if let [charge] = take.charges
            && let Some(before) = self.take_one(charge, take.cost, second)
        {
            // Weighed once more, by what was found behind the lock: so nobody waits while it is written down.
            let state = |(limit, counter): (&WindowLimit, Counter)| {
                WindowState::new(charge.policy, limit.window, limit.limit, counter)
            };
            let states = charge.quota.limits().iter().zip(before).map(state);
            return Answer::Now(Ok(Decision::weigh(take.now, take.cost, states)));
        }
        Answer::Now(Ok(self.take_all(take, second)))
    }
}

/// The shards that a request's counters live in, all of them locked.
struct Locked<'s>(SmallVec<[(usize, MutexGuard<'s, Shard>); 2]>);

impl<'s> Locked<'s> {
    fn new(shards: &'s [OnItsOwn<Mutex<Shard>>], places: &[Place]) -> Self {
        let mut order: SmallVec<[usize; 2]> = places.iter().map(|place| place.shard).collect();
        // Always in the same order, or two requests could wait for each other.
        order.sort_unstable();
        order.dedup();
        let locked = order.into_iter().filter_map(|at| Some((at, lock(&shards.get(at)?.0))));
        Self(locked.collect())
    }

    fn shard(&mut self, place: Place) -> Option<&mut Shard> {
        self.0.iter_mut().find(|(at, _)| *at == place.shard).map(|(_, shard)| &mut **shard)
    }
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
mod tests;
