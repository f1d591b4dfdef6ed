use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_STANDARD_NO_PAD};
use proptest::prelude::*;
use prost::Message;

use super::{
    super::retry_info::{Any, ProtoDuration, RetryInfo, Status},
    *,
};

const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn wait(status: u16, headers: &[(&'static str, &str)], is_idempotent: bool) -> Option<Duration> {
    let headers = headers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        });
    let now = httpdate::parse_http_date(NOW).unwrap();
    requested_wait(StatusCode::from_u16(status).unwrap(), &headers, is_idempotent, || now)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn details(delays: &[(i64, i32)]) -> Vec<u8> {
    let any = |type_url: &str, value| Any { type_url: format!("type.googleapis.com/{type_url}"), value };
    let mut details = vec![any("google.rpc.ErrorInfo", b"\x0a\x01x".to_vec())];
    details.extend(delays.iter().map(|&(seconds, nanos)| {
        let info = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) };
        any("google.rpc.RetryInfo", info.encode_to_vec())
    }));
    Status { details }.encode_to_vec()
}

fn retry_info(delays: &[(i64, i32)]) -> Option<Duration> {
    let text = BASE64_STANDARD_NO_PAD.encode(details(delays));
    wait(200, &[("grpc-status", "8"), ("grpc-status-details-bin", &text)], false)
}

#[test]
fn only_refusals_are_sent_again() {
    let after = [("retry-after", "2")];
    assert_eq!(wait(429, &after, false), Some(seconds(2)));
    assert_eq!(wait(503, &after, true), Some(seconds(2)));
    assert_eq!(wait(503, &after, false), None, "it may have been processed");
    for status in [200, 301, 400, 401, 402, 403, 409, 500, 502, 504] {
        assert_eq!(wait(status, &after, true), None, "{status}");
    }
    for status in ["0", "1", "7", "14", "16", "08", "", "88"] {
        assert_eq!(wait(200, &[("grpc-status", status), after[0]], true), None, "{status}");
    }
    assert_eq!(wait(200, &[("grpc-status", "8"), after[0]], false), Some(seconds(2)));
    // The status of gRPC counts, not that of HTTP.
    assert_eq!(wait(429, &[("grpc-status", "16"), after[0]], true), None);
}

#[test]
fn without_a_time_there_is_no_next_try() {
    assert_eq!(wait(429, &[], true), None);
    assert_eq!(wait(200, &[("grpc-status", "8"), ("grpc-message", "credits")], false), None);
    assert_eq!(retry_info(&[]), None);
}

#[test]
fn reads_retry_after() {
    for (value, expected) in [
        ("0", Some(seconds(0))),
        ("007", Some(seconds(7))),
        ("18446744073709551615", Some(seconds(u64::MAX))),
        ("18446744073709551616", Some(seconds(u64::MAX))),
        ("999999999999999999999999999999", Some(seconds(u64::MAX))),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1s", None),
        ("", None),
        ("soon", None),
        ("Sun, 06 Nov 1994 08:49:42 GMT", Some(seconds(5))),
        ("Sunday, 06-Nov-94 08:49:42 GMT", Some(seconds(5))),
        ("Sun Nov  6 08:49:42 1994", Some(seconds(5))),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(seconds(0))),
        ("Sun, 06 Nov 1994 08:49:36 GMT", Some(seconds(0))),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(seconds(0))),
        ("Sun, 06 Nov 1994 25:49:42 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(seconds(253_402_300_799 - 784_111_777))),
    ] {
        assert_eq!(wait(429, &[("retry-after", value)], false), expected, "{value:?}");
    }
    assert_eq!(
        wait(429, &[("retry-after", "2"), ("retry-after", "3"), ("retry-after", "x")], false),
        Some(seconds(3))
    );
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(requested_wait(StatusCode::TOO_MANY_REQUESTS, &headers, false, || unreachable!()), None);
}

#[test]
fn a_date_is_compared_to_the_servers_clock() {
    let at = ("retry-after", "Sun, 06 Nov 1994 08:49:42 GMT");
    assert_eq!(wait(429, &[at, ("date", "Sun, 06 Nov 1994 08:49:40 GMT")], false), Some(seconds(2)));
    assert_eq!(wait(429, &[at, ("date", "today")], false), Some(seconds(5)), "this machine's clock");
}

#[test]
fn reads_pushback() {
    let wait = |value, more: &[_]| {
        let mut headers = vec![("grpc-status", "8"), ("grpc-retry-pushback-ms", value)];
        headers.extend(more);
        wait(200, &headers, false)
    };
    assert_eq!(wait("1500", &[]), Some(Duration::from_millis(1500)));
    assert_eq!(wait("0", &[]), Some(seconds(0)));
    for value in ["-1", "-0", "", "soon", "1.5", "+1"] {
        assert_eq!(wait(value, &[("retry-after", "1")]), None, "{value:?}");
    }
    assert_eq!(wait("1500", &[("retry-after", "1")]), Some(Duration::from_millis(1500)));
    assert_eq!(wait("1500", &[("retry-after", "2")]), Some(seconds(2)), "the longest");
}

#[test]
fn reads_retry_info() {
    assert_eq!(retry_info(&[(2, 500_000_000)]), Some(Duration::from_millis(2500)));
    assert_eq!(retry_info(&[(1, 0), (3, 0), (2, 0)]), Some(seconds(3)));
    assert_eq!(retry_info(&[(0, 0)]), Some(seconds(0)));
    assert_eq!(retry_info(&[(-1, 0)]), None);
    assert_eq!(retry_info(&[(1, -1)]), None);
    assert!(retry_info(&[(i64::MAX, i32::MAX)]) > Some(seconds(u64::MAX / 2)));
    let padded = BASE64_STANDARD.encode(details(&[(2, 1)]));
    assert!(padded.ends_with('='), "shows something: {padded}");
    let wait = wait(200, &[("grpc-status", "8"), ("grpc-status-details-bin", &padded)], false);
    assert_eq!(wait, Some(Duration::new(2, 1)));
}

#[test]
fn ignores_details_that_cannot_be_read() {
    for text in ["", "!", "////", "AAAA", &BASE64_STANDARD.encode([0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f])] {
        assert_eq!(
            wait(200, &[("grpc-status", "8"), ("grpc-status-details-bin", text)], false),
            None,
            "{text}"
        );
    }
}

/// Bytes that another implementation has encoded: `google.rpc.Status` with a `RetryInfo` of 1.5 s.
#[test]
fn reads_the_bytes_of_other_implementations() {
    let mut info = b"\x0a\x07\x08\x01\x10\x80\xca\xb5\xee\x01".to_vec();
    info[1] = u8::try_from(info.len() - 2).unwrap();
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![0x0a, u8::try_from(url.len()).unwrap()];
    any.extend(url);
    any.extend([0x12, u8::try_from(info.len()).unwrap()]);
    any.extend(info);
    let mut status = b"\x08\x08\x12\x04slow\x1a".to_vec();
    status.push(u8::try_from(any.len()).unwrap());
    status.extend(any);
    let text = BASE64_STANDARD_NO_PAD.encode(status);
    let wait = wait(200, &[("grpc-status", "8"), ("grpc-status-details-bin", &text)], false);
    assert_eq!(wait, Some(Duration::from_millis(1500)));
}

proptest! {
    #[test]
    fn never_panics(
        status in prop::sample::select(vec!["", "8", "0"]),
        pushback in prop::option::of("\\PC{0,12}|-?[0-9]{1,25}"),
        retry_after in "\\PC{0,30}|-?[0-9]{1,25}|(Sun|Mon), [0-9]{2} (Jan|Nov) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        details in prop::collection::vec(any::<u8>(), 0..40),
        nested in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        let nested = Status { details: vec![Any { type_url, value: nested }] }.encode_to_vec();
        for details in [details, nested] {
            let details = BASE64_STANDARD.encode(details);
            let values = [
                ("grpc-status", status),
                ("retry-after", &retry_after),
                ("grpc-status-details-bin", &details),
                ("grpc-retry-pushback-ms", pushback.as_deref().unwrap_or("1")),
            ];
            let headers = values.into_iter().filter_map(|(name, value)| {
                Some((http::HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
            });
            let _ = requested_wait(StatusCode::TOO_MANY_REQUESTS, &headers.collect(), true, || SystemTime::UNIX_EPOCH);
        }
    }
}
