//! What a status says for each kind of denial, read by tonic-types and by hand.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the failure")]

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, Request, Version, header::CONTENT_TYPE};
use tollgate::{
    Denial, DenialKind, PerWindow as _, Quota,
    credits::{ReservationId, Settlement, Shortage},
    limit::{Charge, Counter, Decision, WindowCheck},
    respond::{Grpc, Respond as _, StatusDetails as _},
};
use tollgate_tonic::Details;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const DOMAIN: &str = "market.example.com";

/// Every kind. The match fails to compile when there is another one that this list lacks.
fn every_kind() -> Vec<DenialKind> {
    use DenialKind::*;
    vec![
        CredentialMissing,
        CredentialEmpty,
        CredentialMalformed,
        CredentialRepeated,
        CredentialConflicting,
        KeyUnknown,
        KeyRevoked,
        KeyExpired,
        TokenInvalid,
        WrongEnvironment,
        EnvironmentInvalid,
        NetworkNotAllowed,
        TenantSuspended,
        RateLimited,
        TooManyInFlight,
        EntitlementInactive,
        TierTooLow,
        ScopeMissing,
        RouteUnlisted,
        CreditsExhausted,
        IdempotencyKeyInvalid,
        IdempotencyKeyReused,
        RequestInProgress,
        RequestRepeated,
        Forbidden,
        Unavailable,
        Misconfigured,
    ]
}

/// The status that a client of tonic makes of the response.
fn status(denial: &Denial) -> Status {
    let mut request = Request::new(()).into_parts().0;
    request.method = Method::POST;
    request.version = Version::HTTP_2;
    request.headers.insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    let response = Grpc::new().with_details(Details::new(DOMAIN)).respond(denial, &mut request);
    Status::from_header_map(response.headers()).unwrap()
}

/// The details as one text: each message on a line.
fn details(status: &Status) -> String {
    let details = status.check_error_details().unwrap();
    let mut lines = Vec::new();
    if let Some(info) = details.error_info() {
        assert_eq!(info.domain, DOMAIN);
        let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
        let mut words = vec![info.reason.clone()];
        words.extend(metadata.iter().map(|(name, value)| format!("{name}={value}")));
        lines.push(words.join(" "));
    }
    if let Some(retry) = details.retry_info() {
        lines.push(format!("retry after {:?}", retry.retry_delay.unwrap()));
    }
    for violation in details.quota_failure().into_iter().flat_map(|quota| &quota.violations) {
        lines.push(format!(
            "quota {}: {} [{} {}]",
            violation.subject, violation.description, violation.quota_id, violation.quota_value
        ));
    }
    for violation in details.precondition_failure().into_iter().flat_map(|failure| &failure.violations) {
        lines.push(format!("{} {}: {}", violation.r#type, violation.subject, violation.description));
    }
    for violation in details.bad_request().into_iter().flat_map(|request| &request.field_violations) {
        lines.push(format!("field {}: {}", violation.field, violation.description));
    }
    lines.join("\n")
}

/// The code, the message and the details of each kind, as they arrive.
#[test]
fn every_kind_has_its_status_and_its_details() {
    let invalid = (16, "The credential is not valid.", "invalid_credential");
    let ambiguous = (16, "Send one credential, once.", "invalid_request");
    let missing = (16, "This request needs a credential.", "missing_credential");
    for kind in every_kind() {
        let (code, message, expected) = match kind {
            DenialKind::CredentialMissing | DenialKind::CredentialEmpty => missing,
            DenialKind::CredentialRepeated | DenialKind::CredentialConflicting => ambiguous,
            DenialKind::CredentialMalformed
            | DenialKind::KeyUnknown
            | DenialKind::KeyRevoked
            | DenialKind::KeyExpired
            | DenialKind::TokenInvalid
            | DenialKind::WrongEnvironment
            | DenialKind::NetworkNotAllowed => invalid,
            DenialKind::EnvironmentInvalid => {
                (3, "The environment is `live` or `test`.", "invalid_environment")
            }
            DenialKind::TenantSuspended => (7, "The organization is suspended.", "tenant_suspended"),
            DenialKind::RateLimited => (8, "The limit is used up. Retry later.", "rate_limited"),
            DenialKind::TooManyInFlight => (
                8,
                "Too many requests at the same time. Retry when one of them has ended.",
                "too_many_concurrent_requests\n\
                 quota requests_in_flight: Too many requests at the same time. Retry when one of them has ended. [ 0]",
            ),
            DenialKind::EntitlementInactive => (
                7,
                "This needs an active subscription.",
                "inactive_entitlement\nsubscription active: This needs an active subscription.",
            ),
            DenialKind::TierTooLow => (
                7,
                "The subscription does not include this.",
                "tier_too_low\nsubscription tier: The subscription does not include this.",
            ),
            DenialKind::ScopeMissing => (7, "The credential lacks a required scope.", "insufficient_scope"),
            DenialKind::RouteUnlisted => (12, "This path does not exist.", "not_found"),
            DenialKind::CreditsExhausted => (
                8,
                "The credits are used up.",
                "insufficient_credits\ncredits balance: The credits are used up.",
            ),
            DenialKind::IdempotencyKeyInvalid => (
                3,
                "Send one Idempotency-Key of 1 to 255 printable ASCII characters.",
                "invalid_idempotency_key\n\
                 field idempotency-key: Send one Idempotency-Key of 1 to 255 printable ASCII characters.",
            ),
            DenialKind::IdempotencyKeyReused => (
                3,
                "The Idempotency-Key was used for another request. Send a new one.",
                "idempotency_key_reused\n\
                 field idempotency-key: The Idempotency-Key was used for another request. Send a new one.",
            ),
            DenialKind::RequestInProgress => (
                10,
                "A request with this Idempotency-Key has not ended yet. Retry later.",
                "request_in_progress",
            ),
            DenialKind::RequestRepeated => (
                6,
                "A request with this Idempotency-Key has succeeded before. For another request, send a new key.",
                "request_repeated",
            ),
            DenialKind::Forbidden => (7, "This is not allowed.", "forbidden"),
            DenialKind::Unavailable => {
                (14, "The service cannot answer at the moment. Retry later.", "unavailable")
            }
            DenialKind::Misconfigured => (13, "The service is not set up correctly.", "internal"),
            other => panic!("{other:?} has no row"),
        };
        let denial = Denial::new(kind).with_log_detail("a secret of the log");
        let status = status(&denial);
        assert_eq!((status.code(), status.message()), (Code::from_i32(code), message), "{kind:?}");
        assert_eq!(details(&status), expected, "{kind:?}");
        let raw = raw::Status::decode(status.details());
        assert_eq!((raw.code, raw.message.as_str()), (u64::try_from(code).unwrap(), message), "{kind:?}");
        assert_eq!(raw.details[..].len(), expected.lines().count(), "{kind:?}");
        let sent = [status.details(), status.message().as_bytes()].concat();
        assert!(!String::from_utf8_lossy(&sent).contains("secret"), "{kind:?}");
    }
}

#[test]
fn the_bytes_are_those_of_a_google_rpc_status() {
    let encoded = Details::new("d").encode(&Denial::new(DenialKind::Forbidden), usize::MAX).unwrap();
    let expected = b"\x08\x07\x12\x14This is not allowed.\x1a\x3a\
        \x0a\x28type.googleapis.com/google.rpc.ErrorInfo\x12\x0e\x0a\x09forbidden\x12\x01d";
    assert_eq!(encoded, &expected[..]);
}

/// The counters of a quota, all of it used, and a charge of `cost`.
fn refused(quotas: &[(&'static str, Quota, bool)], cost: u64) -> Denial {
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000_010);
    let mut checks = Vec::new();
    for (policy, quota, is_hidden) in quotas {
        let charge = Charge::new(*policy, "ada", "acme", quota).with_cost(cost);
        let charge = if *is_hidden { charge.hidden() } else { charge };
        for limit in quota.limits() {
            let counter = Counter::new(limit.algorithm).at(limit, now).counting(limit, limit.capacity());
            checks.push(WindowCheck::new(&charge, limit, counter, now));
        }
    }
    Denial::rate_limited(Decision::evaluate(now, checks))
}

#[test]
fn what_a_caller_may_know_is_in_the_details() {
    let id = ReservationId::from_number(17);
    for (denial, expected, pushback) in [
        (Denial::scope_missing("jobs:read jobs:list"), "insufficient_scope scope=jobs:read jobs:list", None),
        (
            Denial::credits_exhausted(Shortage::new(3, 5)),
            "insufficient_credits balance=3 needed=5\n\
             credits balance: The request needs 5 credits, and the balance is 3.",
            Some("-1"),
        ),
        (
            Denial::credits_exhausted(Shortage::new(0, 5).with_debt(7)),
            "insufficient_credits balance=0 needed=5 owed=7\n\
             credits balance: The request needs 5 credits, the balance is 0, and 7 are owed.",
            Some("-1"),
        ),
        (
            Denial::request_repeated(Settlement::new(id, 3, 0)),
            "request_repeated charged=3 reservation=res_00000000000000000000000000000011",
            None,
        ),
        (
            Denial::unavailable("postgres is down").with_retry_after(Duration::from_secs(3)),
            "unavailable\nretry after 3s",
            Some("3000"),
        ),
        (
            refused(&[("key", 60.per_minute(), false)], 1),
            "rate_limited limit=60 remaining=0 reset=1000000020\nretry after 10s\n\
             quota key: 60 per minute [key-minute 60]",
            Some("10000"),
        ),
        (
            refused(&[("key", 60.per_minute(), false), ("organization", 90.per_hour(), false)], 1),
            "rate_limited limit=90 remaining=0 reset=1000000800\nretry after 790s\n\
             quota key: 60 per minute [key-minute 60]\nquota organization: 90 per hour [organization-hour 90]",
            Some("790000"),
        ),
        // Never admitted.
        (
            refused(&[("key", 0.per_minute(), false)], 1),
            "rate_limited limit=0 remaining=0 reset=1000000020\nquota key: 0 per minute [key-minute 0]",
            Some("-1"),
        ),
        // A limit that strangers share.
        (refused(&[("address", 60.per_minute(), true)], 1), "rate_limited\nretry after 10s", Some("10000")),
        (
            refused(&[("key", 60.per_minute(), false), ("address", 90.per_hour(), true)], 1),
            "rate_limited\nretry after 790s\nquota key: 60 per minute [key-minute 60]",
            Some("790000"),
        ),
    ] {
        let status = status(&denial);
        assert_eq!(details(&status), expected);
        let sent = status.metadata().get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap());
        assert_eq!(sent, pushback, "{expected}");
    }
}

#[test]
fn kinds_that_callers_must_not_distinguish_have_the_same_bytes() {
    let encode = |kind| {
        Details::new(DOMAIN).encode(&Denial::new(kind).with_log_detail(format!("{kind:?}")), usize::MAX)
    };
    let kinds = every_kind();
    for kind in &kinds {
        for other in kinds.iter().filter(|other| other.code() == kind.code()) {
            assert_eq!(encode(*kind), encode(*other), "{kind:?} and {other:?}");
        }
    }
}

#[test]
fn reasons_may_be_in_upper_case() {
    let details = Details::new(DOMAIN).with_upper_case_reasons();
    let status = details.status(&Denial::scope_missing("jobs:read"));
    assert_eq!(status.get_details_error_info().unwrap().reason, "INSUFFICIENT_SCOPE");
}

#[test]
fn a_status_without_a_request_is_the_same_and_has_the_denial_as_its_source() {
    let denial = refused(&[("key", 60.per_minute(), false)], 1);
    let own = Details::new(DOMAIN).status(&denial);
    let sent = status(&denial);
    assert_eq!((own.code(), own.message(), details(&own)), (sent.code(), sent.message(), details(&sent)));
    assert_eq!(own.metadata().get("grpc-retry-pushback-ms").unwrap(), "10000");
    assert_eq!(own.metadata().len(), 1);
    let source = std::error::Error::source(&own).unwrap().downcast_ref::<Denial>().unwrap();
    assert_eq!(source.kind(), DenialKind::RateLimited);
}

#[test]
fn a_long_message_is_the_same_in_the_details_and_details_that_are_too_long_are_shortened() {
    let denial = Denial::new(DenialKind::Forbidden).with_detail("é".repeat(50_000));
    let cut = status(&denial);
    assert!(cut.message().len() < 2_048 && cut.message().starts_with("éé"));
    assert_eq!(raw::Status::decode(cut.details()).message, cut.message());

    let scopes = vec!["prices:read"; 1_000].join(" ");
    let denial = Denial::scope_missing(scopes).with_retry_after(Duration::from_secs(3));
    let short = status(&denial);
    assert_eq!(details(&short), "insufficient_scope\nretry after 3s");
    // Beside the longest message, too.
    let short = status(&denial.with_detail("x".repeat(50_000)));
    assert_eq!(details(&short), "insufficient_scope\nretry after 3s");
}

#[test]
fn details_are_shortened_only_if_they_have_no_room() {
    let denial = Denial::scope_missing("prices:read");
    let encode = |room| Details::new(DOMAIN).encode(&denial, room).unwrap();
    let whole = encode(usize::MAX);
    assert_eq!(encode(whole.len()), whole);
    let short = encode(whole.len() - 1);
    assert_eq!(short, encode(0));
    assert!(short.len() < whole.len());
}

/// Each window that is used up is shown, unless limits are not to be seen.
#[test]
fn limits_may_be_left_out() {
    let own = Details::new(DOMAIN).without_limits();
    let denial = refused(&[("key", 60.per_minute(), false), ("organization", 90.per_hour(), false)], 1);
    let hidden = own.status(&denial);
    assert_eq!(details(&hidden), "rate_limited\nretry after 790s");
    let sent = String::from_utf8_lossy(hidden.details()).into_owned();
    assert!(!["key", "organization", "60", "limit\""].iter().any(|word| sent.contains(word)), "{sent}");
    // All else is shown.
    let credits = Denial::credits_exhausted(Shortage::new(3, 5));
    assert_eq!(details(&own.status(&credits)), details(&status(&credits)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever an application writes, a client decodes a status that agrees with its own details.
    #[test]
    fn any_text_decodes(detail in "(\\PC|[\u{0}-\u{1f}% ]){0,3000}", code in "\\PC{0,40}", scope in "[ -~]{0,3000}") {
        let denial = Denial::scope_missing(scope.clone()).with_detail(detail.clone()).with_code(code.clone());
        let status = status(&denial);
        proptest::prop_assert!(detail.starts_with(status.message()));
        let raw = raw::Status::decode(status.details());
        proptest::prop_assert_eq!(raw.message.as_str(), status.message());
        let info = status.get_details_error_info().unwrap();
        proptest::prop_assert_eq!(&info.reason, &code);
        match info.metadata.get("scope") {
            Some(sent) => proptest::prop_assert_eq!(sent, &scope),
            None => proptest::prop_assert!(detail.len() + scope.len() > 1_000),
        }
    }
}

#[test]
fn the_details_are_bytes_for_any_responder() {
    let encoded: Option<Bytes> = Details::new(DOMAIN).encode(&Denial::new(DenialKind::Forbidden), 1_000);
    let closure = move |_: &Denial| encoded.clone();
    let _ = Grpc::new().with_details(closure);
}

/// A decoder of protobuf that knows nothing of prost: field numbers and wire types, from the definition of `google.rpc.Status`.
mod raw {
    #[derive(Debug, Default)]
    pub(super) struct Status {
        pub(super) code: u64,
        pub(super) message: String,
        pub(super) details: Vec<(String, Vec<u8>)>,
    }

    impl Status {
        pub(super) fn decode(bytes: &[u8]) -> Self {
            let mut status = Self::default();
            for field in fields(bytes) {
                match field {
                    (1, Value::Number(code)) => status.code = code,
                    (2, Value::Bytes(text)) => status.message = String::from_utf8(text).unwrap(),
                    (3, Value::Bytes(any)) => status.details.push(any_of(&any)),
                    other => panic!("no field of google.rpc.Status: {other:?}"),
                }
            }
            status
        }
    }

    fn any_of(bytes: &[u8]) -> (String, Vec<u8>) {
        let (mut url, mut value) = (String::new(), Vec::new());
        for field in fields(bytes) {
            match field {
                (1, Value::Bytes(text)) => url = String::from_utf8(text).unwrap(),
                (2, Value::Bytes(bytes)) => value = bytes,
                other => panic!("no field of google.protobuf.Any: {other:?}"),
            }
        }
        assert!(url.starts_with("type.googleapis.com/google.rpc."), "{url}");
        (url, value)
    }

    #[derive(Debug)]
    enum Value {
        Number(u64),
        Bytes(Vec<u8>),
    }

    fn fields(mut bytes: &[u8]) -> Vec<(u64, Value)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = number(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(number(&mut bytes)),
                2 => {
                    let length = usize::try_from(number(&mut bytes)).unwrap();
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    Value::Bytes(value.to_vec())
                }
                other => panic!("no wire type of these messages: {other}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    fn number(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        number
    }
}
