//! Messages against limits.

use std::{sync::Arc, time::Duration};

use http::Method;
use tests::suite::{Log, SlowLimiter, limit_by_key};
use tollgate::{
    ConfigurationError, CredentialLayer,
    limit::{Cost, LimitRequest, Limiter as _, MemoryLimiter},
};
use tower::ServiceBuilder;
use tracing::Level;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_messages_exactly_as_many_pass_as_the_limit_says() {
    for streams in [1, 5] {
        let api = Api::charging(MessageLayer::from_rate_limit(100.per_hour()));
        let mut meters = Vec::new();
        for _ in 0..streams {
            meters.push(api.open("ada").await);
        }
        let tasks: Vec<_> = (0..400).map(|task| tokio::spawn(meters[task % streams].charge(1))).collect();
        let mut passed = 0;
        for task in tasks {
            passed += usize::from(task.await.unwrap().is_ok());
        }
        assert_eq!(passed, 100, "{streams}");
        assert_eq!(charge_until_refused(&api.open("bob").await).await.0, 100, "another key has its own");
    }
}

#[tokio::test]
async fn messages_and_requests_count_together_by_a_clone_of_the_stacks_layer() {
    let limits = RateLimitLayer::new(10.per_minute());
    let layer = MessageLayer::from_rate_limit(limits.clone());
    let api = Api::new(|builder| builder.rate_limit(limits).messages(layer));
    let meter = api.open("ada").await; // 1
    assert_eq!(kind(meter.charge(6).await), None); // 7
    let reply = api.send(by("ada")).await; // 8
    assert_eq!(reply.header("x-ratelimit-remaining"), "2", "the next response shows what messages took");
    assert_eq!(charge_until_refused(&meter).await.0, 2);

    // The same denial as that of a request.
    let (message, reply) = (meter.charge(1).await.unwrap_err(), api.send(by("ada")).await);
    let request = reply.denial().unwrap();
    assert_eq!((message.kind(), message.retry_after()), (DenialKind::RateLimited, request.retry_after()));
    assert_eq!(message.retry_after(), Some(Duration::from_mins(1)));
    assert_eq!(message.decision(), request.decision());
    assert!(message.decision().is_some());

    api.clock.advance(Duration::from_mins(1));
    assert_eq!(kind(meter.charge(1).await), None, "the clock is read at each charge");
}

#[tokio::test]
async fn messages_by_a_layer_of_their_own_are_not_counted_as_requests() {
    let layer = MessageLayer::from_rate_limit(3.per_minute());
    let api = Api::new(|builder| builder.rate_limit(2.per_minute()).messages(layer));
    let meter = api.open("ada").await;
    assert_eq!(charge_until_refused(&meter).await.0, 3);
    assert_eq!(api.send(by("ada")).await.kind(), None);
    assert_eq!(api.send(by("ada")).await.kind(), Some(DenialKind::RateLimited));
}

#[tokio::test]
async fn a_message_is_charged_to_all_policies_or_to_none() {
    let limits = RateLimitLayer::from_policies([
        Policy::new("key", 3.per_minute()),
        Policy::new("tenant", 5.per_minute()).with_subject(Subject::Tenant),
    ])
    .unwrap();
    let api = Api::charging(MessageLayer::from_rate_limit(limits));
    let (ada, bob) = (api.open("ada").await, api.open("bob").await);
    assert_eq!(charge_until_refused(&ada).await.0, 3);
    // The tenant was not charged for what the key's policy refused.
    assert_eq!(charge_until_refused(&bob).await.0, 2);
    assert_eq!(kind(api.open("cyd").await.charge(3).await), None, "a key without a tenant counts alone");
}

#[tokio::test]
async fn a_message_costs_what_the_policy_says_as_often_as_it_is_charged() {
    let cost = Cost::by_request(|head, _principal| if head.uri.path() == "/chat" { 3 } else { 1 });
    let limits =
        RateLimitLayer::from_policies([Policy::new("key", 10.per_minute()).with_cost(cost)]).unwrap();
    let api = Api::charging(MessageLayer::from_rate_limit(limits));
    let meter = api.open("ada").await;
    assert_eq!(kind(meter.charge(0).await), None);
    assert_eq!(kind(meter.charge(2).await), None); // 6
    assert_eq!(kind(meter.charge(2).await), Some(DenialKind::RateLimited), "4 are left");
    assert_eq!(kind(meter.charge(1).await), None); // 9
    // The last one times 3 is 1 in 64 bits.
    for never in [4, u64::MAX, 0xAAAA_AAAA_AAAA_AAAB] {
        let denial = meter.charge(never).await.unwrap_err();
        assert_eq!((denial.kind(), denial.retry_after()), (DenialKind::RateLimited, None), "{never}");
        assert_ne!(denial.log_detail(), "");
    }
}

#[tokio::test]
async fn a_policy_by_response_counts_no_messages_and_refuses_them_when_nothing_is_left() {
    let cost = Cost::by_response(|_| 4);
    let limits = RateLimitLayer::from_policies([Policy::new("key", 7.per_minute()).with_cost(cost)]).unwrap();
    let layer = MessageLayer::from_rate_limit(limits.clone());
    let api = Api::new(|builder| builder.rate_limit(limits).messages(layer));
    let meter = api.open("ada").await;
    for _ in 0..50 {
        assert_eq!(kind(meter.charge(50).await), None);
    }
    assert_eq!(api.send(by("ada")).await.header("x-ratelimit-remaining"), "0");
    assert_eq!(kind(meter.charge(1).await), Some(DenialKind::RateLimited));
}

#[tokio::test]
async fn quotas_are_those_of_the_plan_when_the_stream_was_opened() {
    let policy = Policy::new("key", 1.per_minute()).with_tier("pro", 4.per_minute());
    let limits = RateLimitLayer::from_policies([policy]).unwrap();
    let api = Api::charging(MessageLayer::from_rate_limit(limits));
    assert_eq!(charge_until_refused(&api.open("ada").await).await.0, 1);
    assert_eq!(charge_until_refused(&api.open("bob").await).await.0, 4);
}

#[tokio::test]
async fn anonymous_messages_are_charged_by_the_policies_that_apply_to_them() {
    let limits = RateLimitLayer::from_policies([
        Policy::new("key", 5.per_minute()),
        Policy::new("address", 3.per_minute()).with_subject(by_address()),
    ])
    .unwrap();
    let api = Api::new(|builder| {
        builder
            .credential(CredentialLayer::new().with_anonymous())
            .messages(MessageLayer::from_rate_limit(limits))
    });
    let first = api.open_by(from("192.0.2.1")).await;
    assert_eq!(kind(first.charge(2).await), None);
    let second = api.open_by(from("192.0.2.1")).await;
    let (charged, denial) = charge_until_refused(&second).await;
    assert_eq!((charged, denial.kind()), (1, DenialKind::RateLimited));
    assert!(denial.retry_after().is_some());
    let decision = denial.decision().unwrap();
    assert!(
        decision.windows().iter().all(|window| window.is_hidden),
        "what an address has left is not shown"
    );
    assert_eq!(charge_until_refused(&api.open_by(from("192.0.2.2")).await).await.0, 3);
}

#[tokio::test]
async fn a_subject_of_the_applications_own_is_found_out_when_the_stream_is_opened() {
    let room = Subject::custom(|head, _principal| {
        let room = head.headers.get("x-room")?.to_str().ok()?;
        Some(room.into())
    });
    let limits =
        RateLimitLayer::from_policies([Policy::new("room", 2.per_minute()).with_subject(room)]).unwrap();
    let api = Api::charging(MessageLayer::from_rate_limit(limits));
    let open = |key, room| api.open_by(get("/chat", &[("x-api-key", key), ("x-room", room)]));
    assert_eq!(kind(open("ada", "red").await.charge(1).await), None);
    assert_eq!(charge_until_refused(&open("bob", "red").await).await.0, 1);
    assert_eq!(charge_until_refused(&open("bob", "blue").await).await.0, 2);
    assert_eq!(kind(api.open("ada").await.charge(100).await), None, "no policy applies");
}

#[tokio::test]
async fn anonymous_callers_need_a_policy() {
    let layer = || MessageLayer::from_rate_limit(5.per_minute());
    let anonymous = || CredentialLayer::new().with_anonymous();
    let builder = Tollgate::builder().verify(Directory::default()).credential(anonymous());
    let error: ConfigurationError = builder.messages(layer()).build().unwrap_err();
    let expected = "MessageLayer has no policy for messages of anonymous callers";
    assert!(error.to_string().starts_with(expected), "{error}");

    let layers = ServiceBuilder::new().layer(anonymous()).layer(layer());
    let log = Log::start();
    let reply = send(&mut erase(layers.service(Inner::new())), from("192.0.2.1")).await;
    assert_eq!(reply.kind(), Some(DenialKind::Misconfigured));
    assert!(log.refusals()[0].field("detail").unwrap().starts_with(expected), "{log:?}");
}

#[tokio::test]
async fn a_preflight_passes_and_is_charged_nothing() {
    let by_address = Policy::new("address", 0.per_minute()).with_subject(by_address());
    let limits = RateLimitLayer::from_policies([by_address]).unwrap();
    let api = Api::new(|builder| {
        builder
            .credential(CredentialLayer::new().dangerous_preflights())
            .messages(MessageLayer::from_rate_limit(limits))
    });
    let headers = [("origin", "https://example.com"), ("access-control-request-method", "GET")];
    let mut preflight = get("/chat", &headers);
    *preflight.method_mut() = Method::OPTIONS;
    let meter = api.open_by(preflight).await;
    assert_eq!(kind(meter.charge(5).await), None);
}

#[tokio::test]
async fn counters_that_cannot_be_reached_refuse_with_503() {
    let limits = limit_by_key(5.per_minute(), SlowLimiter::new(&Backend::down()));
    let meter = Api::charging(MessageLayer::from_rate_limit(limits)).open("ada").await;
    let log = Log::start();
    assert_eq!(kind(meter.charge(1).await), Some(DenialKind::Unavailable));
    let refusals = log.refusals();
    assert_eq!((refusals.len(), refusals[0].level), (1, Level::WARN));
}

#[tokio::test]
async fn a_refused_message_is_logged_once_like_a_refused_request() {
    let layer = MessageLayer::from_rate_limit(1.per_minute());
    let api = Api::new(|builder| builder.messages(layer));
    let reply = api.send(by("ada")).await;
    let request = api.inner.take_last();
    let meter = RequestContext::of(request.extensions()).unwrap().messages().unwrap().clone();
    drop(request);
    let log = Log::start();
    assert_eq!(kind(meter.charge(1).await), None);
    assert!(log.entries().is_empty(), "{log:?}");
    let denial = meter.charge(1).await.unwrap_err();
    let refusals = log.refusals();
    let [entry] = &*refusals else { panic!("{refusals:#?}") };
    assert_eq!((&*entry.target, entry.level), ("tollgate", Level::INFO));
    for (field, value) in [
        ("layer", "MessageLayer"),
        ("reason", "rate_limited"),
        ("code", denial.code()),
        ("status", "429"),
        ("method", "GET"),
        ("path", "/chat"),
        ("request_id", &*reply.header("x-request-id")),
        ("principal", "ada"),
        ("tenant", "acme"),
        ("report_only", "false"),
    ] {
        assert_eq!(entry.field(field), Some(value), "{field}");
    }
    assert!(!format!("{log:?} {meter:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn dropped_charges_are_counted_at_most_once() {
    let limiter = Arc::new(MemoryLimiter::new());
    let meter =
        Api::charging(MessageLayer::from_rate_limit(limit_by_key(5.per_minute(), Arc::clone(&limiter))))
            .open("ada")
            .await;
    drop(meter.charge(5));
    let quota = 5.per_minute();
    let peek = || {
        let charge = tollgate::limit::Charge::new("key", "ada", "acme", &quota).with_cost(0);
        limiter.acquire(&LimitRequest::new(&[charge], at(0)))
    };
    assert_eq!(peek().await.unwrap().windows()[0].remaining(), 5, "nothing happens before the first poll");
    assert_eq!(kind(meter.charge(2).await), None);
    assert_eq!(peek().await.unwrap().windows()[0].remaining(), 3);
}
