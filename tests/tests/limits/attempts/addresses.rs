//! Requests without a known address, and policies that count by address.

use http::StatusCode;
use tests::{
    hosts::How,
    suite::{Log, at, send},
};
use tollgate::{
    PerWindow as _, Policy, RateLimitLayer,
    clock::ManualClock,
    limit::{Cost, RateLimitHeaders, Subject},
};
use tracing::Level;

use super::{HERE, THERE, from_address, peer, stack};
use crate::{behind, from, numbers};

#[tokio::test]
async fn without_an_address_requests_are_allowed_and_the_log_says_what_to_do() {
    for how in How::BOTH {
        let (mut stack, _, verifier) = stack(how, 1.per_minute());
        let log = Log::start();
        for _ in 0..64 {
            let refused = send(&mut stack, from("guess")).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "not shut out, and no 500");
        }
        assert_eq!(send(&mut stack, from("good")).await.status(), StatusCode::OK);
        assert_eq!(verifier.calls(), 65, "{how:?}");

        // Ever more rarely: at the first request, the second, the fourth.
        let errors: Vec<_> = log.entries().into_iter().filter(|entry| entry.level == Level::ERROR).collect();
        assert!((1..=7).contains(&errors.len()), "{errors:?}");
        let error = &errors[0];
        assert_eq!((&*error.target, error.field("layer")), ("tollgate", Some("AttemptLimitLayer")));
        let message = error.field("message").unwrap();
        assert!(message.contains("into_make_service_with_connect_info"), "{message}");
        assert!(message.contains("ClientAddress::of_peer"), "{message}");
    }
}

/// Two requests a minute for each address.
fn by_address(clock: &ManualClock) -> RateLimitLayer {
    let policy = Policy::new("address", 2.per_minute()).with_subject(Subject::Address(peer()));
    RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone())
}

const ADMITTED: (u16, Option<u64>, Option<u64>, Option<u64>, Option<u64>) = (200, None, None, None, None);
const REFUSED: (u16, Option<u64>, Option<u64>, Option<u64>, Option<u64>) = (429, None, None, None, Some(60));

#[tokio::test]
async fn a_policy_by_address_counts_requests_without_an_address_together() {
    let clock = ManualClock::at(at(0));
    let mut stack = behind(&clock, by_address(&clock));
    let key = |caller| [("x-api-key", caller)];
    for (request, expected) in [
        (from("ada"), ADMITTED),
        (from("bob"), ADMITTED),
        (from("cyd"), REFUSED),
        (from_address(HERE, "/jobs", &key("cyd")), ADMITTED),
        (from_address(HERE, "/jobs", &key("dan")), ADMITTED),
        (from_address(HERE, "/jobs", &key("ada")), REFUSED),
        (from_address(THERE, "/jobs", &key("ada")), ADMITTED),
    ] {
        assert_eq!(numbers(&send(&mut stack, request).await), expected);
    }
}

/// A stranger behind the same address could watch another caller's requests in its own rate-limit headers.
#[tokio::test]
async fn no_header_shows_what_an_address_has_left() {
    let headers = RateLimitHeaders::new().with_each_window().with_ietf_draft_10();
    for is_known in [false, true] {
        let clock = ManualClock::at(at(0));
        let limit = by_address(&clock).with_headers(headers);
        let mut stack = behind(&clock, limit);
        for expected in [ADMITTED, ADMITTED, REFUSED] {
            let key = if is_known { vec![("x-api-key", "ada")] } else { vec![] };
            let reply = send(&mut stack, from_address(HERE, "/jobs", &key)).await;
            assert_eq!(numbers(&reply), expected, "with a key: {is_known}");
            assert!(reply.headers().keys().all(|name| !name.as_str().contains("ratelimit")), "{reply:?}");
        }
    }
}

/// The cost of a failure is charged after the decision was shown.
#[tokio::test]
async fn a_cost_by_response_does_not_show_what_an_address_has_left() {
    let clock = ManualClock::at(at(0));
    let policy = Policy::new("address", 2.per_minute())
        .with_subject(Subject::Address(peer()))
        .with_cost(Cost::by_response(|_| 1));
    let limit = RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone());
    let mut stack = behind(&clock, limit);
    for expected in [ADMITTED, ADMITTED, REFUSED] {
        assert_eq!(numbers(&send(&mut stack, from_address(HERE, "/jobs", &[])).await), expected);
    }
}

#[tokio::test]
async fn beside_a_limit_by_address_the_limit_of_the_key_is_shown_but_not_on_a_refusal_by_the_address() {
    let key = || Policy::new("key", 9.per_hour());
    let address = || Policy::new("address", 2.per_minute()).with_subject(Subject::Address(peer()));
    for is_one_layer in [true, false] {
        let clock = ManualClock::at(at(0));
        let layer = |policies: Vec<Policy>| {
            RateLimitLayer::from_policies(policies).unwrap().with_clock(clock.clone())
        };
        let mut stack = if is_one_layer {
            behind(&clock, layer(vec![key(), address()]))
        } else {
            behind(&clock, (layer(vec![key()]), layer(vec![address()])))
        };
        for expected in
            [(200, Some(9), Some(8), Some(3_600), None), (200, Some(9), Some(7), Some(3_600), None), REFUSED]
        {
            let reply = send(&mut stack, from_address(HERE, "/jobs", &[("x-api-key", "ada")])).await;
            assert_eq!(numbers(&reply), expected, "in one layer: {is_one_layer}");
        }
    }
}
