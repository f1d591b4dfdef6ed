//! Timestamps in the tables: whole microseconds since 1970-01-01 UTC, rounded down.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The timestamp of an instant, limited to 292,000 years before and after 1970.
pub(crate) fn to_micros(instant: SystemTime) -> i64 {
    match instant.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration().as_nanos().div_ceil(1_000);
            i64::try_from(before).map_or(i64::MIN, |before| -before)
        }
    }
}

/// The instant of a timestamp; 1970 if the platform cannot represent it, so that such an expiry has passed.
pub(crate) fn from_micros(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let instant =
        if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    instant.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_round_down_to_microseconds() {
        for (nanos, micros) in [(0, 0), (1_999, 1), (1_700_000_000_123_456_789, 1_700_000_000_123_456)] {
            assert_eq!(to_micros(UNIX_EPOCH + Duration::from_nanos(nanos)), micros);
            assert_eq!(to_micros(from_micros(micros)), micros);
        }
        assert_eq!(to_micros(UNIX_EPOCH - Duration::from_nanos(1)), -1);
        assert_eq!(from_micros(-1), UNIX_EPOCH - Duration::from_micros(1));
        assert_eq!(to_micros(from_micros(i64::MAX)), i64::MAX);
    }
}
