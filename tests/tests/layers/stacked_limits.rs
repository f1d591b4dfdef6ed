//! What a response shows of stacked limit layers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use http::Response;
use tests::suite::{Directory, Inner, Reply, at, erase, get, send, with_key};
use tollgate::{
    PerWindow as _, Policy, Principal, Quota, RateLimitLayer, RequestContext, Tollgate,
    clock::{Clock, ManualClock},
    layers::ReportOnly,
    limit::{Cost, RateLimitHeaders, Subject},
};
use tower::{Layer as _, ServiceBuilder};

/// A limit that all requests share.
fn shared(name: &'static str, quota: Quota) -> RateLimitLayer {
    let all = Subject::custom(|_, _| Some("all".into()));
    RateLimitLayer::from_policies([Policy::new(name, quota).with_subject(all)]).unwrap()
}

async fn through(outer: RateLimitLayer, inner: RateLimitLayer, service: Inner) -> Reply {
    let outer = outer.with_clock(ManualClock::at(at(0)));
    let mut stack = erase(ServiceBuilder::new().layer(outer).layer(inner).service(service));
    send(&mut stack, get("/", &[])).await
}

#[tokio::test]
async fn of_equally_tight_windows_the_one_that_resets_last_is_shown_in_every_form() {
    for headers in [RateLimitHeaders::new(), RateLimitHeaders::new().with_seconds_to_reset()] {
        let hour = || shared("hour", 5.per_hour()).with_headers(headers);
        let minute = || shared("minute", 5.per_minute()).with_headers(headers);
        let expected = through(hour(), minute(), Inner::new()).await.header("x-ratelimit-reset");
        assert_eq!(through(minute(), hour(), Inner::new()).await.header("x-ratelimit-reset"), expected);
        let seconds: u64 = expected.parse().unwrap();
        assert!(
            seconds.is_multiple_of(3_600) || (60..=3_600).contains(&seconds),
            "an hour's reset: {seconds}"
        );
    }
}

#[tokio::test]
async fn a_waived_refusal_of_an_outer_limit_is_tighter_than_an_admission() {
    let outer = shared("outer", 0.per_minute()).with_report_only(&ReportOnly::new());
    let reply = through(outer, shared("inner", 1.per_hour()), Inner::new()).await;
    assert_eq!((reply.status().as_u16(), &*reply.header("x-ratelimit-limit")), (200, "0"));
}

#[tokio::test]
async fn a_refusal_without_headers_is_not_given_those_of_an_outer_limit_that_has_room() {
    let inner = shared("inner", 0.per_hour()).with_headers(RateLimitHeaders::none());
    let reply = through(shared("outer", 9.per_minute()), inner, Inner::new()).await;
    assert_eq!((reply.status().as_u16(), &*reply.header("x-ratelimit-remaining")), (429, ""));
    assert_eq!(reply.header("retry-after"), "", "a limit of 0 means never");
}

#[tokio::test]
async fn a_handlers_own_header_is_replaced_although_the_inner_limit_writes_another_form() {
    let forging = Inner::answering(|_| {
        Ok(Response::builder().header("x-ratelimit-remaining", "forged").body(String::new()).unwrap())
    });
    let inner = shared("inner", 5.per_minute()).with_headers(RateLimitHeaders::none().with_ietf_draft_10());
    let reply = through(shared("outer", 9.per_minute()), inner, forging).await;
    assert_eq!(reply.header("x-ratelimit-remaining"), "8");
}

/// A clock that counts how often it is read.
#[derive(Clone, Default)]
struct CountingClock(Arc<AtomicUsize>);

impl Clock for CountingClock {
    fn now(&self) -> SystemTime {
        self.0.fetch_add(1, Ordering::Relaxed);
        at(0)
    }
}

#[tokio::test]
async fn a_deferred_charge_of_nothing_reads_no_clock() {
    let clock = CountingClock::default();
    let all = Subject::custom(|_, _| Some("all".into()));
    let policy =
        Policy::new("failures", 9.per_minute()).with_subject(all).with_cost(Cost::by_response(|_| 0));
    let limit = RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone());
    send(&mut erase(limit.layer(Inner::new())), get("/", &[])).await;
    assert_eq!(clock.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_context_can_be_copied_to_a_sub_request() {
    let inner = Inner::new();
    let directory = Directory::default().with("key", Principal::new("ada"));
    let stack = Tollgate::builder().verify(directory).build().unwrap();
    send(&mut erase(stack.layer(inner.clone())), with_key("key")).await;
    let mut part = get("/", &[]);
    RequestContext::copy(inner.take_last().extensions(), part.extensions_mut());
    let principal = RequestContext::of(part.extensions()).and_then(RequestContext::principal);
    assert_eq!(principal.map(|principal| principal.id()), Some("ada"));
}
