//! A table of small values by fingerprint, whose size follows its content.
//!
//! Fingerprints are evenly distributed numbers, so the table is a sorted list with gaps. Each entry is stored at the place that
//! corresponds to its fingerprint, its *home*, or as near after it as earlier entries allow. This is linear probing in sorted
//! order. The order ends a lookup early, and allows the table to be rebuilt, swept and compacted in one pass from front to back,
//! without rehashing and without tombstones.

use super::fingerprint::Fingerprint;

/// Values by fingerprint. At most 7/8 full, and 7/10 full after a rebuild.
pub(super) struct Table<V> {
    // The homes, and a few more places for entries near the end: entries do not wrap around.
    places: Vec<Option<Entry<V>>>,
    homes: usize,
    entries: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry<V> {
    name: Fingerprint,
    value: V,
}

/// The result of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swept {
    /// The place after the last one that was swept.
    pub(super) to: usize,
    /// The number of removed entries.
    pub(super) removed: usize,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { places: Vec::new(), homes: 0, entries: 0 }
    }
}

impl<V: Copy> Table<V> {
    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// The number of places, including free ones.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, name: Fingerprint) -> Option<&mut V> {
        for place in self.places.get_mut(home(name, self.homes)..)? {
            let entry = place.as_mut()?;
            if entry.name == name {
                return Some(&mut entry.value);
            }
            if entry.name.place() > name.place() {
                return None;
            }
        }
        None
    }

    /// Adds a value under a new name. If the table is full, idle entries are dropped first.
    pub(super) fn insert(&mut self, name: Fingerprint, value: V, is_idle: impl Fn(&V) -> bool) {
        if self.entries >= self.homes - self.homes / 8 {
            self.rebuild(self.entries + 1, is_idle);
        }
        if let Err(rejected) = self.place(Entry { name, value }) {
            // The places after the last home are full. This is rare, and the next rebuild corrects it.
            extend(&mut self.places, MOST_AFTER_THE_END);
            let _placed_now = self.place(rejected);
        }
    }

    /// Inserts an entry in order, and moves later entries up to the next gap. Returns the entry if there is no gap.
    fn place(&mut self, entry: Entry<V>) -> Result<(), Entry<V>> {
        let home = home(entry.name, self.homes);
        let Some(from_home) = self.places.get_mut(home..) else { return Err(entry) };
        let is_before = |place: &Option<Entry<V>>| {
            place.as_ref().is_some_and(|other| other.name.place() <= entry.name.place())
        };
        let before = from_home.iter().take_while(|place| is_before(place)).count();
        let Some(from_here) = from_home.get_mut(before..) else { return Err(entry) };
        let Some(gap) = from_here.iter().position(Option::is_none) else { return Err(entry) };
        if let Some([first, moved @ ..]) = from_here.get_mut(..=gap) {
            let mut carried = first.replace(entry);
            for place in moved {
                carried = std::mem::replace(place, carried);
            }
        }
        self.entries += 1;
        Ok(())
    }

    /// Removes a value.
    pub(super) fn remove(&mut self, name: Fingerprint) {
        let is_it = |place: &Option<Entry<V>>| place.as_ref().is_some_and(|entry| entry.name == name);
        let from_home = self.places.get(home(name, self.homes)..).unwrap_or_default();
        if let Some(after_home) = from_home.iter().take_while(|place| place.is_some()).position(is_it) {
            let at = home(name, self.homes) + after_home;
            self.sweep(at, 1, |_| true);
        }
    }

    /// Removes idle entries in the next `places` places, and closes the gaps.
    pub(super) fn sweep(&mut self, from: usize, places: usize, is_idle: impl Fn(&V) -> bool) -> Swept {
        let mut removed = 0;
        // The place the next entry can move to, if its home is not after it.
        let mut free = from;
        let to = from.saturating_add(places).min(self.places.len());
        for at in from..self.places.len() {
            let entry = self.places.get(at).copied().flatten();
            match entry {
                None if at >= to => break,
                None => free = at + 1,
                Some(entry) if at < to && is_idle(&entry.value) => {
                    self.set(at, None);
                    removed += 1;
                }
                // No entry before it was removed, so it stays.
                Some(_) if free == at && at >= to => break,
                Some(_) if free == at => free = at + 1,
                Some(entry) => {
                    free = free.max(home(entry.name, self.homes));
                    if free == at && at >= to {
                        break;
                    }
                    self.set(at, None);
                    self.set(free, Some(entry));
                    free += 1;
                }
            }
        }
        self.entries -= removed;
        Swept { to, removed }
    }

    fn set(&mut self, at: usize, entry: Option<Entry<V>>) {
        if let Some(place) = self.places.get_mut(at) {
            *place = entry;
        }
    }

    /// Frees memory if less than half of it is in use.
    pub(super) fn shrink(&mut self) {
        if self.entries < self.homes / 2 && self.places.len() > places_for(homes_for(0)) {
            self.rebuild(self.entries, |_| false);
        }
    }

    /// Moves all entries that are not idle to a new table for `entries` entries, less the idle ones.
    fn rebuild(&mut self, entries: usize, is_idle: impl Fn(&V) -> bool) {
        let is_idle = |entry: &&Entry<V>| is_idle(&entry.value);
        let idle = self.places.iter().flatten().filter(is_idle).count();
        let homes = homes_for(entries - idle);
        let mut places = Vec::new();
        extend(&mut places, places_for(homes));
        let mut free = 0;
        for entry in self.places.iter().flatten().filter(|entry| !is_idle(entry)) {
            free = free.max(home(entry.name, homes));
            if free == places.len() {
                extend(&mut places, MOST_AFTER_THE_END);
            }
            if let Some(place) = places.get_mut(free) {
                *place = Some(*entry);
            }
            free += 1;
        }
        *self = Self { places, homes, entries: self.entries - idle };
    }
}

/// The home of a name. Homes have the same order as names.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "less than `homes`")]
fn home(name: Fingerprint, homes: usize) -> usize {
    ((u128::from(name.place()) * homes as u128) >> 64) as usize
}

/// The number of homes for `entries` entries at a load of 7/10.
fn homes_for(entries: usize) -> usize {
    (entries * 10).div_ceil(7).max(4)
}

/// An entry is rarely more than a few dozen places after its home.
const MOST_AFTER_THE_END: usize = 32;

/// The number of places for `homes` homes.
fn places_for(homes: usize) -> usize {
    homes + (homes / 8).clamp(4, MOST_AFTER_THE_END)
}

/// Adds exactly `by` free places.
fn extend<E: Copy>(places: &mut Vec<Option<E>>, by: usize) {
    places.reserve_exact(by);
    places.resize(places.len() + by, None);
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, num::NonZeroU32};

    use proptest::prelude::*;

    use super::*;

    impl<V: Copy> Table<V> {
        /// Every entry is at or after its home, without a gap in between, and all are in order.
        fn is_sound(&self) -> bool {
            let mut before = 0;
            let mut gap = 0;
            let mut entries = 0;
            for (at, place) in self.places.iter().enumerate() {
                let Some(entry) = place else {
                    gap = at + 1;
                    continue;
                };
                let home = home(entry.name, self.homes);
                if at < home || home < gap || entry.name.place() < before {
                    return false;
                }
                before = entry.name.place();
                entries += 1;
            }
            entries == self.entries
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u64, u32),
        Remove(u64),
        /// Removes values below a bound, starting at a fraction of the table.
        Sweep(u32, usize, usize),
        Shrink,
    }

    /// Few names, many of which collide at one place or at the end.
    fn name(number: u64) -> Fingerprint {
        let place = match number % 4 {
            0 => number / 16 * (u64::MAX / 64),
            1 => u64::MAX - number / 16,
            2 => 0,
            _ => (1 << 63) + number / 8,
        };
        Fingerprint::new(place, number)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u64..800, 1_u32..100).prop_map(|(number, value)| Step::Put(number, value)),
            2 => (0_u64..800).prop_map(Step::Remove),
            1 => (1_u32..100, 0_usize..100, 0_usize..100)
                .prop_map(|(below, from, places)| Step::Sweep(below, from, places)),
            1 => Just(Step::Shrink),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_hash_map(steps in prop::collection::vec(step(), 1..600)) {
            let (mut table, mut model) = (Table::default(), HashMap::new());
            for step in steps {
                match step {
                    Step::Put(number, value) => {
                        let value = NonZeroU32::new(value).unwrap();
                        match table.get_mut(name(number)) {
                            Some(own) => *own = value,
                            None => table.insert(name(number), value, |_| false),
                        }
                        model.insert(number, value);
                    }
                    Step::Remove(number) => {
                        table.remove(name(number));
                        model.remove(&number);
                    }
                    Step::Sweep(below, from, places) => {
                        let from = from * table.places() / 100;
                        let may_go: Vec<_> = table.places.iter().skip(from).take(places).flatten().collect();
                        let gone = may_go.iter().filter(|entry| entry.value.get() < below).map(|entry| entry.name);
                        let gone: Vec<_> = gone.collect();
                        model.retain(|number, _| !gone.contains(&name(*number)));
                        let swept = table.sweep(from, places, |value| value.get() < below);
                        prop_assert_eq!(swept, Swept {
                            to: (from + places).min(table.places()),
                            removed: gone.len(),
                        });
                    }
                    Step::Shrink => table.shrink(),
                }
                prop_assert!(table.is_sound());
                prop_assert_eq!(table.len(), model.len());
            }
            for number in 0..800 {
                prop_assert_eq!(table.get_mut(name(number)).copied(), model.get(&number).copied());
            }
        }
    }

    fn filled(entries: u64) -> Table<NonZeroU32> {
        let mut table = Table::default();
        for number in 0..entries {
            let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            table.insert(Fingerprint::new(spread, number), NonZeroU32::MIN, |_| false);
        }
        table
    }

    #[test]
    fn is_never_much_larger_than_its_content() {
        for entries in (500..2_000).step_by(7) {
            let places = filled(entries).places();
            assert!(places as u64 * 65 <= entries * 100, "{places} places for {entries}");
        }
    }

    #[test]
    fn shrinks_with_its_content() {
        let mut table = filled(10_000);
        let full = table.places();
        while table.sweep(0, 64, |_| true).removed > 0 {
            table.shrink();
            assert!(table.is_sound());
        }
        while table.len() > 0 {
            table.sweep(0, table.places(), |_| true);
        }
        table.shrink();
        assert!(table.places() < full / 100, "{} of {full} are left", table.places());
    }

    #[test]
    fn drops_idle_entries_before_it_grows() {
        let mut table = filled(10_000);
        let full = table.places();
        for number in 0..20_000_u64 {
            let spread = number.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            table.insert(Fingerprint::new(spread, number + 1_000_000), NonZeroU32::MAX, |value| {
                *value == NonZeroU32::MIN
            });
        }
        assert!(table.is_sound());
        assert_eq!(table.len(), 20_000);
        assert!(table.places() < full * 5 / 2);
    }

    #[test]
    fn an_entry_has_no_padding() {
        assert_eq!(size_of::<Option<Entry<NonZeroU32>>>(), 20);
    }
}
