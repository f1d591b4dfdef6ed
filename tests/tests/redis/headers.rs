//! The headers of processes that share a quota and borrow parts of it: what is shown as remaining can be had, and a caller that waits
//! for `Retry-After` is admitted.
//!
//! Real requests to services with a limiter each, as several processes would have them. The services share a clock that stands still,
//! and Redis decides by it.

use std::time::Duration;

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Response, StatusCode};
use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};
use tests::{
    hosts::{Connection, header, serve},
    redis::Redis,
    suite::at,
};
use tokio::runtime::Runtime;
use tollgate::{
    PerWindow as _, Policy, Quota, RateLimitLayer,
    clock::ManualClock,
    limit::{Cost, RateLimitHeaders, Subject, Window},
};
use tollgate_redis::{Leases, RedisSettings};

use crate::{builder, fresh};

const PROCESSES: usize = 3;

/// Connections to services that share the quota of one caller, and their clock.
struct Services {
    connections: Vec<Connection>,
    clock: ManualClock,
}

impl Services {
    async fn start(redis: &Redis, leases: Leases, quota: &Quota, cost: u64) -> Self {
        let (settings, clock) = (fresh(RedisSettings::new(redis.url())), ManualClock::at(at(30)));
        let mut connections = Vec::new();
        for _ in 0..PROCESSES {
            let limiter = builder(&settings, leases).await.with_request_time().build();
            let policy = Policy::new("key", quota.clone())
                .with_subject(Subject::custom(|_, _| Some("ada".into())))
                .with_cost(Cost::units(cost));
            let layer = RateLimitLayer::from_policies([policy]).unwrap().with_limiter(limiter).unwrap();
            let headers = RateLimitHeaders::new().with_each_window();
            let layer = layer.with_headers(headers).with_clock(clock.clone());
            let router = Router::new().route("/jobs", get(async || "done")).layer(layer);
            connections.push(Connection::http1(serve(router).await).await);
        }
        Self { connections, clock }
    }

    async fn send(&mut self, process: usize) -> Answer {
        Answer::of(&self.connections[process].get("/jobs", None).await)
    }
}

/// What a caller reads from a response.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Admitted { remaining: u64 },
    Refused { retry_after: u64 },
}

impl Answer {
    fn of(response: &Response<Bytes>) -> Self {
        let headers = response.headers();
        let number = |name| header(headers, name).parse::<u64>().unwrap();
        if response.status() == StatusCode::OK {
            // The usual header is that of the tightest window. Another one can have less in units.
            let of_windows =
                headers.keys().filter(|name| name.as_str().starts_with("x-ratelimit-remaining-"));
            let remaining = of_windows.map(|name| number(name.as_str())).min().unwrap();
            return Self::Admitted { remaining };
        }
        let remaining = number("x-ratelimit-remaining");
        assert_eq!((response.status(), remaining), (StatusCode::TOO_MANY_REQUESTS, 0));
        Self::Refused { retry_after: number("retry-after") }
    }

    fn remaining(self) -> u64 {
        match self {
            Self::Admitted { remaining } => remaining,
            Self::Refused { .. } => 0,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_admits_exactly_what_is_shown_and_this_one_what_it_has_borrowed() {
    let redis = Redis::start().await;
    let quota = 100.per_minute();
    let (always, auto) = (Leases::Always, Leases::Auto);
    // A process borrows with its first request, or with the eleventh within 100 ms.
    for (leases, requests, shown) in
        [(always, 1, 89), (always, 2, 89), (always, 11, 89), (auto, 10, 90), (auto, 11, 78), (auto, 12, 78)]
    {
        let mut services = Services::start(&redis, leases, &quota, 1).await;
        for _ in 1..requests {
            services.send(0).await;
        }
        assert_eq!(services.send(0).await, Answer::Admitted { remaining: shown }, "{leases:?}, {requests}");
        for left in 0..shown {
            assert!(
                matches!(services.send(1).await, Answer::Admitted { .. }),
                "{left} of {shown}, {leases:?}"
            );
        }
        let refused = Answer::Refused { retry_after: 30 };
        assert_eq!(services.send(1).await, refused, "{leases:?}");
        let borrowed = 100 - requests - shown;
        for _ in 0..borrowed {
            assert!(matches!(services.send(0).await, Answer::Admitted { .. }), "{leases:?}");
        }
        assert_eq!(services.send(0).await, refused, "{leases:?}");
    }
}

/// A request of the caller's to one of the processes, after a pause in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Request {
    process: usize,
    pause: u64,
}

/// Who is asked at last: so many times for what remains, then to admit all of that, and after the wait.
#[derive(Clone, Copy, Debug)]
struct Last {
    shows: usize,
    times: usize,
    spends: usize,
    waits: usize,
}

#[test]
fn a_caller_that_obeys_the_headers_is_never_refused() {
    let runtime = Runtime::new().unwrap();
    let redis = runtime.block_on(Redis::start());
    let config = ProptestConfig {
        cases: tests::cases(40, 500),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let any_case = (any_leases(), any_quota(), 1..=3_u64, any_requests(), any_last());
    let obeys = |(leases, quota, cost, requests, last): (_, Quota, _, Vec<Request>, Last)| {
        runtime.block_on(async {
            let services = Services::start(&redis, leases, &quota, cost).await;
            obey(services, cost, &requests, last).await
        })
    };
    TestRunner::new(config).run(&any_case, obeys).unwrap();
}

async fn obey(
    mut services: Services,
    cost: u64,
    requests: &[Request],
    last: Last,
) -> Result<(), TestCaseError> {
    for Request { process, pause } in requests {
        services.clock.advance(Duration::from_millis(*pause));
        services.send(*process).await;
    }
    // A process does not know what others have used and given back meanwhile.
    services.clock.advance(Duration::from_secs(1));
    let mut shown = 0;
    for _ in 0..last.times {
        shown = services.send(last.shows).await.remaining();
    }
    for left in 0..shown / cost {
        let answer = services.send(last.spends).await;
        prop_assert!(matches!(answer, Answer::Admitted { .. }), "{} of {}: {:?}", left, shown / cost, answer);
    }
    // Its own lease can have more.
    let wait = loop {
        if let Answer::Refused { retry_after } = services.send(last.spends).await {
            break retry_after;
        }
    };
    if wait > 1 {
        services.clock.advance(Duration::from_secs(wait - 1));
        let early = services.send(last.spends).await;
        prop_assert_eq!(early, Answer::Refused { retry_after: 1 }, "{} s of {} s", wait - 1, wait);
        services.clock.advance(Duration::from_secs(1));
    } else {
        services.clock.advance(Duration::from_secs(wait));
    }
    let answer = services.send(last.waits).await;
    prop_assert!(matches!(answer, Answer::Admitted { .. }), "after {} s: {:?}", wait, answer);
    Ok(())
}

fn any_leases() -> impl Strategy<Value = Leases> {
    prop_oneof![Just(Leases::Always), Just(Leases::Auto), Just(Leases::Off)]
}

fn any_quota() -> impl Strategy<Value = Quota> {
    let ten_seconds = || Window::lasting(Duration::from_secs(10));
    prop_oneof![
        Just(120.per_minute()),
        Just(120.per_minute().sliding()),
        Just(60.per(ten_seconds()).and(150.per_minute())),
        Just(60.per(ten_seconds()).sliding().and(150.per_hour())),
        Just(100.per_minute().with_burst(30)),
    ]
}

/// Most pauses are short, so that leases are spent, and some end leases, memories of refusals, and windows.
fn any_requests() -> impl Strategy<Value = Vec<Request>> {
    let pause = prop_oneof![8 => 0..10_u64, 2 => 90..300_u64, 1 => 900..1_100_u64, 1 => 5_000..70_000_u64];
    let request = (0..PROCESSES, pause).prop_map(|(process, pause)| Request { process, pause });
    prop::collection::vec(request, 1..100)
}

fn any_last() -> impl Strategy<Value = Last> {
    (0..PROCESSES, 1..30_usize, 0..PROCESSES, 0..PROCESSES).prop_map(|(shows, times, spends, waits)| Last {
        shows,
        times,
        spends,
        waits,
    })
}
