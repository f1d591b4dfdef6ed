//! Instants as the tables hold them: whole microseconds since 1970, cut off towards the past.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An instant in microseconds. What lies further away than 292,000 years is that far away.
pub(crate) fn to_micros(instant: SystemTime) -> i64 {
    match instant.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration().as_nanos().div_ceil(1_000);
            i64::try_from(before).map_or(i64::MIN, |before| -before)
        }
    }
}

/// The instant. What the machine cannot represent is 1970: an expiry has passed then.
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
    fn what_is_written_is_read_back_without_its_fractions() {
        for (nanos, micros) in [(0, 0), (1_999, 1), (1_700_000_000_123_456_789, 1_700_000_000_123_456)] {
            assert_eq!(to_micros(UNIX_EPOCH + Duration::from_nanos(nanos)), micros);
            assert_eq!(to_micros(from_micros(micros)), micros);
        }
        assert_eq!(to_micros(UNIX_EPOCH - Duration::from_nanos(1)), -1);
        assert_eq!(from_micros(-1), UNIX_EPOCH - Duration::from_micros(1));
        assert_eq!(to_micros(from_micros(i64::MAX)), i64::MAX);
    }
}
