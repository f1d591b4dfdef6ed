//! Instants as the tables hold them: whole microseconds since 1970, cut off towards the past.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

/// An instant as the history tells it: `2026-07-31T12:00:00Z`, or `never`.
pub(crate) struct Told(pub(crate) Option<SystemTime>);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(instant) = self.0 else { return f.write_str("never") };
        let seconds = to_micros(instant).div_euclid(1_000_000);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years that begin in March, in eras of 400: the leap day is the last one then.
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
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

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, told) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_826_154, "2000-02-29T12:09:14Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(Told(Some(UNIX_EPOCH + Duration::from_secs(seconds))).to_string(), told);
        }
        assert_eq!(Told(Some(UNIX_EPOCH - Duration::from_secs(1))).to_string(), "1969-12-31T23:59:59Z");
        assert_eq!(Told(None).to_string(), "never");
    }
}
