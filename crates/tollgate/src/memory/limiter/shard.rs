//! The subjects behind one lock.

use tollgate_core::limit::{Charge, FixedWindow};

use super::{
    fingerprint::{Fingerprint, Fingerprinter},
    room::Room,
    subject::{self, SLOTS, Shapes, Subject, Windows},
    table::Table,
    wide::WideSubjects,
};

/// How many places a sweep looks at, and how often that is doubled at most, while it finds much to clear away.
const PLACES_PER_SWEEP: usize = 64;
const MOST_DOUBLINGS: u32 = 4;

/// How often the requests of a shard sweep: two places for each request, while there is little to clear away.
const REQUESTS_PER_SWEEP: u32 = if cfg!(tollgate_loom) { 1 } else { 32 };

#[derive(Default)]
pub(super) struct Shard {
    // Requests that were counted here.
    requests: u32,
    subjects: Table<Subject>,
    shapes: Shapes,
    // Those that the table is too narrow for: usually none.
    wide: Option<Box<WideSubjects>>,
    // The second until which there may be crowds here.
    crowded_until: u64,
    // Where the last sweep of this shard ended, and how often the next one's length is doubled.
    swept_to: usize,
    doublings: u32,
}

/// Whose counters are asked for.
#[derive(Clone, Copy)]
pub(super) struct Name<'l> {
    pub(super) own: Fingerprint,
    pub(super) policy: &'static str,
    pub(super) fingerprinter: &'l Fingerprinter,
}

/// So many crowds of one policy there may be in a shard.
const CROWDS: u64 = 64;

impl Name<'_> {
    /// By which those who find no room share counters with others.
    fn crowd(&self) -> Fingerprint {
        self.fingerprinter.of_crowd(self.policy, self.own.place() % CROWDS)
    }
}

impl Shard {
    /// How many subjects there are, those whose windows have passed included.
    pub(super) fn subjects(&self) -> usize {
        self.subjects.len() + self.wide.as_ref().map_or(0, |wide| wide.len())
    }

    /// How many subjects there is room for.
    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn places(&self) -> usize {
        self.subjects.places() + self.wide.as_ref().map_or(0, |wide| wide.places())
    }

    /// Weighs a request against one charge and counts it if there is room, and tells what the counters were before. `None`, and
    /// nothing is done, if the subject is not one that is known by just these windows, all of them aligned.
    #[inline]
    pub(super) fn take(
        &mut self,
        name: Fingerprint,
        charge: &Charge<'_>,
        second: u64,
    ) -> Option<[FixedWindow; SLOTS]> {
        let subject = self.subjects.get_mut(name)?;
        let shape = self.shapes.get(subject.shape())?;
        subject.take(shape, charge.quota.limits(), (charge.required, charge.cost), second)
    }

    /// The same, and nothing is counted.
    pub(super) fn look(
        &mut self,
        name: Fingerprint,
        charge: &Charge<'_>,
        second: u64,
    ) -> Option<[FixedWindow; SLOTS]> {
        let mut copy = *self.subjects.get_mut(name)?;
        let shape = self.shapes.get(copy.shape())?;
        copy.take(shape, charge.quota.limits(), (charge.required, charge.cost), second)
    }

    /// What is known of a subject. One that is new begins with what its crowd has used, if there is one: or whoever was counted
    /// there would begin anew.
    pub(super) fn windows(&mut self, name: Name<'_>, second: u64) -> Windows {
        let own = self.windows_of(name.own);
        if own.is_none() && second < self.crowded_until {
            return self.windows_of(name.crowd()).unwrap_or_default();
        }
        own.unwrap_or_default()
    }

    fn windows_of(&mut self, name: Fingerprint) -> Option<Windows> {
        if let Some(subject) = self.subjects.get_mut(name) {
            return self.shapes.get(subject.shape()).map(|shape| subject.windows(shape));
        }
        self.wide.as_ref()?.get(name)
    }

    /// Takes over what was counted for a subject.
    pub(super) fn record(&mut self, name: Name<'_>, counted: &Windows, second: u64, room: &Room) {
        if counted.is_empty() {
            return;
        }
        let mut windows = self.windows(name, second);
        subject::merge(&mut windows, counted, second);
        if self.knows(name.own) {
            self.keep(name.own, &windows, second, room);
        } else if room.take() {
            self.add(name.own, &windows, second, room);
        } else {
            let crowd = name.crowd();
            let idle_from = windows.iter().map(|(window, counter)| subject::idle_from(*window, *counter));
            self.crowded_until = idle_from.fold(self.crowded_until, u64::max);
            if self.knows(crowd) {
                self.keep(crowd, &windows, second, room);
            } else {
                // Crowds are few, and must have a place where nobody else has.
                room.take_beyond();
                self.add(crowd, &windows, second, room);
            }
        }
    }

    fn knows(&mut self, name: Fingerprint) -> bool {
        self.subjects.get_mut(name).is_some() || self.wide.as_ref().is_some_and(|wide| wide.has(name))
    }

    /// Adds a subject, for which a place was taken.
    fn add(&mut self, name: Fingerprint, windows: &Windows, second: u64, room: &Room) {
        let expected = self.subjects() + 1;
        self.put(name, windows, second);
        room.give_back(expected.saturating_sub(self.subjects()));
    }

    /// Changes a subject that is known.
    fn keep(&mut self, name: Fingerprint, windows: &Windows, second: u64, room: &Room) {
        let expected = self.subjects();
        self.put(name, windows, second);
        room.give_back(expected.saturating_sub(self.subjects()));
    }

    /// Puts a subject where it fits, at the expense of those that are idle.
    fn put(&mut self, name: Fingerprint, windows: &Windows, second: u64) {
        let is_idle = |subject: &Subject| subject.is_idle(second);
        if self.wide.as_mut().is_some_and(|wide| wide.replace(name, windows)) {
            return;
        }
        if let Some(subject) = Subject::new(&mut self.shapes, windows) {
            match self.subjects.get_mut(name) {
                Some(own) => *own = subject,
                None => self.subjects.insert(name, subject, is_idle),
            }
        } else {
            self.subjects.remove(name);
            self.wide.get_or_insert_default().insert(name, windows, second);
        }
    }

    /// Counts a request, and gives the sweep that is due after it, if one is, its number.
    #[inline]
    pub(super) fn next_sweep(&mut self) -> Option<u32> {
        self.requests = self.requests.wrapping_add(1);
        self.requests.is_multiple_of(REQUESTS_PER_SWEEP).then_some(self.requests / REQUESTS_PER_SWEEP)
    }

    /// Drops some of the subjects whose windows have passed. While there are many of them, it goes further each time: so a
    /// flood is cleared away at the expense of those who come next, and each of its subjects costs no more than its arrival did.
    pub(super) fn sweep(&mut self, second: u64, room: &Room) {
        let before = self.subjects();
        let places = PLACES_PER_SWEEP << self.doublings;
        let mut is_worth_more = false;
        if let Some(wide) = &mut self.wide {
            is_worth_more = wide.sweep(places, second);
            if wide.len() == 0 {
                self.wide = None;
            }
        }
        let all = self.subjects.places();
        if self.swept_to >= all {
            self.swept_to = 0;
        }
        let swept = self.subjects.sweep(self.swept_to, places, |subject| subject.is_idle(second));
        is_worth_more |= swept.removed > (swept.to - self.swept_to) / 4;
        self.doublings = if is_worth_more { (self.doublings + 2).min(MOST_DOUBLINGS) } else { 0 };
        self.subjects.shrink();
        // A smaller table has the same order: what was swept of it is still the same part.
        self.swept_to = swept.to * self.subjects.places() / all.max(1);
        room.give_back(before.saturating_sub(self.subjects()));
    }
}
