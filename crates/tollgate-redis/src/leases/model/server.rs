//! Redis: a count for each window.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tollgate_core::limit::{Counter, FixedWindow, PerWindow as _, Quota, Window};

use crate::limiter::{Charges, Exchange, Reply};

const SECOND: u64 = 1_000_000_000;

/// In nanoseconds since the Unix epoch.
pub(super) const START: u64 = 2_000_000_000 * SECOND;

/// The lengths of the windows, in seconds.
const LENGTHS: [u64; 2] = [2, 10];

pub(super) const QUOTAS: usize = LIMITS.len();
const LIMITS: [[u64; 2]; 3] = [[20, 60], [90, 300], [400, 900]];

pub(super) fn quota(at: usize) -> Quota {
    let [short, long] = LIMITS[at];
    let [of_short, of_long] = LENGTHS.map(|length| Window::lasting(Duration::from_secs(length)));
    short.per(of_short).and(long.per(of_long))
}

pub(super) fn instant(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// Which limit, and the second in which the window ends.
type WindowOf = (usize, u64);

pub(super) type Counts = BTreeMap<WindowOf, u64>;

pub(super) fn add(to: &mut Counts, window: WindowOf, units: u64) {
    if units > 0 {
        *to.entry(window).or_default() += units;
    }
}

/// Adds units to the windows of some counters.
pub(super) fn add_to_windows(to: &mut Counts, counters: &[Counter], units: u64) {
    for (limit, counter) in counters.iter().enumerate() {
        add(to, (limit, fixed(counter).ends_at), units);
    }
}

pub(super) fn fixed(counter: &Counter) -> FixedWindow {
    match counter {
        Counter::FixedWindow(counter) => *counter,
        other => unreachable!("each quota has fixed windows: {other:?}"),
    }
}

/// When each window ends that contains this instant, in seconds.
pub(super) fn ends(now: u64) -> [u64; 2] {
    LENGTHS.map(|length| (now / SECOND / length + 1) * length)
}

#[derive(Default)]
pub(super) struct Server {
    counts: Counts,
}

impl Server {
    pub(super) fn call(&mut self, charges: &Charges, exchange: &Exchange<'_>, now: u64) -> Reply {
        if let Some((units, counters)) = exchange.returned {
            for (limit, counter) in counters.iter().enumerate() {
                let count = self.counts.get_mut(&(limit, fixed(counter).ends_at)).unwrap();
                *count = count.checked_sub(units).expect("not more than was counted");
            }
        }
        let ends = ends(now);
        let used = [0, 1].map(|limit| self.counts.get(&(limit, ends[limit])).copied().unwrap_or(0));
        let counters =
            [0, 1].map(|limit| Counter::FixedWindow(FixedWindow { ends_at: ends[limit], used: used[limit] }));
        let (charge, limits) = (&charges.all[0], charges.all[0].quota.limits());
        let rooms = [0, 1].map(|limit| limits[limit].limit.checked_sub(used[limit] + charge.cost));
        let is_allowed = charge.required == 0 || rooms.iter().all(Option::is_some);
        let mut lent = 0;
        if is_allowed && charge.cost > 0 {
            lent = rooms.into_iter().flatten().map(|room| room / 8).min().unwrap().min(exchange.wanted);
            add_to_windows(&mut self.counts, &counters, charge.cost + lent);
        }
        Reply { is_allowed, lent, at: instant(now), counters: counters.into_iter().collect() }
    }

    /// All windows that have counted anything.
    pub(super) fn counts(&self) -> Counts {
        self.counts.clone().into_iter().filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn holds_at_most_the_largest_quota(&self) {
        for ((limit, _), count) in &self.counts {
            assert!(*count <= LIMITS[QUOTAS - 1][*limit], "{:?}", self.counts);
        }
    }
}
