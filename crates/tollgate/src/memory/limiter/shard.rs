//! The subjects behind one lock.

use tollgate_core::{Charge, Counter, WindowState};

use super::{
    fingerprint::Fingerprint,
    subject::{self, Shapes, Subject, WINDOWS, Windows},
    table::Table,
    wide::WideSubjects,
};

/// How many places a sweep looks at, and how often that is doubled at most, while it finds much to clear away.
const PLACES_PER_SWEEP: usize = 64;
const MOST_DOUBLINGS: u32 = 4;

/// How often the requests of a shard sweep: two places for each request, while there is little to clear away.
const REQUESTS_PER_SWEEP: u32 = 32;

#[derive(Default)]
pub(super) struct Shard {
    // Requests that were counted here.
    requests: u32,
    subjects: Table<Subject>,
    shapes: Shapes,
    // Those that the table is too narrow for: usually none.
    wide: Option<Box<WideSubjects>>,
    // Where the last sweep of this shard ended, and how often the next one's length is doubled.
    swept_to: usize,
    doublings: u32,
}

impl Shard {
    /// How many subjects there are, those whose windows have passed included.
    pub(super) fn subjects(&self) -> usize {
        self.subjects.len() + self.wide.as_ref().map_or(0, |wide| wide.len())
    }

    /// How many subjects there is room for.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.subjects.places() + self.wide.as_ref().map_or(0, |wide| wide.places())
    }

    /// Weighs a request against one charge and counts it if there is room, and tells what the counters were before. `None`, and
    /// nothing is done, if the subject is not one that is known by just these windows.
    #[inline]
    pub(super) fn take(
        &mut self,
        name: Fingerprint,
        charge: &Charge<'_>,
        cost: u64,
        second: u64,
    ) -> Option<[Counter; WINDOWS]> {
        let subject = self.subjects.get_mut(name)?;
        let shape = self.shapes.get(subject.shape())?;
        subject.take(shape, charge.quota.limits(), cost, second)
    }

    /// Where a charge's windows stand, before anything is taken.
    pub(super) fn states<'c>(
        &mut self,
        name: Fingerprint,
        charge: &'c Charge<'_>,
        second: u64,
    ) -> impl Iterator<Item = WindowState> + use<'c> {
        let windows = self.windows(name);
        charge.quota.limits().iter().map(move |limit| {
            let own = windows.iter().find(|(own, _)| *own == limit.window);
            let counter = own.map(|(_, counter)| *counter).unwrap_or_default();
            WindowState::new(charge.policy, limit.window, limit.limit, counter.at(limit.window, second))
        })
    }

    fn windows(&mut self, name: Fingerprint) -> Windows {
        if let Some(subject) = self.subjects.get_mut(name) {
            return self.shapes.get(subject.shape()).map(|shape| subject.windows(shape)).unwrap_or_default();
        }
        self.wide_mut(name).cloned().unwrap_or_default()
    }

    fn wide_mut(&mut self, name: Fingerprint) -> Option<&mut Windows> {
        self.wide.as_mut()?.get_mut(name)
    }

    /// Takes over what was decided about a subject.
    pub(super) fn record(&mut self, name: Fingerprint, states: &[WindowState], second: u64) {
        let known = self.subjects.get_mut(name);
        let known = known.and_then(|subject| Some((self.shapes.get(subject.shape())?, subject)));
        let is_recorded = known.and_then(|(shape, subject)| subject.record(shape, states)).is_some();
        if !is_recorded {
            self.reshape(name, states, second);
        }
    }

    /// The same for a subject that is new, is wide, or does not fit as it was.
    #[cold]
    fn reshape(&mut self, name: Fingerprint, states: &[WindowState], second: u64) {
        let mut windows = self.windows(name);
        subject::merge(&mut windows, states, second);
        if windows.is_empty() {
            return;
        }
        let is_idle = |subject: &Subject| subject.is_idle(second);
        if let Some(wide) = self.wide_mut(name) {
            *wide = windows;
        } else if let Some(subject) = Subject::new(&mut self.shapes, &windows) {
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
    pub(super) fn sweep(&mut self, second: u64) {
        if let Some(wide) = &mut self.wide {
            wide.sweep(second);
            if wide.len() == 0 {
                self.wide = None;
            }
        }
        let all = self.subjects.places();
        if self.swept_to >= all {
            self.swept_to = 0;
        }
        let places = PLACES_PER_SWEEP << self.doublings;
        let swept = self.subjects.sweep(self.swept_to, places, |subject| subject.is_idle(second));
        let is_worth_more = swept.removed > (swept.to - self.swept_to) / 4;
        self.doublings = if is_worth_more { (self.doublings + 2).min(MOST_DOUBLINGS) } else { 0 };
        self.subjects.shrink();
        // A smaller table has the same order: what was swept of it is still the same part.
        self.swept_to = swept.to * self.subjects.places() / all.max(1);
    }
}
