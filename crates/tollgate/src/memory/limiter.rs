//! A limiter that counts in this process.

mod capacity;
mod charged_subjects;
mod fingerprint;
mod large;
mod shard;
mod subject;
mod sync;
mod table;

use std::{
    fmt,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_utils::CachePadded;
use smallvec::SmallVec;
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    limit::{Charge, Decision, FixedWindow, LimitRequest, Limiter, WindowCheck, WindowLimit},
};

pub(crate) use self::fingerprint::{Fingerprint, Fingerprinter};
use self::{
    capacity::Capacity,
    shard::{Name, Shard},
    subject::{SLOTS, Windows, counter_of},
    sync::{GroupHasher, Mutex, MutexGuard, lock},
};

/// Counts exactly, in this process.
///
/// The counters of one group (a tenant and its keys) are in one shard, behind one lock. A request locks all shards of its counters,
/// and is then counted in all of them or in none. Names are stored as keyed fingerprints of 128 bits, which cannot be forged. A
/// subject takes about 60 bytes, regardless of the length of its name, if it has up to three aligned windows (a sliding window or
/// a token bucket counts as two) and counts below 2^32. Otherwise it takes about 200 bytes.
///
/// # Memory
///
/// One in 32 requests of a shard drops a few subjects whose windows have passed, in one shard after the other, and more of them if
/// it finds many. Memory follows the number of active subjects, without a background task and without a scan of all subjects.
///
/// The number of subjects is limited: [1,000,000](Self::DEFAULT_CAPACITY) by default, which is about 64 MB. Choose a
/// [capacity](Self::with_capacity) above the number of callers in the longest window. If strangers can invent subjects, as with
/// limits by address, a flood can reach the limit. Subjects that are already counted are not affected then. New subjects share
/// counters with other new ones, and are refused as soon as they have used one quota together. A new subject that has never been
/// charged is not refused by what others have used: a flood of failed attempts refuses no address that has not failed.
///
/// No subject gets more than its quota, with two exceptions while the limiter is full. If one policy fills token buckets at
/// different rates, a shared bucket refills at the rate of the latest request. If a cost is charged later, as for failed attempts, the
/// limiter remembers the 65,536 new subjects that were charged last (about 1 MB); an older one is admitted once more.
///
/// A clone is a handle of the same counters.
#[derive(Clone)]
pub struct MemoryLimiter {
    // Padded, so that shards share no cache line.
    shards: Arc<[CachePadded<Mutex<Shard>>]>,
    // Unique in the process.
    number: u64,
    capacity: Arc<Capacity>,
    fingerprinter: Fingerprinter,
    // Chooses the shard. A caller that predicts it gains nothing.
    hasher: GroupHasher,
}

/// The number of the next limiter.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Enough that two cores rarely use the same shard, few enough that idle shards cost nothing.
#[cfg(not(tollgate_loom))]
const SHARDS: usize = 64;
#[cfg(tollgate_loom)]
const SHARDS: usize = 2;

impl MemoryLimiter {
    /// The default maximum number of subjects.
    pub const DEFAULT_CAPACITY: usize = 1_000_000;

    /// A limiter without counts, for up to 1,000,000 subjects.
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// A limiter without counts, for up to `subjects` subjects. A subject is one name under one policy. Allocates nothing yet.
    pub fn with_capacity(subjects: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| CachePadded::default()).collect(),
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            capacity: Arc::new(Capacity::new(subjects)),
            fingerprinter: Fingerprinter::new(),
            hasher: GroupHasher::default(),
        }
    }

    /// The number of counted subjects, including those whose windows have passed.
    pub fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).subjects()).sum()
    }

    /// Decides about a single charge to a known subject: the usual case. `None`, without any change, for anything else.
    #[inline]
    fn acquire_one(&self, charge: &Charge<'_>, second: u64) -> Option<[FixedWindow; SLOTS]> {
        let place = self.place(charge);
        let (before, due) = {
            let mut shard = lock(self.shards.get(place.shard)?);
            (shard.acquire(place.name, charge, second)?, shard.next_sweep())
        };
        self.sweep(place.shard, due, second);
        Some(before)
    }

    /// Decides about any number of charges.
    #[inline(never)]
    fn acquire_all(&self, request: &LimitRequest<'_>, second: u64) -> Decision {
        if self.capacity.is_full() {
            self.free_capacity(second);
        }
        let places: SmallVec<[Place; 2]> = request.charges.iter().map(|charge| self.place(charge)).collect();
        let mut locked = Locked::new(&self.shards, &places);

        let decision = Self::acquire_fixed_windows(request, &places, &mut locked, second)
            .unwrap_or_else(|| self.acquire_any(request, &places, &mut locked, second));
        let first = places.first();
        let due = first.and_then(|place| locked.shard(*place)?.next_sweep());
        drop(locked);
        if let Some(place) = first {
            self.sweep(place.shard, due, second);
        }
        decision
    }

    /// Decides about charges to known subjects with aligned windows: the common case. `None`, without any change, for anything else.
    fn acquire_fixed_windows(
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
            let before = locked.shard(*place)?.peek(place.name, charge, second)?;
            for (limit, counter) in charge.quota.limits().iter().zip(before) {
                checks.push(WindowCheck::of_fixed_window(charge, limit, counter));
            }
        }
        let decision = Decision::evaluate(request.now, checks);
        if decision.is_allowed() {
            for (charge, place) in request.charges.iter().zip(places) {
                // Cannot fail: all windows have capacity.
                let charge = charge.settled(charge.cost);
                let _ = locked.shard(*place).and_then(|shard| shard.acquire(place.name, &charge, second));
            }
        }
        Some(decision)
    }

    /// Decides about charges of any kind.
    fn acquire_any(
        &self,
        request: &LimitRequest<'_>,
        places: &[Place],
        locked: &mut Locked<'_>,
        second: u64,
    ) -> Decision {
        let mut checks = SmallVec::<[WindowCheck; 4]>::new();
        let mut updated = SmallVec::<[Windows; 2]>::new();
        for (charge, place) in request.charges.iter().zip(places) {
            let name = self.name(charge, *place);
            let windows = locked
                .shard(*place)
                .map(|shard| shard.windows(name, charge.cost, second))
                .unwrap_or_default();
            let mut after = Windows::new();
            for limit in charge.quota.limits() {
                let counter = counter_of(&windows, limit).at(limit, request.now);
                checks.push(WindowCheck::new(charge, limit, counter, request.now));
                after.push((limit.window, counter.counting(limit, charge.cost)));
            }
            updated.push(after);
        }
        let decision = Decision::evaluate(request.now, checks);

        if decision.is_allowed() {
            for ((charge, place), windows) in request.charges.iter().zip(places).zip(&updated) {
                if charge.cost > 0
                    && let Some(shard) = locked.shard(*place)
                {
                    shard.record(self.name(charge, *place), windows, second, &self.capacity);
                }
            }
        }
        decision
    }

    #[inline]
    fn place(&self, charge: &Charge<'_>) -> Place {
        let Some(known) = charge.place else { return self.work_out_place(charge) };
        known.get_or_compute(self.number, charge.policy, || self.work_out_place(charge).into()).into()
    }

    #[inline(never)]
    fn work_out_place(&self, charge: &Charge<'_>) -> Place {
        let shard = usize::try_from(self.hasher.hash_one(charge.group) % SHARDS as u64).unwrap_or_default();
        Place { shard, name: self.fingerprinter.of(charge.policy.as_str(), charge.subject) }
    }

    fn name(&self, charge: &Charge<'_>, place: Place) -> Name<'_> {
        Name { own: place.name, policy: charge.policy.as_str(), fingerprinter: &self.fingerprinter }
    }

    /// Sweeps a shard if a sweep is due. The requests of one shard sweep all shards in turn.
    #[inline]
    fn sweep(&self, own: usize, due: Option<u32>, second: u64) {
        if let Some(number) = due {
            self.sweep_shard(own.wrapping_add(number as usize) % SHARDS, second);
        }
    }

    /// Drops idle subjects, in up to four shards: a single request must not wait long.
    #[cold]
    fn free_capacity(&self, second: u64) {
        for _ in 0..SHARDS.min(4) {
            self.sweep_shard(self.capacity.next_shard() % SHARDS, second);
            if !self.capacity.is_full() {
                break;
            }
        }
    }

    #[cold]
    fn sweep_shard(&self, shard: usize, second: u64) {
        // Skips a shard that is locked.
        if let Some(Ok(mut shard)) = self.shards.get(shard).map(|shard| shard.try_lock()) {
            shard.sweep(second, &self.capacity);
        }
    }
}

/// The location of a counter: its shard, and its name within the shard.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    shard: usize,
    name: Fingerprint,
}

impl From<Place> for [u64; 3] {
    #[inline]
    fn from(Place { shard, name }: Place) -> Self {
        [shard as u64, name.place(), name.check()]
    }
}

impl From<[u64; 3]> for Place {
    #[inline]
    fn from([shard, place, check]: [u64; 3]) -> Self {
        Self { shard: usize::try_from(shard).unwrap_or_default(), name: Fingerprint::new(place, check) }
    }
}

impl Limiter for MemoryLimiter {
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>> {
        let second = request.second();
        if let [charge] = request.charges
            && let Some(before) = self.acquire_one(charge, second)
        {
            // Evaluated a second time, from the counters found under the lock, so that the lock is held only briefly.
            let check = |(limit, counter): (&WindowLimit, FixedWindow)| {
                WindowCheck::of_fixed_window(charge, limit, counter)
            };
            let checks = charge.quota.limits().iter().zip(before).map(check);
            return Answer::Now(Ok(Decision::evaluate(request.now, checks)));
        }
        Answer::Now(Ok(self.acquire_all(request, second)))
    }
}

/// The locked shards of a request's counters.
struct Locked<'s>(SmallVec<[(usize, MutexGuard<'s, Shard>); 2]>);

impl<'s> Locked<'s> {
    fn new(shards: &'s [CachePadded<Mutex<Shard>>], places: &[Place]) -> Self {
        let mut order: SmallVec<[usize; 2]> = places.iter().map(|place| place.shard).collect();
        // Always locked in the same order, to avoid a deadlock.
        order.sort_unstable();
        order.dedup();
        let locked = order.into_iter().filter_map(|at| Some((at, lock(shards.get(at)?))));
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
