//! Requests without a known address, and policies that count by address.

use http::StatusCode;
use tests::{
    hosts::How,
    suite::{Log, send},
};
use tollgate::{PerWindow as _, Policy, RateLimitLayer, limit::Subject};
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

#[tokio::test]
async fn a_policy_by_address_counts_requests_without_an_address_together() {
    let clock = tollgate::clock::ManualClock::at(tests::suite::at(0));
    let policy = Policy::new("address", 2.per_minute()).with_subject(Subject::Address(peer()));
    let limit = RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone());
    let mut stack = behind(&clock, limit);
    let key = |caller| [("x-api-key", caller)];
    for (request, expected) in [
        (from("ada"), (200, Some(2), Some(1), Some(60), None)),
        (from("bob"), (200, Some(2), Some(0), Some(60), None)),
        (from("cyd"), (429, Some(2), Some(0), Some(60), Some(60))),
        (from_address(HERE, "/jobs", &key("cyd")), (200, Some(2), Some(1), Some(60), None)),
        (from_address(HERE, "/jobs", &key("dan")), (200, Some(2), Some(0), Some(60), None)),
        (from_address(HERE, "/jobs", &key("ada")), (429, Some(2), Some(0), Some(60), Some(60))),
        (from_address(THERE, "/jobs", &key("ada")), (200, Some(2), Some(1), Some(60), None)),
    ] {
        assert_eq!(numbers(&send(&mut stack, request).await), expected);
    }
}
