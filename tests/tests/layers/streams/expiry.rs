//! Keys that expire while a stream is open, and the future by itself.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Wake, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt as _;
use tests::suite::is_pending;
use tokio::time::Instant;
use tollgate::{
    DenialKind, Ended, RequestContext,
    clock::{Clock, ManualClock},
};

use super::*;

/// A clock that goes with the paused time of tokio, and is `behind` it.
struct TokioClock {
    start: Instant,
    behind: Duration,
}

impl TokioClock {
    fn behind(behind: Duration) -> Self {
        Self { start: Instant::now(), behind }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        // One that is behind catches up at twice the speed.
        let elapsed = self.start.elapsed();
        UNIX_EPOCH + elapsed.saturating_sub(self.behind.saturating_sub(elapsed))
    }
}

fn expiring(seconds: u64) -> Principal {
    Principal::new("ada").with_expiry(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_expiry_of_its_key() {
    let start = Instant::now();
    let backend = Backend::answering("application/grpc");
    let tollgate = builder_for(expiring(90)).clock(TokioClock::behind(Duration::ZERO));
    let tollgate = tollgate.stream_end(StreamEndLayer::new());
    let mut stream = open(tollgate, &backend, call("application/grpc")).await;
    let frame = stream.frame().await.unwrap().unwrap();
    assert_eq!(frame.trailers_ref().unwrap()["grpc-status"], "16");
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_secs(90) && elapsed < Duration::from_millis(90_010), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn waits_again_where_the_clock_says_that_it_is_not_yet_time() {
    let start = Instant::now();
    // After 90 s the clock shows 80 s, and after 100 s it has caught up.
    let backend = Backend::answering("text/event-stream");
    let tollgate = builder_for(expiring(90)).clock(TokioClock::behind(Duration::from_secs(100)));
    let mut stream = open(tollgate.stream_end(StreamEndLayer::new()), &backend, with_key("ada")).await;
    assert!(stream.frame().await.is_none());
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_secs(100) && elapsed < Duration::from_secs(101), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_forward_ends_a_stream_at_its_next_poll() {
    let clock = ManualClock::default();
    let backend = Backend::answering("text/event-stream");
    let tollgate = builder_for(expiring(90)).clock(clock.clone()).stream_end(StreamEndLayer::new());
    let mut stream = open(tollgate, &backend, with_key("ada")).await;
    clock.advance(Duration::from_secs(89));
    assert_eq!(next(&mut stream), Next::Nothing);
    clock.advance(Duration::from_secs(1));
    assert_eq!(next(&mut stream), Next::End);
}

/// The extensions of a request by this principal.
fn extensions_of(principal: Principal) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    RequestContext::authenticate(&mut extensions, Arc::new(principal));
    extensions
}

#[test]
fn without_an_expiry_the_future_needs_no_runtime() {
    let signal = EndSignal::new();
    let extensions = extensions_of(Principal::new("ada").with_end_signal(signal.clone()));
    let mut ended = pin!(Ended::of(&extensions).unwrap());
    let mut clone = pin!(ended.clone());
    assert!(is_pending(ended.as_mut()) && is_pending(clone.as_mut()));
    signal.end(EndReason::TenantSuspended);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    for _ in 0..2 {
        for ended in [&mut ended, &mut clone] {
            let Poll::Ready(denial) = ended.as_mut().poll(cx) else { unreachable!("pending") };
            assert_eq!(denial.kind(), DenialKind::TenantSuspended);
        }
    }
    assert!(Ended::of(&http::Extensions::new()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_comes_before_an_expiry() {
    let signal = EndSignal::new();
    let principal = Principal::new("ada").with_end_signal(signal.clone());
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into());
    let extensions = extensions_of(principal.with_expiry(far));
    let ended = Ended::of(&extensions).unwrap();
    let waiting = tokio::spawn(ended);
    tokio::task::yield_now().await;
    signal.end(EndReason::Revoked);
    assert_eq!(waiting.await.unwrap().kind(), DenialKind::KeyRevoked);
}

#[test]
fn without_a_runtime_an_expiry_is_seen_at_the_next_poll() {
    let clock = ManualClock::default();
    let backend = Backend::answering("application/grpc");
    let tollgate = builder_for(expiring(90)).clock(clock.clone()).stream_end(StreamEndLayer::new());
    let opened = open(tollgate, &backend, call("application/grpc")).now_or_never();
    let mut stream = opened.unwrap();
    assert_eq!(next(&mut stream), Next::Nothing);
    clock.advance(Duration::from_secs(90));
    assert!(matches!(next(&mut stream), Next::Trailers(trailers) if trailers["grpc-status"] == "16"));
}

#[test]
fn each_task_that_polls_the_future_is_woken() {
    let signal = EndSignal::new();
    let extensions = extensions_of(Principal::new("ada").with_end_signal(signal.clone()));
    let mut ended = pin!(Ended::of(&extensions).unwrap());
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    for wakes in [&first, &first, &second, &second] {
        let waker = Waker::from(Arc::clone(wakes));
        assert!(ended.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    signal.end(EndReason::Revoked);
    assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1), "the last one");
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_future_that_waits_is_small() {
    let keep_waiting = |principal: Principal| {
        let extensions = extensions_of(principal);
        let mut held = Vec::with_capacity(1);
        let measured = allocation_counter::measure(|| {
            let mut ended = Box::pin(Ended::of(&extensions).unwrap());
            assert!(is_pending(ended.as_mut()));
            held.push(ended);
        });
        measured.bytes_current
    };
    assert_eq!(size_of::<Ended>(), 32);
    let without = keep_waiting(Principal::new("ada"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into());
    let with = keep_waiting(Principal::new("ada").with_expiry(far));
    assert_eq!((without - 32, with - without), (192, 112));
}

/// The memory that a request takes: what is allocated and not freed until its head, or while it is open.
fn memory_of(tollgate: TollgateBuilder, request: Request<String>) -> i64 {
    let backend = Backend::answering("application/grpc");
    let is_answered = request.uri().path() != "/never";
    let service = tollgate.build().unwrap().layer(backend.handler.clone());
    let mut held = None;
    let measured = allocation_counter::measure(|| {
        let mut future = Box::pin(service.oneshot(request));
        if let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            drop(future);
            let mut stream = Box::pin(response.into_body());
            assert!(is_answered && next(&mut stream) == Next::Nothing);
            held = Some(Ok(stream));
        } else {
            assert!(!is_answered);
            held = Some(Err(future));
        }
    });
    drop(held);
    measured.bytes_current
}

#[tokio::test]
async fn the_memory_of_a_watched_request_is_as_documented() {
    let ada = || Principal::new("ada").with_tenant("acme").with_end_signal(EndSignal::new());
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(u32::MAX.into());
    let more = |principal: Principal, path: &'static str| {
        let request = || {
            let mut request = call("application/grpc");
            *request.uri_mut() = path.parse().unwrap();
            request
        };
        let unwatched = memory_of(builder_for(principal.clone()), request());
        let watched = builder_for(principal).stream_end(StreamEndLayer::new());
        memory_of(watched, request()) - unwatched
    };
    let before_head = more(ada(), "/never");
    let (open, expiring) = (more(ada(), "/Watch"), more(ada().with_expiry(far), "/Watch"));
    assert!(before_head <= 850 && open <= 1_350, "{before_head} and {open} bytes");
    assert_eq!(expiring - open, 112, "the timer");
}
