//! One instance of a service whose limit is shared by many: tests of several processes start it, and kill it.
//!
//! `instance URL LEASES LOG REQUESTS RATE LIMIT SECONDS` prints `ready`, waits for a line of input, and then sends so many requests
//! with one subject, at this rate per second, through a stack whose limit is counted in the Redis server at the URL. The limit holds
//! for windows of so many seconds. Leases are `off`, `auto` or `always`.
//!
//! Each decision is a line in the file LOG before its request is answered: the instant by the server's clock and the end of its
//! window, both in nanoseconds since the Unix epoch, and `admitted` or `refused`. At the end the process gives back what it has
//! borrowed, and prints `sent S admitted A failed F`.
#![expect(clippy::expect_used, clippy::panic, reason = "whatever goes wrong fails the test that started it")]

use std::{
    convert::Infallible,
    fs::File,
    io::{Write as _, stdin, stdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response, StatusCode};
use tokio::time::{MissedTickBehavior, interval};
use tollgate::{
    Answer, PerWindow as _, Policy, RateLimitLayer,
    denial::Unavailable,
    limit::{Decision, LimitRequest, Limiter, Subject, Window},
};
use tollgate_redis::{Leases, Outage, Redis, RedisLimiter, RedisSettings};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

/// How many requests are under way at the same time.
const TASKS: u32 = 16;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let [url, leases, log, requests, rate, limit, seconds] = *arguments else {
        panic!("see the documentation of this program");
    };
    let leases = match leases {
        "off" => Leases::Off,
        "auto" => Leases::Auto,
        "always" => Leases::Always,
        other => panic!("no leases are called {other:?}"),
    };
    let limiter = limiter(url, leases).await;
    let window = Window::lasting(Duration::from_secs(number(seconds)));
    let log = Arc::new(File::create(log).expect("a file of the test's"));
    let policy = Policy::new("key", number(limit).per(window));
    let policy = policy.with_subject(Subject::custom(|_, _| Some("hot".into())));
    let layer = RateLimitLayer::from_policies([policy]).expect("a policy");
    let layer = layer.with_limiter(Logged { limiter: limiter.clone(), log }).expect("a name that is shared");

    say("ready");
    let mut line = String::new();
    stdin().read_line(&mut line).expect("the test's signal");
    let counts = send_all(layer, number(requests), number(rate)).await;
    limiter.close().await;
    let [sent, admitted, failed] = counts.0.each_ref().map(|count| count.load(Ordering::Relaxed));
    say(&format!("sent {sent} admitted {admitted} failed {failed}"));
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

async fn limiter(url: &str, leases: Leases) -> RedisLimiter {
    // What Redis does not decide is refused, so that every admission is Redis's. Processes of a test share a machine.
    let redis = Redis::connect(RedisSettings::new(url).with_deadline(Duration::from_secs(5))).await;
    let builder = RedisLimiter::builder(redis.expect("a server"));
    builder.with_leases(leases).with_outage(Outage::Refuse).build()
}

#[derive(Default)]
struct Counts([AtomicU64; 3]);

impl Counts {
    fn add(&self, status: StatusCode) {
        let [sent, admitted, failed] = &self.0;
        sent.fetch_add(1, Ordering::Relaxed);
        match status {
            StatusCode::OK => admitted.fetch_add(1, Ordering::Relaxed),
            StatusCode::TOO_MANY_REQUESTS => 0,
            _ => failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Sends requests at an even pace. What is late is sent as soon as possible.
async fn send_all(layer: RateLimitLayer, requests: u64, rate: u64) -> Arc<Counts> {
    let handler = service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(String::new())));
    let stack = ServiceBuilder::new().layer(layer).service(handler);
    let counts = Arc::new(Counts::default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (stack, counts) = (stack.clone(), Arc::clone(&counts));
        tasks.spawn(async move {
            let mut pace =
                interval(Duration::from_secs(TASKS.into()) / u32::try_from(rate).expect("a rate below 2^32"));
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for _ in 0..requests / u64::from(TASKS) {
                pace.tick().await;
                let Ok(response) = stack.clone().oneshot(Request::new(String::new())).await;
                counts.add(response.status());
            }
        });
    }
    tasks.join_all().await;
    counts
}

/// A limiter that writes its decisions down.
struct Logged {
    limiter: RedisLimiter,
    log: Arc<File>,
}

impl Limiter for Logged {
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>> {
        let log = Arc::clone(&self.log);
        self.limiter.acquire(request).map(move |decision| {
            if let Ok(decision) = &decision {
                write(&log, decision);
            }
            decision
        })
    }
}

fn write(mut log: &File, decision: &Decision) {
    let nanos = |instant: SystemTime| instant.duration_since(UNIX_EPOCH).expect("a later instant").as_nanos();
    let [window] = decision.windows() else { panic!("one window, not {:?}", decision.windows()) };
    let outcome = if decision.is_allowed() { "admitted" } else { "refused" };
    // One write, so that a process that is killed leaves whole lines.
    let line = format!("{} {} {outcome}\n", nanos(decision.at()), nanos(window.resets_at()));
    log.write_all(line.as_bytes()).expect("written");
}

fn say(line: &str) {
    let mut out = stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the test reads the output");
}
