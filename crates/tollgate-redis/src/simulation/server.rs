//! Redis, and what its script does with a call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;
use tollgate_core::limit::{Algorithm, Counter, WindowLimit};

use crate::limiter::{Charges, Exchange, Reply};

/// The counters of each subject. Subjects have one charge each.
pub(super) struct Server {
    counters: Vec<SmallVec<[Counter; 4]>>,
}

impl Server {
    pub(super) fn new(subjects: usize) -> Self {
        Self { counters: vec![SmallVec::new(); subjects] }
    }

    /// Checks all limits and counts in all of them or in none, as `decide.lua` does.
    pub(super) fn call(
        &mut self,
        subject: usize,
        charges: &Charges,
        exchange: &Exchange<'_>,
        now: SystemTime,
    ) -> Reply {
        let record = &mut self.counters[subject];
        if record.is_empty() {
            *record = charges.limits().map(|(_, limit)| Counter::new(limit.algorithm)).collect();
        }
        if let Some((units, counted)) = exchange.returned {
            for ((counter, counted), (_, limit)) in record.iter_mut().zip(counted).zip(charges.limits()) {
                give_back(counter, counted, units, limit);
            }
        }
        let counters: SmallVec<[Counter; 4]> =
            charges.limits().zip(record.iter()).map(|((_, limit), counter)| counter.at(limit, now)).collect();
        let is_allowed = charges.decide(&counters, now).is_allowed();
        let mut lent = 0;
        if is_allowed {
            let rooms = charges
                .limits()
                .zip(&counters)
                .map(|((charge, limit), counter)| room(counter, limit, charge.cost, now));
            lent = rooms.map(|room| room / SHARE).min().unwrap_or(0).min(exchange.wanted);
            for (kept, ((charge, limit), counter)) in record
                .iter_mut()
                .zip(charges.limits().zip(&counters))
                .filter(|(_, ((charge, _), _))| charge.cost > 0)
            {
                *kept = counter.counting(limit, charge.cost + lent);
            }
        }
        Reply { is_allowed, lent, at: now, counters }
    }
}

const SHARE: u64 = 8;

fn give_back(counter: &mut Counter, lease: &Counter, units: u64, limit: &WindowLimit) {
    match (counter, lease) {
        (Counter::FixedWindow(counter), Counter::FixedWindow(lease)) if counter.ends_at == lease.ends_at => {
            counter.used = counter.used.saturating_sub(units);
        }
        (Counter::SlidingWindow(counter), Counter::SlidingWindow(lease)) => {
            if counter.ends_at == lease.ends_at {
                counter.used = counter.used.saturating_sub(units);
            } else if counter.ends_at == limit.window.end_after(lease.ends_at) {
                counter.used_before = counter.used_before.saturating_sub(units);
            }
        }
        _ => {}
    }
}

fn room(counter: &Counter, limit: &WindowLimit, cost: u64, now: SystemTime) -> u64 {
    match limit.algorithm {
        Algorithm::TokenBucket { .. } => 0,
        Algorithm::SlidingWindow => limit.limit.saturating_sub(counter.used(limit, now) + cost + 1),
        _ => limit.limit.saturating_sub(counter.used(limit, now) + cost),
    }
}

/// The instant of a number of nanoseconds since the Unix epoch.
pub(super) fn instant(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}
