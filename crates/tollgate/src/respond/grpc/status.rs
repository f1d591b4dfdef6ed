//! The fields of a status: its code, message, details and pushback, within the bound that clients accept.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tollgate_core::denial::{Denial, DenialKind};

/// The most that the fields of one status take, as HTTP/2 counts: name, value and 32 bytes for each (RFC 9113 section 6.5.2). Clients
/// of gRPC accept 8 KiB of metadata by default; the rest is for the request's identifier, the rate limits and the like.
const MAX_STATUS_BYTES: usize = 7 * 1024;

/// The most that an encoded message takes. Details of a usual size have place beside the longest message.
const MAX_MESSAGE_BYTES: usize = 2 * 1024;

/// What HTTP/2 counts for each field in addition to its text.
const FIELD_OVERHEAD: usize = 32;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The fields of one status.
pub(super) struct Fields {
    fields: [(HeaderName, Option<HeaderValue>); 4],
}

impl Fields {
    /// `details`: those of at most this many bytes.
    pub(super) fn new(denial: &Denial, details: impl FnOnce(usize) -> Option<Bytes>) -> Self {
        let mut fields = [
            (STATUS, Some(HeaderValue::from(u16::from(denial.grpc_code())))),
            (MESSAGE, encoded_message(denial)),
            (PUSHBACK, pushback(denial)),
            (DETAILS, None),
        ];
        let room = MAX_STATUS_BYTES.saturating_sub(size(&fields) + DETAILS.as_str().len() + FIELD_OVERHEAD);
        let [.., (_, value)] = &mut fields;
        // Base64 has four characters for three bytes.
        *value = details(room / 4 * 3 + room % 4 * 3 / 4).and_then(|details| encoded_details(&details, room));
        Self { fields }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// What the fields take, as HTTP/2 counts.
fn size(fields: &[(HeaderName, Option<HeaderValue>)]) -> usize {
    let present = fields.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    present.map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// The characters that `grpc-message` percent-encodes: all except %x20-24 and %x26-7E.
const OUTSIDE_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// The detail of a denial, cut so that it takes at most [`MAX_MESSAGE_BYTES`] when it is encoded.
pub(super) fn message(denial: &Denial) -> &str {
    let detail = denial.detail();
    let mut room = MAX_MESSAGE_BYTES;
    for (at, character) in detail.char_indices() {
        let length = match character {
            '%' => 3,
            ' '..='~' => 1,
            other => 3 * other.len_utf8(),
        };
        if length > room {
            return detail.get(..at).unwrap_or_default();
        }
        room -= length;
    }
    detail
}

fn encoded_message(denial: &Denial) -> Option<HeaderValue> {
    let mut encoded = utf8_percent_encode(message(denial), OUTSIDE_MESSAGE).to_string();
    // A field's value neither begins nor ends with a space (RFC 9113 section 8.2.1).
    if encoded.ends_with(' ') {
        encoded.pop();
        encoded.push_str("%20");
    }
    if encoded.starts_with(' ') {
        encoded.replace_range(..1, "%20");
    }
    HeaderValue::try_from(encoded).ok()
}

/// Base64 without padding. `None` if that is longer than `room`: cut details could not be decoded.
fn encoded_details(details: &[u8], room: usize) -> Option<HeaderValue> {
    if details.len() > room {
        return None;
    }
    let encoded = STANDARD_NO_PAD.encode(details);
    (encoded.len() <= room).then(|| HeaderValue::try_from(encoded).ok()).flatten()
}

/// `grpc-retry-pushback-ms` (gRFC A6): how many milliseconds a client with a retry policy should wait, or -1 if it should not retry.
///
/// -1 where a client's wait does not help, but the code is one that clients retry (`RESOURCE_EXHAUSTED`): used-up credits, and a request that
/// its limit never admits. Otherwise a client repeats such a request as often as its policy allows. Also for a wait that does not
/// fit into the field, which is more than 24 days.
///
/// Nothing where the time is not known (in-flight requests, a backend that is down): the client's own backoff is right there.
fn pushback(denial: &Denial) -> Option<HeaderValue> {
    const NO_RETRY: HeaderValue = HeaderValue::from_static("-1");

    match (denial.kind(), denial.retry_after()) {
        (DenialKind::CreditsExhausted, _) => Some(NO_RETRY),
        (_, Some(wait)) => Some(i32::try_from(wait.as_millis()).map_or(NO_RETRY, HeaderValue::from)),
        // A wait is missing because no wait is long enough.
        (DenialKind::RateLimited, None) => denial.decision().is_some().then_some(NO_RETRY),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use percent_encoding::percent_decode;
    use proptest::prelude::*;
    use tollgate_core::{
        credits::Shortage,
        limit::{Algorithm, Charge, Counter, Decision, PerWindow as _, WindowCheck},
    };

    use super::*;

    fn field(fields: &Fields, name: &HeaderName) -> Option<HeaderValue> {
        fields.fields.iter().find(|(own, _)| own == name)?.1.clone()
    }

    fn text(denial: &Denial, name: &HeaderName) -> Option<String> {
        let value = field(&Fields::new(denial, |_| None), name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    fn forbidden(detail: impl Into<String>) -> Denial {
        Denial::new(DenialKind::Forbidden).with_detail(detail.into())
    }

    #[test]
    fn a_message_is_percent_encoded() {
        for (detail, encoded) in [
            ("100 % used: café\n", "100 %25 used: caf%C3%A9%0A"),
            (" two  spaces  ", "%20two  spaces %20"),
            (" ", "%20"),
            ("\u{7f}~", "%7F~"),
            ("", ""),
        ] {
            assert_eq!(text(&forbidden(detail), &MESSAGE).as_deref(), Some(encoded));
        }
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let denial = forbidden("é".repeat(MAX_MESSAGE_BYTES));
        assert_eq!(message(&denial), "é".repeat(MAX_MESSAGE_BYTES / 6));
        let fits = "x".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(message(&forbidden(fits.as_str())), fits);
        assert_eq!(message(&forbidden(format!("{fits}y"))), fits);
    }

    #[test]
    fn details_are_sent_whole_or_not_at_all() {
        let denial = Denial::new(DenialKind::Forbidden);
        let sent = |length| field(&Fields::new(&denial, |_| Some(vec![0xff; length].into())), &DETAILS);
        assert_eq!(sent(1).unwrap(), "/w", "without padding");
        let fixed = size(&Fields::new(&denial, |_| None).fields) + DETAILS.as_str().len() + FIELD_OVERHEAD;
        let longest = (MAX_STATUS_BYTES - fixed) / 4 * 3;
        assert_eq!(sent(longest).unwrap().len(), longest / 3 * 4);
        assert_eq!(sent(longest + 3), None);
        assert_eq!(sent(1_000_000), None);
        for detail in ["", "x", "xx", "xxx"] {
            let denial = forbidden(detail);
            let fitting = Fields::new(&denial, |room| Some(vec![0xff; room].into()));
            assert!(field(&fitting, &DETAILS).is_some(), "details that take all the room fit");
            let longer = Fields::new(&denial, |room| Some(vec![0xff; room + 1].into()));
            assert_eq!(field(&longer, &DETAILS), None);
        }
        assert!(longest > 5_000, "details of a usual size fit: {longest}");
    }

    /// The refusal of a request with this cost, of 60 that a minute admits.
    fn refused_with_cost(cost: u64) -> Denial {
        let quota = 60.per_minute();
        let now = UNIX_EPOCH + Duration::from_secs(10);
        let (charge, limit) = (Charge::new("key", "ada", "ada", &quota).with_cost(cost), quota.limits()[0]);
        let counter = Counter::new(Algorithm::FixedWindow).at(&limit, now).counting(&limit, 60);
        Denial::rate_limited(Decision::evaluate(now, [WindowCheck::new(&charge, &limit, counter, now)]))
    }

    #[test]
    fn clients_wait_as_long_as_it_takes_and_do_not_retry_what_never_succeeds() {
        let waiting =
            |seconds| Denial::new(DenialKind::Unavailable).with_retry_after(Duration::from_secs(seconds));
        for (denial, expected) in [
            (refused_with_cost(1), Some("50000")),
            (refused_with_cost(61), Some("-1")),
            (Denial::credits_exhausted(Shortage::new(1, 2)), Some("-1")),
            (
                Denial::credits_exhausted(Shortage::new(1, 2)).with_retry_after(Duration::from_secs(9)),
                Some("-1"),
            ),
            (waiting(1), Some("1000")),
            (waiting(2_147_483), Some("2147483000")),
            (waiting(2_147_484), Some("-1")),
            (waiting(u64::MAX), Some("-1")),
            (Denial::new(DenialKind::RateLimited), None),
            (Denial::new(DenialKind::TooManyInFlight), None),
            (Denial::new(DenialKind::Unavailable), None),
            (Denial::new(DenialKind::RequestInProgress), None),
            (Denial::new(DenialKind::KeyUnknown), None),
        ] {
            assert_eq!(text(&denial, &PUSHBACK).as_deref(), expected, "{denial}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any text that an application writes becomes a valid status within the bound, and decodes to the text.
        #[test]
        fn any_text_is_a_valid_status(
            detail in "(\\PC|[\u{0}-\u{1f}% ]){0,2000}",
            times in 1usize..40,
            details in proptest::collection::vec(any::<u8>(), 0..9_000),
        ) {
            let denial = forbidden(detail.repeat(times)).with_retry_after(Duration::from_secs(1));
            let fields = Fields::new(&denial, |_| Some(details.clone().into()));
            prop_assert!(size(&fields.fields) <= MAX_STATUS_BYTES);

            let sent = field(&fields, &MESSAGE).unwrap();
            prop_assert!(sent.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)), "{sent:?}");
            prop_assert!(sent.as_bytes().trim_ascii() == sent.as_bytes());
            let decoded = percent_decode(sent.as_bytes()).decode_utf8().unwrap();
            prop_assert_eq!(&decoded, message(&denial));
            prop_assert!(denial.detail().starts_with(&*decoded));
            prop_assert!(decoded == denial.detail() || sent.len() + 12 > MAX_MESSAGE_BYTES, "cut too early");

            match field(&fields, &DETAILS) {
                Some(sent) => prop_assert_eq!(STANDARD_NO_PAD.decode(sent.as_bytes()).unwrap(), details),
                None => prop_assert!(details.len() > 3_000),
            }
        }
    }
}
