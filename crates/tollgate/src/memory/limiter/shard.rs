//! The subjects behind one lock.

use tollgate_core::limit::{Charge, FixedWindow};

use super::{
    capacity::Capacity,
    charged_subjects::ChargedSubjects,
    fingerprint::{Fingerprint, Fingerprinter},
    large::LargeSubjects,
    subject::{self, SLOTS, Shapes, Subject, Windows},
    table::Table,
};

/// The number of places in one sweep, and the maximum number of times it is doubled while many idle subjects are found.
const PLACES_PER_SWEEP: usize = 64;
const MOST_DOUBLINGS: u32 = 4;

/// One sweep per 32 requests of a shard: two places per request, if few idle subjects are found.
const REQUESTS_PER_SWEEP: u32 = if cfg!(tollgate_loom) { 1 } else { 32 };

#[derive(Default)]
pub(super) struct Shard {
    // The number of requests counted here.
    requests: u32,
    subjects: Table<Subject>,
    shapes: Shapes,
    // Subjects that do not fit into the table: usually none.
    large: Option<Box<LargeSubjects>>,
    // The second until which shared counters can be in use.
    shared_until: u64,
    // The new subjects for which shared counters were charged.
    charged: ChargedSubjects,
    // The end of the last sweep of this shard, and the number of times the next one is doubled.
    swept_to: usize,
    doublings: u32,
}

/// The name of a subject under a policy.
#[derive(Clone, Copy)]
pub(super) struct Name<'l> {
    pub(super) own: Fingerprint,
    pub(super) policy: &'static str,
    pub(super) fingerprinter: &'l Fingerprinter,
}

/// The number of shared counters per policy in a shard.
const SHARED_COUNTERS: u64 = 64;

impl Name<'_> {
    /// The counter that new subjects share when the limiter is full.
    fn shared_counter(&self) -> Fingerprint {
        self.fingerprinter.of_shared_counter(self.policy, self.own.place() % SHARED_COUNTERS)
    }
}

impl Shard {
    /// The number of subjects, including those whose windows have passed.
    pub(super) fn subjects(&self) -> usize {
        self.subjects.len() + self.large.as_ref().map_or(0, |large| large.len())
    }

    /// The number of subjects there is memory for.
    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn places(&self) -> usize {
        self.subjects.places() + self.large.as_ref().map_or(0, |large| large.places())
    }

    /// Counts a request against one charge if it fits. Returns the counters before that. `None`, without any change, if the
    /// subject is not known, or one of the limits is not an aligned window with a slot.
    #[inline]
    pub(super) fn acquire(
        &mut self,
        name: Fingerprint,
        charge: &Charge<'_>,
        second: u64,
    ) -> Option<[FixedWindow; SLOTS]> {
        let subject = self.subjects.get_mut(name)?;
        let shape = self.shapes.get(subject.shape())?;
        subject.acquire(shape, charge.quota.limits(), (charge.required, charge.cost), second)
    }

    /// Like [`acquire`](Self::acquire), but counts nothing.
    pub(super) fn peek(
        &mut self,
        name: Fingerprint,
        charge: &Charge<'_>,
        second: u64,
    ) -> Option<[FixedWindow; SLOTS]> {
        let mut copy = *self.subjects.get_mut(name)?;
        let shape = self.shapes.get(copy.shape())?;
        copy.acquire(shape, charge.quota.limits(), (charge.required, charge.cost), second)
    }

    /// The windows of a subject, for a charge of `cost`. A new subject that is charged starts with what its shared counter has used,
    /// if there is one: otherwise a subject counted there would start again at zero. A new subject that is charged neither now nor
    /// before has used nothing, so the use by others must not refuse it.
    pub(super) fn windows(&mut self, name: Name<'_>, cost: u64, second: u64) -> Windows {
        let own = self.windows_of(name.own);
        if own.is_none() && second < self.shared_until && (cost > 0 || self.charged.contains(name.own)) {
            return self.windows_of(name.shared_counter()).unwrap_or_default();
        }
        own.unwrap_or_default()
    }

    fn windows_of(&mut self, name: Fingerprint) -> Option<Windows> {
        if let Some(subject) = self.subjects.get_mut(name) {
            return self.shapes.get(subject.shape()).map(|shape| subject.windows(shape));
        }
        self.large.as_ref()?.get(name)
    }

    /// Stores what was counted for a subject that is charged.
    pub(super) fn record(&mut self, name: Name<'_>, counted: &Windows, second: u64, capacity: &Capacity) {
        if counted.is_empty() {
            return;
        }
        let mut windows = self.windows(name, 1, second);
        subject::merge(&mut windows, counted, second);
        if self.knows(name.own) {
            self.keep(name.own, &windows, second, capacity);
        } else if capacity.reserve() {
            self.add(name.own, &windows, second, capacity);
        } else {
            let shared = name.shared_counter();
            let idle_from = windows.iter().map(|(window, counter)| subject::idle_from(*window, *counter));
            self.shared_until = idle_from.fold(self.shared_until, u64::max);
            self.charged.remember(name.own);
            if self.knows(shared) {
                self.keep(shared, &windows, second, capacity);
            } else {
                // Shared counters are few, and are needed exactly when there is no capacity left.
                capacity.reserve_beyond_max();
                self.add(shared, &windows, second, capacity);
            }
        }
    }

    fn knows(&mut self, name: Fingerprint) -> bool {
        self.subjects.get_mut(name).is_some() || self.large.as_ref().is_some_and(|large| large.has(name))
    }

    /// Adds a subject. Its capacity is already reserved.
    fn add(&mut self, name: Fingerprint, windows: &Windows, second: u64, capacity: &Capacity) {
        let expected = self.subjects() + 1;
        self.put(name, windows, second);
        capacity.release(expected.saturating_sub(self.subjects()));
    }

    /// Changes a known subject.
    fn keep(&mut self, name: Fingerprint, windows: &Windows, second: u64, capacity: &Capacity) {
        let expected = self.subjects();
        self.put(name, windows, second);
        capacity.release(expected.saturating_sub(self.subjects()));
    }

    /// Stores a subject where it fits. May drop idle subjects.
    fn put(&mut self, name: Fingerprint, windows: &Windows, second: u64) {
        let is_idle = |subject: &Subject| subject.is_idle(second);
        if self.large.as_mut().is_some_and(|large| large.replace(name, windows)) {
            return;
        }
        if let Some(subject) = Subject::new(&mut self.shapes, windows) {
            match self.subjects.get_mut(name) {
                Some(own) => *own = subject,
                None => self.subjects.insert(name, subject, is_idle),
            }
        } else {
            self.subjects.remove(name);
            self.large.get_or_insert_default().insert(name, windows, second);
        }
    }

    /// Counts a request. Returns the number of the sweep that is due after it, if any.
    #[inline]
    pub(super) fn next_sweep(&mut self) -> Option<u32> {
        self.requests = self.requests.wrapping_add(1);
        self.requests.is_multiple_of(REQUESTS_PER_SWEEP).then_some(self.requests / REQUESTS_PER_SWEEP)
    }

    /// Drops some of the subjects whose windows have passed. It covers more places each time it finds many. The following
    /// requests clear away a flood, and dropping a subject costs no more than adding it did.
    pub(super) fn sweep(&mut self, second: u64, capacity: &Capacity) {
        let before = self.subjects();
        let places = PLACES_PER_SWEEP << self.doublings;
        let mut is_worth_more = false;
        if let Some(large) = &mut self.large {
            is_worth_more = large.sweep(places, second);
            if large.len() == 0 {
                self.large = None;
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
        if second >= self.shared_until {
            self.charged.clear();
        }
        // A smaller table has the same order, so the swept fraction stays the same.
        self.swept_to = swept.to * self.subjects.places() / all.max(1);
        capacity.release(before.saturating_sub(self.subjects()));
    }
}
