//! Identifiers of requests.

use std::time::{Duration, SystemTime};

use http::HeaderValue;
use uuid::{NoContext, Timestamp, Uuid};

/// A new UUID version 7 (RFC 9562 section 5.7), which starts with the milliseconds of `now`.
pub(crate) fn new_request_id(now: SystemTime) -> HeaderValue {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LATEST);
    let time = Timestamp::from_unix(NoContext, since_epoch.as_secs(), since_epoch.subsec_nanos());
    let mut text = Uuid::encode_buffer();
    let text = Uuid::new_v7(time).hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}

/// The milliseconds of a UUID have 48 bits.
const LATEST: Duration = Duration::from_millis((1 << 48) - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_uuid_of_version_7_that_starts_with_the_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(0x0192_3456_789a);
        let [one, other] = [new_request_id(now), new_request_id(now)];
        assert_ne!(one, other);
        let one = one.to_str().unwrap();
        assert!(one.starts_with("01923456-789a-7"), "{one}");
        assert_eq!(Uuid::parse_str(one).unwrap().get_version_num(), 7);
    }

    #[test]
    fn accepts_times_that_a_uuid_cannot_represent() {
        for now in [
            SystemTime::UNIX_EPOCH - Duration::from_secs(1),
            SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50),
        ] {
            assert_eq!(new_request_id(now).len(), 36);
        }
    }
}
