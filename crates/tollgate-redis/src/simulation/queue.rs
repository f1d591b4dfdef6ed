//! What happens when.

use std::{cmp::Ordering, collections::BinaryHeap};

/// Events in the order of their times. Those of the same time keep the order in which they were added.
pub(super) struct Queue<E> {
    events: BinaryHeap<Planned<E>>,
    added: u64,
}

struct Planned<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self { events: BinaryHeap::new(), added: 0 }
    }

    pub(super) fn add(&mut self, at: u64, event: E) {
        self.added += 1;
        self.events.push(Planned { at, number: self.added, event });
    }

    /// The next event, if it happens before `end`.
    pub(super) fn next_before(&mut self, end: u64) -> Option<(u64, E)> {
        self.events.peek().filter(|next| next.at < end)?;
        self.events.pop().map(|next| (next.at, next.event))
    }
}

// The greatest element of a heap comes first.
impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Planned<E> {}
