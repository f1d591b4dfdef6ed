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
use tollgate_core::{key::Digest, store::KeyRecord, verify::Principal};

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
        // The table asks about whatever shares a few bits with the hash: another entry of the same key, too.
        let is_meant = |entry: &Entry| is_meant(entry) && hashes.of(&entry.digests) == hash;
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

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use proptest::prelude::*;
    use tollgate_core::store::KeyStatus;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { digests: u8, id: u8, generation: u64 },
        Remove { digests: u8 },
        RemoveKey { id: u8, generation: u64 },
        RemoveTenant { tenant: u8, generation: u64 },
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let (digests, id, generation) = (0..40_u8, 0..12_u8, 0..4_u64);
        let step = prop_oneof![
            12 => (digests.clone(), id.clone(), generation.clone())
                .prop_map(|(digests, id, generation)| Step::Insert { digests, id, generation }),
            3 => digests.prop_map(|digests| Step::Remove { digests }),
            2 => (id, generation.clone()).prop_map(|(id, generation)| Step::RemoveKey { id, generation }),
            1 => (0..3_u8, generation)
                .prop_map(|(tenant, generation)| Step::RemoveTenant { tenant, generation }),
            1 => Just(Step::Clear),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn entry(digests: u8, id: u8, generation: u64) -> Entry {
        let principal = Principal::new(id.to_string()).with_tenant((id % 3).to_string());
        let record = KeyRecord::new(Arc::new(principal), KeyStatus::Active, generation);
        // Never fresh, so that an older generation is as good as a newer one.
        Entry::new(of(digests), Some(record), UNIX_EPOCH, UNIX_EPOCH)
    }

    fn of(digests: u8) -> Digests {
        [Digest::of([digests])].as_slice().into()
    }

    proptest! {
        /// A model that never evicts anything: what the table still has must be what that has.
        #[test]
        fn keeps_what_a_map_would_keep_or_less(steps in steps(), capacity in 1..60_usize) {
            let table = Table::new(capacity, Hashes::default());
            let mut model: HashMap<u8, (u8, u64)> = HashMap::new();
            for step in steps {
                match step {
                    Step::Insert { digests, id, generation } => {
                        let hash = table.hashes.of(&of(digests));
                        table.insert(hash, entry(digests, id, generation), || true);
                        model.insert(digests, (id, generation));
                        prop_assert!(table.find(hash, &of(digests), |_| true).is_some());
                    }
                    Step::Remove { digests } => {
                        table.remove(table.hashes.of(&of(digests)), &of(digests));
                        model.remove(&digests);
                    }
                    Step::RemoveKey { id, generation } => {
                        table.remove_key(&id.to_string(), generation);
                        model.retain(|_, kept| kept.0 != id || kept.1 >= generation);
                    }
                    Step::RemoveTenant { tenant, generation } => {
                        table.remove_tenant(&tenant.to_string(), generation);
                        model.retain(|_, kept| kept.0 % 3 != tenant || kept.1 >= generation);
                    }
                    Step::Clear => {
                        table.clear();
                        model.clear();
                    }
                }
                prop_assert!(table.len() <= capacity);
                if capacity >= 40 {
                    prop_assert_eq!(table.len(), model.len(), "there was room for all");
                }
                for digests in 0..40 {
                    if let Some(Ok(Some(record))) = table.find(table.hashes.of(&of(digests)), &of(digests), |_| true) {
                        let kept = model.get(&digests).map(|(id, generation)| (id.to_string(), *generation));
                        prop_assert_eq!(kept, Some((record.principal().id().to_owned(), record.generation())));
                    }
                }
                let places: usize = table.parts.iter().map(|part| part.read().places.len()).sum();
                prop_assert_eq!(places, table.len());
            }
        }
    }

    #[test]
    fn another_entry_of_the_same_key_is_not_taken_for_the_one_at_a_place() {
        let (hashes, mut rack) = (Hashes::default(), Rack::default());
        for digests in 0..100 {
            rack.insert(hashes.of(&of(digests)), entry(digests, 0, 0), &hashes);
        }
        for absent in 100..=u8::MAX {
            let removed = rack.remove(hashes.of(&of(absent)), &hashes, |entry| entry.is_of(|_| true, 1));
            assert!(removed.is_none(), "{absent} is not there, and something else was removed for it");
        }
    }

    #[test]
    fn whatever_the_capacity_the_parts_have_it_together() {
        for capacity in [0, 1, 255, 256, 1_000, 10_000, 99_999, 100_000, 1_000_001] {
            let table = Table::new(capacity, Hashes::default());
            assert_eq!(table.parts.iter().map(|part| part.capacity).sum::<usize>(), capacity);
        }
    }

    #[test]
    fn a_large_table_fills_nearly_all_of_its_room() {
        let table = Table::new(20_000, Hashes::default());
        for number in 0..40_000_u32 {
            let digests: Digests = [Digest::of(number.to_le_bytes())].as_slice().into();
            let hash = table.hashes.of(&digests);
            let entry = Entry::new(digests, None, UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
            table.insert(hash, entry, || true);
        }
        assert!((19_000..=20_000).contains(&table.len()), "{} are kept", table.len());
    }
}
