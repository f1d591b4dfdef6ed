//! A process: the leases and the choice for an outage of this crate, and what it knows.

use std::{collections::HashMap, time::SystemTime};

use super::{
    load::{Request, SECOND, START, Setting},
    random::Random,
    server::instant,
};
use crate::{
    leases::{LeaseTable, Leases},
    limiter::Outages,
};

/// A process.
pub(super) struct Process {
    pub(super) table: LeaseTable,
    /// Requests that wait for the answer about their subject.
    pub(super) waiting: HashMap<usize, Vec<Request>>,
    pub(super) outages: Outages,
    /// How often it was started.
    pub(super) life: u32,
    pub(super) clock: Clock,
    pub(super) cut_until: u64,
    pub(super) is_up: bool,
    pub(super) unanswered: u32,
}

impl Process {
    pub(super) fn new(leases: Leases, clock: Clock, life: u32) -> Self {
        Self {
            table: LeaseTable::new(leases),
            waiting: HashMap::new(),
            outages: Outages::default(),
            life,
            clock,
            cut_until: 0,
            is_up: true,
            unanswered: 0,
        }
    }
}

/// The clocks of a process.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// How far the wall clock is behind or ahead, in seconds.
    skew: i64,
    /// The monotonic clock starts anywhere, and is too fast or too slow by this many millionths.
    started_at: u64,
    drift: i64,
}

impl Clock {
    pub(super) fn new(setting: &Setting, random: &mut Random) -> Self {
        let started_at = START - random.below(3_600 * SECOND);
        let mut about_zero = |most: i64| random.below(2 * most as u64 + 1) as i64 - most;
        if setting.has_faults {
            Self { skew: about_zero(30), started_at, drift: about_zero(100) }
        } else {
            Self { skew: 0, started_at, drift: 0 }
        }
    }

    pub(super) fn elapsed(&self, now: u64) -> u64 {
        let elapsed = now - self.started_at;
        elapsed.saturating_add_signed(elapsed as i64 / 1_000_000 * self.drift)
    }

    pub(super) fn wall(&self, now: u64) -> SystemTime {
        instant(now.saturating_add_signed(self.skew * SECOND as i64))
    }
}
