//! Where a counter stands, read from its record.

use std::{
    cmp::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tollgate_core::limit::{Counter, FixedWindow, Quota, SlidingWindow, TokenBucket, Window, WindowLimit};

use crate::limiter::{key_name::KeyName, nanos_of_pair};

/// Where one window of a subject stands, or its token bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterState {
    /// The group, usually a tenant.
    pub group: Box<str>,
    /// The policy.
    pub policy: Box<str>,
    /// The subject, such as the identifier of a key.
    pub subject: Box<str>,
    /// The limit by which a request was last counted. The quota of the subject may have changed since.
    pub limit: WindowLimit,
    /// How much is used, what processes have borrowed included. May exceed the limit after the quota was lowered, or after a charge
    /// whose cost was known later.
    pub used: u64,
    /// When the whole limit is available again, if nothing more is counted until then: a whole second.
    pub resets_at: SystemTime,
}

impl CounterState {
    /// How much can still be admitted.
    pub fn remaining(&self) -> u64 {
        self.limit.capacity().saturating_sub(self.used)
    }

    /// The counters of a record, without those of which nothing is used.
    pub(super) fn read<'r>(
        name: &'r KeyName,
        record: &'r str,
        now: SystemTime,
    ) -> impl Iterator<Item = Self> + 'r {
        record.split(';').filter_map(move |entry| {
            let (limit, counter) = read_entry(entry)?;
            let counter = counter.at(&limit, now);
            let used = counter.used(&limit, now);
            let resets_at = UNIX_EPOCH.checked_add(Duration::from_secs(counter.resets_at(&limit)))?;
            let KeyName { group, policy, subject } = name.clone();
            (used > 0).then_some(Self { group, policy, subject, limit, used, resets_at })
        })
    }

    /// By group, policy, subject, window and limit.
    pub(super) fn in_order(one: &Self, other: &Self) -> Ordering {
        let names = |state: &Self| (state.group.clone(), state.policy.clone(), state.subject.clone());
        let limits = |state: &Self| (state.limit.window, state.limit.limit);
        names(one).cmp(&names(other)).then_with(|| limits(one).cmp(&limits(other)))
    }
}

/// An entry of a record: `60f 1767225660 600 1767225660 12`. See `decide.lua` and the arguments in `call.rs`.
fn read_entry(entry: &str) -> Option<(WindowLimit, Counter)> {
    let mut fields = entry.split(' ');
    let (id, _resets, most) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
    let numbers = fields.map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let (window, algorithm) = id.split_at_checked(id.len().checked_sub(1)?)?;
    let window = match window.strip_prefix('m') {
        Some(day) => Window::month_from(day.parse().ok()?),
        None => Window::lasting(Duration::from_secs(window.parse().ok()?)),
    };
    let quota = Quota::new(most, window);
    let (quota, counter) = match (algorithm, numbers.as_slice()) {
        ("f", &[ends_at, used]) => (quota, Counter::FixedWindow(FixedWindow { ends_at, used })),
        ("s", &[ends_at, used, used_before]) => {
            (quota.sliding(), Counter::SlidingWindow(SlidingWindow { ends_at, used, used_before }))
        }
        ("b", &[full, full_nanos, as_of, as_of_nanos, interval, interval_nanos]) => {
            let interval = nanos_of_pair(interval, interval_nanos);
            let bucket = TokenBucket {
                full_at: nanos_of_pair(full, full_nanos),
                as_of: nanos_of_pair(as_of, as_of_nanos),
                interval,
            };
            // The interval was rounded up, so the rate is, too.
            let per_window = window.length().as_nanos().div_ceil(interval.max(1).into());
            let quota = Quota::new(u64::try_from(per_window).ok()?, window).with_burst(most);
            (quota, Counter::TokenBucket(bucket))
        }
        _ => return None,
    };
    Some((*quota.limits().first()?, counter))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sunday, 2026-03-01, noon.
    const NOW: u64 = 1_772_366_400;

    fn read(record: &str, after: Duration) -> Vec<(String, u64, u64, u64)> {
        let name = KeyName { group: "acme".into(), policy: "key".into(), subject: "ada".into() };
        let now = UNIX_EPOCH + Duration::from_secs(NOW) + after;
        let seconds = |instant: SystemTime| instant.duration_since(UNIX_EPOCH).unwrap().as_secs() - NOW;
        CounterState::read(&name, record, now)
            .map(|state| (state.limit.to_string(), state.used, state.remaining(), seconds(state.resets_at)))
            .collect()
    }

    #[test]
    fn windows_of_each_kind_are_read() {
        let second = Duration::from_secs(1);
        let minute = format!("60f {} 600 {} 12", NOW + 60, NOW + 60);
        assert_eq!(read(&minute, second), [("600 per minute".to_owned(), 12, 588, 60)]);
        assert_eq!(read(&minute, second * 60), [], "the window has ended");

        let hour = format!("3600s {} 1000 {} 40 20", NOW + 7_200, NOW + 3_600);
        assert_eq!(read(&hour, second * 1_800), [("1000 per sliding hour".to_owned(), 50, 950, 7_200)]);

        let month = format!("m17f {} 5 {} 7", NOW + 1_339_200, NOW + 1_339_200);
        let lowered = [("5 per month from day 17".to_owned(), 7, 0, 1_339_200)];
        assert_eq!(read(&month, second), lowered, "more is used than the limit");

        let both = format!("{minute};{month}");
        assert_eq!(read(&both, second).len(), 2);
    }

    #[test]
    fn buckets_are_read_with_their_rate() {
        for per_second in [1, 3, 7, 10, 1_000] {
            let interval = 1_000_000_000_u64.div_ceil(per_second);
            let (full, nanos) = (NOW + 2 * interval / 1_000_000_000, 2 * interval % 1_000_000_000);
            let (seconds, rest) = (interval / 1_000_000_000, interval % 1_000_000_000);
            let bucket = format!("1b {} 30 {full} {nanos} {NOW} 0 {seconds} {rest}", full + 1);
            let [(limit, used, remaining, _)] = &read(&bucket, Duration::ZERO)[..] else {
                panic!("{bucket}")
            };
            assert_eq!(*limit, format!("{per_second} per second in bursts of 30"));
            assert_eq!((*used, *remaining), (2, 28));
        }
    }

    #[test]
    fn what_another_program_has_written_is_left_out() {
        for record in [
            "",
            ";",
            "60f",
            "60f 1 2",
            "60f 1 2 3",
            "60x 1 2 3 4",
            "f 1 2 3 4",
            "é 1 2 3 4",
            "60f a b c d",
            "60f 1 2 3 -4",
        ] {
            assert_eq!(read(record, Duration::ZERO), [], "{record}");
        }
    }
}
