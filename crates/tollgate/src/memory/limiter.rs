//! Counters in this process.

mod fingerprint;
mod room;
mod shard;
mod subject;
mod sync;
mod table;
mod wide;

use std::{fmt, hash::BuildHasher};

use smallvec::SmallVec;
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    limit::{Charge, Decision, FixedWindow, LimitRequest, Limiter, WindowCheck, WindowLimit},
};

use self::{
    fingerprint::{Fingerprint, Fingerprinter},
    room::Room,
    shard::{Name, Shard},
    subject::{SLOTS, Windows, counter_of},
    sync::{GroupHasher, Mutex, MutexGuard, lock},
};

/// Counts in this process, exactly.
///
/// The counters of one group (a tenant and its keys) live in one shard, behind one lock. A request is weighed against all of
/// its counters and counted in all or none while all their shards are locked. Names are not kept, but fingerprints of 128 bits
/// that nobody can forge: a subject takes about 60 bytes, whatever it is called, with up to three aligned windows (a sliding
/// window or a token bucket counts for two) and counts below 2^32; with more of them some 200 bytes.
///
/// # Memory
///
/// Every so many requests one of them drops a few subjects whose windows have passed, of one shard after the other, and
/// more while it finds many: memory follows the number of subjects that are active now, without a task in the background and
/// without a scan of all.
///
/// There is a hard cap on subjects, [a million](Self::DEFAULT_CAPACITY) unless [chosen](Self::with_capacity) otherwise, which is about
/// 64 MB. It ought to be above the number of callers that there can be in the longest window. If strangers can invent subjects
/// (limits by address), it is reached by a flood of them. Then whoever is counted already goes on as before; whoever is new
/// shares counters with other newcomers, and is refused as soon as they have used up one quota between them. Nobody gets more
/// than their quota by it, but for token buckets that one policy fills at different rates: those of a crowd come at the rate of
/// whoever asked last.
pub struct MemoryLimiter {
    shards: Box<[OnItsOwn<Mutex<Shard>>]>,
    room: Room,
    fingerprinter: Fingerprinter,
    // Chooses the shard: whoever guesses it gains nothing but a neighbour.
    hasher: GroupHasher,
}

/// Enough that two cores seldom meet in one, few enough to cost nothing when idle.
#[cfg(not(tollgate_loom))]
const SHARDS: usize = 64;
#[cfg(tollgate_loom)]
const SHARDS: usize = 2;

/// On cache lines that hold nothing else, or cores at work in two shards would wait for each other: two lines, since processors
/// fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct OnItsOwn<T>(T);

impl MemoryLimiter {
    /// How many subjects are counted at most, unless chosen otherwise.
    pub const DEFAULT_CAPACITY: usize = 1_000_000;

    /// Without any counts.
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// Without any counts, for so many subjects at most. A subject is one name under one policy. Nothing is reserved.
    pub fn with_capacity(subjects: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| OnItsOwn::default()).collect(),
            room: Room::for_subjects(subjects),
            fingerprinter: Fingerprinter::new(),
            hasher: GroupHasher::default(),
        }
    }

    /// How many subjects are counted at the moment, those whose windows have passed included.
    pub fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.0).subjects()).sum()
    }

    /// Decides about a single charge to a known subject, as nearly all are. `None`, and nothing is done, for any other.
    #[inline]
    fn take_one(&self, charge: &Charge<'_>, second: u64) -> Option<[FixedWindow; SLOTS]> {
        let place = self.place(charge);
        let (before, due) = {
            let mut shard = lock(&self.shards.get(place.shard)?.0);
            (shard.take(place.name, charge, second)?, shard.next_sweep())
        };
        self.sweep(place.shard, due, second);
        Some(before)
    }

    /// Decides about any charges.
    #[inline(never)]
    fn take_all(&self, request: &LimitRequest<'_>, second: u64) -> Decision {
        if self.room.is_full() {
            self.make_room(second);
        }
        let places: SmallVec<[Place; 2]> = request.charges.iter().map(|charge| self.place(charge)).collect();
        let mut locked = Locked::new(&self.shards, &places);

        let decision = Self::take_fixed_windows(request, &places, &mut locked, second)
            .unwrap_or_else(|| self.take_any(request, &places, &mut locked, second));
        let first = places.first();
        let due = first.and_then(|place| locked.shard(*place)?.next_sweep());
        drop(locked);
        if let Some(place) = first {
            self.sweep(place.shard, due, second);
        }
        decision
    }

    /// Decides about charges to known subjects by aligned windows, as most are. `None`, and nothing is done, for any others.
    fn take_fixed_windows(
        request: &LimitRequest<'_>,
        places: &[Place],
        locked: &mut Locked<'_>,
        second: u64,
    ) -> Option<Decision> {
        let is_repeated = |at: usize| places.iter().take(at).any(|before| Some(before) == places.get(at));
        if (1..places.len()).any(is_repeated) {
            return None;
        }
        let mut checks = SmallVec::<[WindowCheck; 4]>::new();
        for (charge, place) in request.charges.iter().zip(places) {
            let before = locked.shard(*place)?.look(place.name, charge, second)?;
            for (limit, counter) in charge.quota.limits().iter().zip(before) {
                checks.push(WindowCheck::of_fixed_window(charge, limit, counter));
            }
        }
        let decision = Decision::evaluate(request.now, checks);
        if decision.is_allowed() {
            for (charge, place) in request.charges.iter().zip(places) {
                // There is room, in all of them.
                let charge = charge.settled(charge.cost);
                let _ = locked.shard(*place).and_then(|shard| shard.take(place.name, &charge, second));
            }
        }
        Some(decision)
    }

    /// Decides about whatever charges.
    fn take_any(
        &self,
        request: &LimitRequest<'_>,
        places: &[Place],
        locked: &mut Locked<'_>,
        second: u64,
    ) -> Decision {
        let mut checks = SmallVec::<[WindowCheck; 4]>::new();
        let mut taken = SmallVec::<[Windows; 2]>::new();
        for (charge, place) in request.charges.iter().zip(places) {
            let name = self.name(charge, *place);
            let windows = locked.shard(*place).map(|shard| shard.windows(name, second)).unwrap_or_default();
            let mut after = Windows::new();
            for limit in charge.quota.limits() {
                let counter = counter_of(&windows, limit).at(limit, request.now);
                checks.push(WindowCheck::new(charge, limit, counter, request.now));
                after.push((limit.window, counter.counting(limit, charge.cost)));
            }
            taken.push(after);
        }
        let decision = Decision::evaluate(request.now, checks);

        if decision.is_allowed() {
            for ((charge, place), counted) in request.charges.iter().zip(places).zip(&taken) {
                if charge.cost > 0
                    && let Some(shard) = locked.shard(*place)
                {
                    shard.record(self.name(charge, *place), counted, second, &self.room);
                }
            }
        }
        decision
    }

    #[inline]
    fn place(&self, charge: &Charge<'_>) -> Place {
        let shard = usize::try_from(self.hasher.hash_one(charge.group) % SHARDS as u64).unwrap_or_default();
        Place { shard, name: self.fingerprinter.of(charge.policy.as_str(), charge.subject) }
    }

    fn name(&self, charge: &Charge<'_>, place: Place) -> Name<'_> {
        Name { own: place.name, policy: charge.policy.as_str(), fingerprinter: &self.fingerprinter }
    }

    /// Sweeps a shard if that is due: all of them in turn, as the requests of one come.
    #[inline]
    fn sweep(&self, own: usize, due: Option<u32>, second: u64) {
        if let Some(number) = due {
            self.sweep_shard(own.wrapping_add(number as usize) % SHARDS, second);
        }
    }

    /// Clears away what is idle, as far as one request may be kept waiting for it.
    #[cold]
    fn make_room(&self, second: u64) {
        for _ in 0..SHARDS.min(4) {
            self.sweep_shard(self.room.next_turn() % SHARDS, second);
            if !self.room.is_full() {
                break;
            }
        }
    }

    #[cold]
    fn sweep_shard(&self, shard: usize, second: u64) {
        // Unless somebody is at work there.
        if let Some(Ok(mut shard)) = self.shards.get(shard).map(|shard| shard.0.try_lock()) {
            shard.sweep(second, &self.room);
        }
    }
}

/// Where a counter lives: its shard, and its name within that.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    shard: usize,
    name: Fingerprint,
}

impl Limiter for MemoryLimiter {
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>> {
        let second = request.second();
        if let [charge] = request.charges
            && let Some(before) = self.take_one(charge, second)
        {
            // Weighed once more, by what was found behind the lock: so nobody waits while it is written down.
            let check = |(limit, counter): (&WindowLimit, FixedWindow)| {
                WindowCheck::of_fixed_window(charge, limit, counter)
            };
            let checks = charge.quota.limits().iter().zip(before).map(check);
            return Answer::Now(Ok(Decision::evaluate(request.now, checks)));
        }
        Answer::Now(Ok(self.take_all(request, second)))
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
#[cfg(tollgate_loom)]
mod every_order;
#[cfg(test)]
#[cfg(not(tollgate_loom))]
mod tests;
