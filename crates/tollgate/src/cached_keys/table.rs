//! What a cache keeps: so many entries and no more.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    mem,
    sync::{
        PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::SystemTime,
};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use hashbrown::HashTable;
use smallvec::SmallVec;
use tollgate_core::{Digest, KeyRecord, Principal};

use super::Found;

/// All digests of a look-up: what is found by another verifier's peppers is nobody else's answer.
pub(super) type Digests = SmallVec<[Digest; 1]>;

/// A part has room for as many at least: the smaller the parts, the less evenly they fill.
const PART: usize = 256;
const MOST_PARTS: usize = 64;

/// As many rounds of the hand are survived by what was used much, and is not any more.
const MOST_USES: u8 = 3;

/// What a store has answered, by the digests that it was asked for.
///
/// Each part has eight locks: whoever finds takes the one that an eighth of the threads share, whoever changes takes all. So a
/// change has waited for everybody who saw the part as it was before.
pub(super) struct Table {
    parts: Box<[Part]>,
    hashes: Hashes,
}

struct Part {
    capacity: usize,
    rack: ShardedLock<Rack>,
}

#[derive(Default)]
struct Rack {
    entries: HashTable<Entry>,
    // Where the entries of a key are, since a change names it by its identifier.
    places: HashTable<Place>,
    // The bucket at which the search for what is evicted goes on.
    hand: usize,
}

/// An answer of the store.
pub(super) struct Entry {
    digests: Digests,
    found: Option<KeyRecord>,
    kept_at: SystemTime,
    fresh_until: SystemTime,
    uses: AtomicU8,
}

/// Hashes, since identifiers are long. Another key of the same hash is told apart by its entry.
#[derive(PartialEq)]
struct Place {
    id: u64,
    digests: u64,
}

impl Table {
    pub(super) fn new(capacity: usize, hashes: Hashes) -> Self {
        let count = (capacity / PART).clamp(1, MOST_PARTS);
        let share = |number| capacity / count + usize::from(number < capacity % count);
        let parts = (0..count).map(|number| Part { capacity: share(number), rack: ShardedLock::default() });
        Self { parts: parts.collect(), hashes }
    }

    /// What is kept of digests with this hash, if it serves.
    #[inline]
    pub(super) fn find(
        &self,
        hash: u64,
        digests: &[Digest],
        serves: impl FnOnce(&Entry) -> bool,
    ) -> Option<Found> {
        let rack = self.part(hash)?.read();
        let entry = rack.entries.find(hash, |entry| *entry.digests == *digests)?;
        serves(entry).then(|| {
            entry.use_once();
            Ok(entry.found.clone())
        })
    }

    /// Keeps an entry in the place of the one for its digests, or of one that is of little use; but not if `is_current` denies it,
    /// which is asked under the lock: a change that comes later finds the entry, one that came earlier has kept it out.
    pub(super) fn insert(&self, hash: u64, entry: Entry, is_current: impl FnOnce() -> bool) {
        let Some(part) = self.part(hash).filter(|part| part.capacity > 0) else { return };
        let mut rack = part.write();
        if !is_current() || rack.holds_newer(hash, &entry) {
            return;
        }
        let mut removed = rack.remove(hash, &self.hashes, |kept| kept.digests == entry.digests);
        if removed.is_none() && rack.entries.len() >= part.capacity {
            removed = rack.evict(entry.kept_at, &self.hashes);
        }
        rack.insert(hash, entry, &self.hashes);
        // What is removed is dropped when no lock is held, here and below: a principal holds what is the application's.
        drop(rack);
        drop(removed);
    }

    pub(super) fn remove(&self, hash: u64, digests: &[Digest]) {
        let Some(part) = self.part(hash) else { return };
        let is_kept = part.read().entries.find(hash, |entry| *entry.digests == *digests).is_some();
        if is_kept {
            drop(part.remove(hash, &self.hashes, |entry| *entry.digests == *digests));
        }
    }

    /// Removes what is known of a key as of earlier generations.
    pub(super) fn remove_key(&self, id: &str, generation: u64) {
        let of_id = self.hashes.of_id(id);
        let is_meant = |entry: &Entry| entry.is_of(|principal| principal.id() == id, generation);
        for part in &self.parts {
            let places: Vec<_> = part.read().places_of(of_id).collect();
            for hash in places {
                drop(part.remove(hash, &self.hashes, is_meant));
            }
        }
    }

    /// Removes what is known of a tenant's keys as of earlier generations. That looks at all entries: tenants change rarely,
    /// and one may have so many keys that a list of them would be slow to keep.
    pub(super) fn remove_tenant(&self, tenant: &str, generation: u64) {
        let is_meant =
            |entry: &Entry| entry.is_of(|principal| principal.tenant() == Some(tenant), generation);
        for part in &self.parts {
            let is_concerned = part.read().entries.iter().any(is_meant);
            if is_concerned {
                let removed = part.write().remove_all(&self.hashes, is_meant);
                drop(removed);
            }
        }
    }

    /// Nothing is fresh any more.
    pub(super) fn spoil(&self) {
        for part in &self.parts {
            part.write().entries.iter_mut().for_each(|entry| entry.fresh_until = entry.kept_at);
        }
    }

    pub(super) fn clear(&self) {
        for part in &self.parts {
            // Most often there is nothing, and whoever finds is not kept waiting for that.
            let is_empty = part.read().entries.is_empty();
            if !is_empty {
                let removed = mem::take(&mut *part.write());
                drop(removed);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().entries.len()).sum()
    }

    /// Never absent: the number is taken modulo how many there are.
    #[inline]
    fn part(&self, hash: u64) -> Option<&Part> {
        // Other bits than those by which a place in the part is found.
        let [_, _, _, low, high, ..] = hash.to_le_bytes();
        self.parts.get(usize::from(u16::from_le_bytes([low, high])) % self.parts.len())
    }
}

impl Part {
    fn remove(&self, hash: u64, hashes: &Hashes, is_meant: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.write().remove(hash, hashes, is_meant)
    }

    // Nothing in a part is ever left half changed, so a panic of another thread has left it whole.

    #[inline]
    fn read(&self) -> ShardedLockReadGuard<'_, Rack> {
        self.rack.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, Rack> {
        self.rack.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rack {
    fn insert(&mut self, hash: u64, entry: Entry, hashes: &Hashes) {
        if let Some(place) = entry.place(hash, hashes) {
            self.places.insert_unique(place.id, place, |place| place.id);
        }
        self.entries.insert_unique(hash, entry, |entry| hashes.of(&entry.digests));
    }

    fn remove(&mut self, hash: u64, hashes: &Hashes, is_meant: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let (entry, _) = self.entries.find_entry(hash, is_meant).ok()?.remove();
        self.forget_place(hash, &entry, hashes);
        Some(entry)
    }

    fn remove_all(&mut self, hashes: &Hashes, is_meant: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let removed: Vec<_> = self.entries.extract_if(|entry| is_meant(entry)).collect();
        for entry in &removed {
            self.forget_place(hashes.of(&entry.digests), entry, hashes);
        }
        removed
    }

    /// Removes an entry that is not fresh, or was not used since the hand last came by: one that is used much escapes a few
    /// rounds. New entries lie anywhere before the hand, as their digests do.
    fn evict(&mut self, now: SystemTime, hashes: &Hashes) -> Option<Entry> {
        let buckets = self.entries.num_buckets();
        // In the last round at the latest nothing is left of the uses.
        for _ in 0..buckets.saturating_mul(usize::from(MOST_USES) + 1) {
            let at = self.hand;
            self.hand = if at + 1 < buckets { at + 1 } else { 0 };
            let Ok(mut occupied) = self.entries.get_bucket_entry(at) else { continue };
            if occupied.get().is_fresh(now) && occupied.get_mut().outlives_a_round() {
                continue;
            }
            let (entry, _) = occupied.remove();
            self.forget_place(hashes.of(&entry.digests), &entry, hashes);
            return Some(entry);
        }
        None
    }

    fn forget_place(&mut self, hash: u64, entry: &Entry, hashes: &Hashes) {
        if let Some(former) = entry.place(hash, hashes)
            && let Ok(occupied) = self.places.find_entry(former.id, |place| *place == former)
        {
            occupied.remove();
        }
    }

    /// The hashes of the digests of what may be this key's.
    fn places_of(&self, id: u64) -> impl Iterator<Item = u64> {
        self.places.iter_hash(id).filter(move |place| place.id == id).map(|place| place.digests)
    }

    /// Whether a replica that lags behind would undo what is known.
    fn holds_newer(&self, hash: u64, entry: &Entry) -> bool {
        let generation = |entry: &Entry| entry.found.as_ref().map(KeyRecord::generation);
        let kept = self.entries.find(hash, |kept| kept.digests == entry.digests);
        kept.is_some_and(|kept| kept.is_fresh(entry.kept_at) && generation(kept) > generation(entry))
    }
}

impl Entry {
    /// What was found when it was asked for at `kept_at`.
    pub(super) fn new(
        digests: Digests,
        found: Option<KeyRecord>,
        kept_at: SystemTime,
        fresh_until: SystemTime,
    ) -> Self {
        Self { digests, found, kept_at, fresh_until, uses: AtomicU8::new(0) }
    }

    /// Never before it was kept: a clock that was set back must not lengthen its life.
    #[inline]
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        self.kept_at <= now && now < self.fresh_until
    }

    pub(super) fn kept_at(&self) -> SystemTime {
        self.kept_at
    }

    /// Writes at the first uses only: a hot entry is read by all cores.
    #[inline]
    fn use_once(&self) {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
    }

    fn outlives_a_round(&mut self) -> bool {
        let uses = self.uses.get_mut();
        let outlives = *uses > 0;
        *uses = uses.saturating_sub(1);
        outlives
    }

    fn is_of(&self, is_meant: impl Fn(&Principal) -> bool, generation: u64) -> bool {
        self.found
            .as_ref()
            .is_some_and(|record| record.generation() < generation && is_meant(record.principal()))
    }

    fn place(&self, hash: u64, hashes: &Hashes) -> Option<Place> {
        let record = self.found.as_ref()?;
        Some(Place { id: hashes.of_id(record.principal().id()), digests: hash })
    }
}

/// Hashes that nobody can steer from outside: strangers choose the keys that are looked up, and an application its identifiers.
#[derive(Clone, Default)]
pub(super) struct Hashes(RandomState);

impl Hashes {
    /// By 16 bytes of the first digest, which is as good as all of them.
    #[inline]
    pub(super) fn of(&self, digests: &[Digest]) -> u64 {
        let first = digests.first().and_then(|digest| digest.as_bytes().first_chunk());
        self.0.hash_one(first.map_or(0, |bytes| u128::from_ne_bytes(*bytes)))
    }

    fn of_id(&self, id: &str) -> u64 {
        self.0.hash_one(id)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("entries", &self.len()).finish_non_exhaustive()
    }
}
