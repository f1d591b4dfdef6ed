//! The identifier of one request.

use std::{cell::RefCell, fmt, time::SystemTime};

use http::HeaderValue;
use uuid::Uuid;

/// The identifier of a request: a valid one sent by the caller, or a UUID version 7 (RFC 9562 section 5.7).
#[derive(Clone)]
pub struct RequestId(Text);

#[derive(Clone)]
enum Text {
    // The caller's header value, shared without a copy.
    Given(HeaderValue),
    // The text of a UUID, stored inline without an allocation.
    Short([u8; UUID_LENGTH]),
}

const UUID_LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

impl RequestId {
    /// Generates an identifier. It starts with the milliseconds of `now`, so identifiers sort by time.
    pub fn generate(now: SystemTime) -> Self {
        let mut text = [0; UUID_LENGTH];
        new_uuid(now).hyphenated().encode_lower(&mut text);
        Self(Text::Short(text))
    }

    /// The identifier that a caller sent, if it matches `[A-Za-z0-9._-]{1,128}`. Other text is not accepted, because the identifier
    /// is written to logs and responses.
    pub fn from_caller(value: &HeaderValue) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let bytes = value.as_bytes();
        let is_well_formed = (1..=128).contains(&bytes.len()) && bytes.iter().all(is_plain);
        is_well_formed.then(|| Self(Text::Given(value.clone())))
    }

    /// The identifier that a caller sent, if it is a UUID of any version in hyphenated form (36 characters).
    pub fn uuid_from_caller(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let is_uuid = bytes.len() == UUID_LENGTH && Uuid::try_parse_ascii(bytes).is_ok();
        is_uuid.then(|| Self(Text::Given(value.clone())))
    }

    /// The identifier's text: printable ASCII.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The identifier as a header value.
    pub fn to_header_value(&self) -> HeaderValue {
        match &self.0 {
            Text::Given(value) => value.clone(),
            Text::Short(text) => {
                HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
            }
        }
    }
}

impl RequestId {
    /// The bytes of [`as_str`](Self::as_str).
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Given(value) => value.as_bytes(),
            Text::Short(text) => text,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RequestId {}

/// A new UUID version 7, starting with the milliseconds of `now`.
pub(crate) fn new_uuid(now: SystemTime) -> Uuid {
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let millis = u64::try_from(millis).unwrap_or(u64::MAX);
    uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes()).into_uuid()
}

const BYTES_PER_ID: usize = 10;

/// Random bytes from the operating system, taken from a pool per thread: a system call for every identifier would cost more
/// than the rest of the layer.
fn random_bytes() -> [u8; BYTES_PER_ID] {
    const IDS_PER_FILL: usize = 64;

    struct Pool {
        bytes: [[u8; BYTES_PER_ID]; IDS_PER_FILL],
        left: usize,
    }

    thread_local! {
        static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [[0; BYTES_PER_ID]; IDS_PER_FILL], left: 0 }) };
    }

    POOL.with_borrow_mut(|pool| {
        if pool.left == 0 && getrandom::fill(pool.bytes.as_flattened_mut()).is_ok() {
            pool.left = IDS_PER_FILL;
        }
        // If the operating system returns no random bytes, identifiers consist of the time only.
        pool.left = pool.left.saturating_sub(1);
        pool.bytes.get_mut(pool.left).map(std::mem::take).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn generates_distinct_uuids_of_version_7_that_start_with_the_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(0x0192_3456_789a);
        let ids: HashSet<_> = (0..1_000).map(|_| RequestId::generate(now).to_string()).collect();
        assert_eq!(ids.len(), 1_000);
        for id in ids {
            assert!(id.starts_with("01923456-789a-7"), "{id}");
            assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        }
    }

    #[test]
    fn accepts_times_that_a_uuid_cannot_represent() {
        RequestId::generate(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        RequestId::generate(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50));
    }

    #[test]
    fn accepts_only_plain_text_from_callers() {
        let long = "x".repeat(129);
        for (sent, is_accepted) in [
            ("abc-123_X.y", true),
            (&long[..128], true),
            (&long, false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("<script>", false),
        ] {
            let value = HeaderValue::from_str(sent).unwrap();
            assert_eq!(RequestId::from_caller(&value).is_some(), is_accepted, "{sent}");
        }
        assert_eq!(RequestId::from_caller(&HeaderValue::from_bytes(b"caf\xe9").unwrap()), None);
    }

    #[test]
    fn accepts_uuids_only_in_hyphenated_form() {
        for (sent, is_accepted) in [
            ("0192a3b4-c5d6-7e8f-9012-3456789abcde", true),
            ("0192A3B4-C5D6-4E8F-9012-3456789ABCDE", true),
            ("0192a3b4c5d67e8f90123456789abcde", false),
            ("{0192a3b4-c5d6-7e8f-9012-3456789abc}", false),
            ("not-a-uuid-but-of-the-same-length-ok", false),
        ] {
            let value = HeaderValue::from_static(sent);
            assert_eq!(RequestId::uuid_from_caller(&value).is_some(), is_accepted, "{sent}");
        }
    }
}
