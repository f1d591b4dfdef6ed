//! The entries of a cache: a hash table of limited size.

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

/// All digests of a lookup: verifiers with different peppers do not share entries.
pub(crate) type Digests = SmallVec<[Digest; 1]>;

/// The least capacity of a shard: small shards fill unevenly.
const MIN_SHARD_CAPACITY: usize = 256;
const MAX_SHARDS: usize = 64;

/// Uses are counted up to this number. An entry that is not used any more survives this many rounds of the clock hand.
const MAX_USES: u8 = 3;

/// An answer that a table holds.
pub(crate) trait Cached: Clone {
    /// The principal that the answer is about, if there is one.
    fn principal(&self) -> Option<&Principal>;

    /// The generation of the key's record, if it has one.
    fn generation(&self) -> Option<u64>;
}

impl Cached for Option<KeyRecord> {
    fn principal(&self) -> Option<&Principal> {
        self.as_ref().map(|record| &**record.principal())
    }

    fn generation(&self) -> Option<u64> {
        self.as_ref().map(KeyRecord::generation)
    }
}

/// Answers, by the digests of the lookup. Entries are evicted by the clock algorithm.
///
/// Each shard has eight locks (`ShardedLock`). A reader takes one, which an eighth of the threads share. A writer takes all, so it
/// waits for all readers that still see the earlier state.
pub(crate) struct Table<V> {
    shards: Box<[Shard<V>]>,
    hashes: Hashes,
}

struct Shard<V> {
    capacity: usize,
    entries: ShardedLock<Entries<V>>,
}

struct Entries<V> {
    by_digests: HashTable<Entry<V>>,
    // The entries of a key, since an event names a key by its identifier.
    by_id: HashTable<IdToDigests>,
    // The clock hand: the bucket at which the next eviction begins.
    hand: usize,
}

/// An answer to a lookup.
pub(crate) struct Entry<V> {
    digests: Digests,
    found: V,
    cached_at: SystemTime,
    fresh_until: SystemTime,
    uses: AtomicU8,
}

/// The hash of an identifier and the hash of digests, since the values are long. The entry distinguishes colliding hashes.
#[derive(PartialEq)]
struct IdToDigests {
    id: u64,
    digests: u64,
}

impl<V: Cached> Table<V> {
    pub(crate) fn new(capacity: usize, hashes: Hashes) -> Self {
        let count = (capacity / MIN_SHARD_CAPACITY).clamp(1, MAX_SHARDS);
        let share = |number| capacity / count + usize::from(number < capacity % count);
        let shards =
            (0..count).map(|number| Shard { capacity: share(number), entries: ShardedLock::default() });
        Self { shards: shards.collect(), hashes }
    }

    /// The answer that is cached for these digests, which have this hash, if the entry passes the test.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: u64,
        digests: &[Digest],
        is_usable: impl FnOnce(&Entry<V>) -> bool,
    ) -> Option<V> {
        let entries = self.shard(hash)?.read();
        let entry = entries.by_digests.find(hash, |entry| *entry.digests == *digests)?;
        is_usable(entry).then(|| {
            entry.use_once();
            entry.found.clone()
        })
    }

    /// Inserts an entry, and replaces the one for the same digests or evicts one that is used little. Inserts nothing unless
    /// `is_current`, which is called under the lock: a later event finds the entry, an earlier event has prevented it.
    pub(crate) fn insert(&self, hash: u64, entry: Entry<V>, is_current: impl FnOnce() -> bool) {
        let Some(shard) = self.shard(hash).filter(|shard| shard.capacity > 0) else { return };
        let mut entries = shard.write();
        if !is_current() || entries.has_newer(hash, &entry) {
            return;
        }
        let mut removed = entries.remove(hash, &self.hashes, |cached| cached.digests == entry.digests);
        if removed.is_none() && entries.by_digests.len() >= shard.capacity {
            removed = entries.evict(entry.cached_at, &self.hashes);
        }
        entries.insert(hash, entry, &self.hashes);
        // Entries are dropped without a lock, here and below: a principal holds the application's values, which may use the store
        // when they are dropped.
        drop(entries);
        drop(removed);
    }

    pub(crate) fn remove(&self, hash: u64, digests: &[Digest]) {
        let Some(shard) = self.shard(hash) else { return };
        let is_cached = shard.read().by_digests.find(hash, |entry| *entry.digests == *digests).is_some();
        if is_cached {
            drop(shard.remove(hash, &self.hashes, |entry| *entry.digests == *digests));
        }
    }

    /// Removes the entries of a key that are older than this generation.
    pub(crate) fn remove_key(&self, id: &str, generation: u64) {
        let of_id = self.hashes.of_id(id);
        let is_meant = |entry: &Entry<V>| entry.is_of(|principal| principal.id() == id, generation);
        for shard in &self.shards {
            let hashes: Vec<_> = shard.read().hashes_of(of_id).collect();
            for hash in hashes {
                drop(shard.remove(hash, &self.hashes, is_meant));
            }
        }
    }

    /// Removes the entries of a tenant's keys that are older than this generation. This visits all entries: tenants change
    /// rarely, and an index by tenant would be slow for a tenant with many keys.
    pub(crate) fn remove_tenant(&self, tenant: &str, generation: u64) {
        let is_meant =
            |entry: &Entry<V>| entry.is_of(|principal| principal.tenant() == Some(tenant), generation);
        for shard in &self.shards {
            let has_any = shard.read().by_digests.iter().any(is_meant);
            if has_any {
                let removed = shard.write().remove_all(&self.hashes, is_meant);
                drop(removed);
            }
        }
    }

    /// Ends the freshness of all entries.
    pub(crate) fn expire_all(&self) {
        for shard in &self.shards {
            shard.write().by_digests.iter_mut().for_each(|entry| entry.fresh_until = entry.cached_at);
        }
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            // Usually it is empty, and then no reader has to wait.
            let is_empty = shard.read().by_digests.is_empty();
            if !is_empty {
                let removed = mem::take(&mut *shard.write());
                drop(removed);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().by_digests.len()).sum()
    }

    /// Never `None`: the index is taken modulo the number of shards.
    #[inline]
    fn shard(&self, hash: u64) -> Option<&Shard<V>> {
        // Not the bits by which the hash table of a shard finds a bucket.
        let [_, _, _, low, high, ..] = hash.to_le_bytes();
        self.shards.get(usize::from(u16::from_le_bytes([low, high])) % self.shards.len())
    }
}

impl<V: Cached> Shard<V> {
    fn remove(&self, hash: u64, hashes: &Hashes, is_meant: impl Fn(&Entry<V>) -> bool) -> Option<Entry<V>> {
        self.write().remove(hash, hashes, is_meant)
    }

    // No code panics between two related changes, so a panic on another thread leaves the entries valid.

    #[inline]
    fn read(&self) -> ShardedLockReadGuard<'_, Entries<V>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, Entries<V>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self { by_digests: HashTable::new(), by_id: HashTable::new(), hand: 0 }
    }
}

impl<V: Cached> Entries<V> {
    fn insert(&mut self, hash: u64, entry: Entry<V>, hashes: &Hashes) {
        if let Some(link) = entry.link(hash, hashes) {
            self.by_id.insert_unique(link.id, link, |link| link.id);
        }
        self.by_digests.insert_unique(hash, entry, |entry| hashes.of(&entry.digests));
    }

    fn remove(
        &mut self,
        hash: u64,
        hashes: &Hashes,
        is_meant: impl Fn(&Entry<V>) -> bool,
    ) -> Option<Entry<V>> {
        // The table compares a few bits of the hash only, so another entry of the same key may be offered as well.
        let is_meant = |entry: &Entry<V>| is_meant(entry) && hashes.of(&entry.digests) == hash;
        let (entry, _) = self.by_digests.find_entry(hash, is_meant).ok()?.remove();
        self.unlink(hash, &entry, hashes);
        Some(entry)
    }

    fn remove_all(&mut self, hashes: &Hashes, is_meant: impl Fn(&Entry<V>) -> bool) -> Vec<Entry<V>> {
        let removed: Vec<_> = self.by_digests.extract_if(|entry| is_meant(entry)).collect();
        for entry in &removed {
            self.unlink(hashes.of(&entry.digests), entry, hashes);
        }
        removed
    }

    /// Removes an entry that is not fresh, or that was not used since the last round of the clock hand. The hash determines
    /// where a new entry is, so it may be just before the hand.
    fn evict(&mut self, now: SystemTime, hashes: &Hashes) -> Option<Entry<V>> {
        let buckets = self.by_digests.num_buckets();
        // By the last round, every count of uses has dropped to 0.
        for _ in 0..buckets.saturating_mul(usize::from(MAX_USES) + 1) {
            let at = self.hand;
            self.hand = if at + 1 < buckets { at + 1 } else { 0 };
            let Ok(mut occupied) = self.by_digests.get_bucket_entry(at) else { continue };
            if occupied.get().is_fresh(now) && occupied.get_mut().survives_a_round() {
                continue;
            }
            let (entry, _) = occupied.remove();
            self.unlink(hashes.of(&entry.digests), &entry, hashes);
            return Some(entry);
        }
        None
    }

    fn unlink(&mut self, hash: u64, entry: &Entry<V>, hashes: &Hashes) {
        if let Some(link) = entry.link(hash, hashes)
            && let Ok(occupied) = self.by_id.find_entry(link.id, |other| *other == link)
        {
            occupied.remove();
        }
    }

    /// The hashes of the digests of the entries that may belong to a key, by the hash of its identifier.
    fn hashes_of(&self, id: u64) -> impl Iterator<Item = u64> {
        self.by_id.iter_hash(id).filter(move |link| link.id == id).map(|link| link.digests)
    }

    /// Whether the entry is older than the cached one: it was read from a replica that lags behind.
    fn has_newer(&self, hash: u64, entry: &Entry<V>) -> bool {
        let generation = |entry: &Entry<V>| entry.found.generation();
        let cached = self.by_digests.find(hash, |cached| cached.digests == entry.digests);
        cached
            .is_some_and(|cached| cached.is_fresh(entry.cached_at) && generation(cached) > generation(entry))
    }
}

impl<V: Cached> Entry<V> {
    /// The answer to a lookup of `cached_at`.
    pub(crate) fn new(digests: Digests, found: V, cached_at: SystemTime, fresh_until: SystemTime) -> Self {
        Self { digests, found, cached_at, fresh_until, uses: AtomicU8::new(0) }
    }

    /// `false` before it was cached: a clock that is set back must not extend its time.
    #[inline]
    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        self.cached_at <= now && now < self.fresh_until
    }

    pub(crate) fn cached_at(&self) -> SystemTime {
        self.cached_at
    }

    /// Writes for the first uses only, since all cores read a hot entry.
    #[inline]
    fn use_once(&self) {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < MAX_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
    }

    fn survives_a_round(&mut self) -> bool {
        let uses = self.uses.get_mut();
        let survives = *uses > 0;
        *uses = uses.saturating_sub(1);
        survives
    }

    fn is_of(&self, is_meant: impl Fn(&Principal) -> bool, generation: u64) -> bool {
        self.found.generation().is_some_and(|own| own < generation)
            && self.found.principal().is_some_and(is_meant)
    }

    fn link(&self, hash: u64, hashes: &Hashes) -> Option<IdToDigests> {
        let principal = self.found.principal()?;
        Some(IdToDigests { id: hashes.of_id(principal.id()), digests: hash })
    }
}

/// A keyed hash function: clients choose the keys that are looked up, and must not be able to choose colliding ones.
#[derive(Clone, Default)]
pub(crate) struct Hashes(RandomState);

impl Hashes {
    /// Hashes 16 bytes of the first digest, which are as random as all of it.
    #[inline]
    pub(crate) fn of(&self, digests: &[Digest]) -> u64 {
        let first = digests.first().and_then(|digest| digest.as_bytes().first_chunk());
        self.0.hash_one(first.map_or(0, |bytes| u128::from_ne_bytes(*bytes)))
    }

    fn of_id(&self, id: &str) -> u64 {
        self.0.hash_one(id)
    }
}

impl<V: Cached> fmt::Debug for Table<V> {
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

    fn entry(digests: u8, id: u8, generation: u64) -> Entry<Option<KeyRecord>> {
        let principal = Principal::new(id.to_string()).with_tenant((id % 3).to_string());
        let record = KeyRecord::new(Arc::new(principal), KeyStatus::Active, generation);
        // Never fresh, so that an older generation may replace a newer one.
        Entry::new(of(digests), Some(record), UNIX_EPOCH, UNIX_EPOCH)
    }

    fn of(digests: u8) -> Digests {
        [Digest::of([digests])].as_slice().into()
    }

    proptest! {
        /// Against a map that never evicts: every entry of the table must be in the map.
        #[test]
        fn holds_a_subset_of_what_a_map_holds(steps in steps(), capacity in 1..60_usize) {
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
                        model.retain(|_, cached| cached.0 != id || cached.1 >= generation);
                    }
                    Step::RemoveTenant { tenant, generation } => {
                        table.remove_tenant(&tenant.to_string(), generation);
                        model.retain(|_, cached| cached.0 % 3 != tenant || cached.1 >= generation);
                    }
                    Step::Clear => {
                        table.clear();
                        model.clear();
                    }
                }
                prop_assert!(table.len() <= capacity);
                if capacity >= 40 {
                    prop_assert_eq!(table.len(), model.len(), "the capacity is enough for all");
                }
                for digests in 0..40 {
                    if let Some(Some(record)) = table.find(table.hashes.of(&of(digests)), &of(digests), |_| true) {
                        let expected = model.get(&digests).map(|(id, generation)| (id.to_string(), *generation));
                        prop_assert_eq!(expected, Some((record.principal().id().to_owned(), record.generation())));
                    }
                }
                let links: usize = table.shards.iter().map(|shard| shard.read().by_id.len()).sum();
                prop_assert_eq!(links, table.len());
            }
        }
    }

    #[test]
    fn removing_an_absent_entry_removes_no_other_entry_of_the_same_key() {
        let (hashes, mut entries) = (Hashes::default(), Entries::default());
        for digests in 0..100 {
            entries.insert(hashes.of(&of(digests)), entry(digests, 0, 0), &hashes);
        }
        for absent in 100..=u8::MAX {
            let removed = entries.remove(hashes.of(&of(absent)), &hashes, |entry| entry.is_of(|_| true, 1));
            assert!(removed.is_none(), "another entry was removed in place of {absent}");
        }
    }

    #[test]
    fn the_capacities_of_the_shards_add_up() {
        for capacity in [0, 1, 255, 256, 1_000, 10_000, 99_999, 100_000, 1_000_001] {
            let table = Table::<Option<KeyRecord>>::new(capacity, Hashes::default());
            assert_eq!(table.shards.iter().map(|shard| shard.capacity).sum::<usize>(), capacity);
        }
    }

    #[test]
    fn a_large_table_uses_nearly_all_of_its_capacity() {
        let table = Table::new(20_000, Hashes::default());
        for number in 0..40_000_u32 {
            let digests: Digests = [Digest::of(number.to_le_bytes())].as_slice().into();
            let hash = table.hashes.of(&digests);
            let entry =
                Entry::new(digests, None::<KeyRecord>, UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
            table.insert(hash, entry, || true);
        }
        assert!((19_000..=20_000).contains(&table.len()), "{} entries", table.len());
    }
}
