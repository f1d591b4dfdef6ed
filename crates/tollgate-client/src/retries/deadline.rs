//! The deadline of a gRPC request: `grpc-timeout` (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// When the caller of a gRPC request gives it up.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl Deadline {
    /// `None` if the request has no deadline.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let timeout = parse(headers.get(GRPC_TIMEOUT)?)?;
        Instant::now().checked_add(timeout).map(Self)
    }

    /// The time that is left.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Writes the time that is left to the headers of the next try.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(format(self.left())) {
            headers.insert(GRPC_TIMEOUT, value);
        }
    }
}

/// At most 8 digits, and a unit.
fn parse(value: &HeaderValue) -> Option<Duration> {
    let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// In milliseconds if they have at most 8 digits, otherwise in seconds. Rounded down.
fn format(timeout: Duration) -> String {
    const MAX: u128 = 99_999_999;
    match timeout.as_millis() {
        millis @ ..=MAX => format!("{millis}m"),
        millis => format!("{}S", (millis / 1000).min(MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &'static str) -> Option<Duration> {
        parse(&HeaderValue::from_static(text))
    }

    #[test]
    fn reads_each_unit() {
        for (text, seconds) in [
            ("2H", 7200.0),
            ("3M", 180.0),
            ("5S", 5.0),
            ("5m", 0.005),
            ("5u", 0.000_005),
            ("5n", 0.000_000_005),
        ] {
            assert_eq!(parsed(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "S", "5", "5s", "-5S", "+5S", "5 S", "123456789S", "5.5S"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
        assert_eq!(parse(&HeaderValue::from_bytes(b"5\xff").unwrap()), None);
    }

    #[test]
    fn writes_at_most_eight_digits() {
        assert_eq!(format(Duration::from_micros(1_999)), "1m");
        assert_eq!(format(Duration::from_millis(99_999_999)), "99999999m");
        assert_eq!(format(Duration::from_secs(100_000)), "100000S");
        assert_eq!(format(Duration::MAX), "99999999S");
    }
}
