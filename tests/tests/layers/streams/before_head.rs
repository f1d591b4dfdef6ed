//! gRPC requests that are ended before the head of their response.

use std::{pin::pin, time::Duration};

use tests::suite::{self, Latch, SlowLimiter, at, is_pending};
use tollgate::{
    AttemptLimitLayer, ClientAddress, DenialKind, PerWindow as _, Policy, RateLimitLayer, RequestContext,
    clock::ManualClock, layers::ReportOnly, limit::Cost, respond::Respond as _,
};

use super::*;

fn never(content_type: &'static str) -> Request<String> {
    let mut request = call(content_type);
    *request.uri_mut() = "/never".parse().unwrap();
    request
}

#[tokio::test]
async fn a_grpc_request_that_waits_is_refused() {
    for (reason, status, log_reason) in ENDS {
        for content_type in ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"] {
            let log = Log::start();
            let (signal, backend) = (EndSignal::new(), Backend::answering("unused/unused"));
            let service = ending(&signal).build().unwrap().layer(backend.handler.clone());
            let mut waiting = pin!(service.oneshot(never(content_type)));
            assert!(is_pending(waiting.as_mut()));
            assert!(!backend.is_dropped() && log.refusals().is_empty());

            signal.end(reason);
            let refused = waiting.await.unwrap();
            assert!(backend.is_dropped());
            assert_eq!(refused.status(), 200);
            let denial = refused.extensions().get::<Denial>().unwrap();
            assert_eq!(denial.kind().reason(), log_reason);
            assert!(refused.headers().contains_key("x-request-id"), "as every refusal");
            if content_type.starts_with("application/grpc-web") {
                assert_eq!(refused.headers()[CONTENT_TYPE], content_type);
                let body = refused.into_body().collect().await.unwrap().to_bytes();
                assert!(web_status(&body, false).starts_with(&format!("grpc-status: {status}\r\n")));
            } else {
                assert_eq!(refused.headers()["grpc-status"], status);
                assert!(refused.body().is_end_stream(), "Trailers-Only");
            }
            let [refusal] = &log.refusals()[..] else { unreachable!("one event") };
            assert_eq!(refusal.field("layer"), Some("StreamEndLayer"));
            assert_eq!(refusal.field("reason"), Some(log_reason));
            assert!(ended(&log).is_empty());
        }
    }
}

#[tokio::test]
async fn the_end_comes_before_a_response_that_is_ready() {
    let signal = EndSignal::new();
    let ending_too_late = signal.clone();
    let inner = service_fn(move |_: Request<String>| {
        ending_too_late.end(EndReason::Revoked);
        async { Ok::<_, Infallible>(Response::new(Body::default())) }
    });
    let response = ending(&signal).build().unwrap().layer(inner).oneshot(call("application/grpc")).await;
    assert_eq!(response.unwrap().extensions().get().map(Denial::kind), Some(DenialKind::KeyRevoked));
}

#[tokio::test]
async fn a_call_that_waits_is_woken() {
    let (signal, backend) = (EndSignal::new(), Backend::answering("unused/unused"));
    let service = ending(&signal).build().unwrap().layer(backend.handler.clone());
    let waiting = tokio::spawn(service.oneshot(never("application/grpc")));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished() && !backend.is_dropped());
    signal.end(EndReason::Revoked);
    let refused = tests::hosts::within(waiting).await.unwrap().unwrap();
    assert_eq!(refused.headers()["grpc-status"], "16");
}

#[tokio::test]
async fn plain_requests_and_reads_go_on() {
    let mut get = never("application/grpc");
    *get.method_mut() = http::Method::GET;
    for request in [never("application/json"), never("text/event-stream"), get] {
        let (signal, backend) = (EndSignal::new(), Backend::answering("unused/unused"));
        let service = ending(&signal).build().unwrap().layer(backend.handler.clone());
        let mut waiting = pin!(service.oneshot(request));
        assert!(is_pending(waiting.as_mut()));
        signal.end(EndReason::Revoked);
        assert!(is_pending(waiting.as_mut()));
        assert!(!backend.is_dropped());
    }
}

#[tokio::test]
async fn report_only_counts_the_end_and_lets_the_request_go_on() {
    let (log, report) = (Log::start(), ReportOnly::new());
    let (signal, backend) = (EndSignal::new(), Backend::answering("unused/unused"));
    let tollgate = builder(&signal).stream_end(StreamEndLayer::new().with_report_only(&report));
    let service = tollgate.build().unwrap().layer(backend.handler.clone());
    let mut waiting = pin!(service.oneshot(never("application/grpc")));
    assert!(is_pending(waiting.as_mut()));
    signal.end(EndReason::Revoked);
    assert!(is_pending(waiting.as_mut()));
    assert!(is_pending(waiting.as_mut()));
    assert_eq!((report.refusals(), log.refusals().len()), (1, 1));
    assert!(!backend.is_dropped());
}

#[tokio::test]
async fn the_responder_sees_the_documented_parts_of_the_head_and_no_query() {
    for (target, expected) in [
        ("/never?key=s3cr3t", "/never"),
        ("https://api.example.com/never?key=s3cr3t", "https://api.example.com/never"),
    ] {
        let (signal, backend) = (EndSignal::new(), Backend::answering("unused/unused"));
        let clock = ManualClock::at(at(0));
        let responder = respond_fn(move |denial: &Denial, head: &mut request::Parts| {
            assert_eq!(head.uri, expected);
            assert_eq!((&head.method, head.version), (&http::Method::POST, Version::HTTP_2));
            let mut names: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["accept", "content-type", "te"]);
            assert_eq!(
                RequestContext::of(&head.extensions).unwrap().now(),
                Some(at(7)),
                "the present instant"
            );
            Grpc::new().respond(denial, head)
        });
        let tollgate = ending(&signal).clock(clock.clone()).responder(responder);
        let service = tollgate.build().unwrap().layer(backend.handler.clone());
        let mut request = never("application/grpc");
        *request.uri_mut() = target.parse().unwrap();
        for (name, value) in [("te", "trailers"), ("accept", "*/*"), ("cookie", "s3cr3t")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let mut waiting = pin!(service.oneshot(request));
        assert!(is_pending(waiting.as_mut()));
        clock.advance(Duration::from_secs(7));
        signal.end(EndReason::Revoked);
        assert_eq!(waiting.await.unwrap().headers()["grpc-status"], "16");
    }
}

#[tokio::test]
async fn a_call_that_is_ended_is_no_failed_attempt() {
    let address = || ClientAddress::of_peer(|_| Some("192.0.2.1".parse().unwrap()));
    for stands_alone in [false, true] {
        let (signal, backend) = (EndSignal::new(), Backend::answering("unused/unused"));
        let attempts = AttemptLimitLayer::new(1.per_minute(), address());
        let inner = BoxCloneSyncService::new(service_fn(move |request: Request<String>| {
            let handler = backend.handler.clone();
            async move {
                match request.uri().path() {
                    "/never" => handler.oneshot(request).await,
                    _ => Ok::<_, Infallible>(Response::new(Body::default())),
                }
            }
        }));
        let service: BoxCloneSyncService<_, Response<UnsyncBoxBody<Bytes, Infallible>>, _> = if stands_alone {
            let stack = ending(&signal).build().unwrap().layer(inner);
            BoxCloneSyncService::new(
                attempts
                    .layer(stack)
                    .map_response(|response| response.map(http_body_util::BodyExt::boxed_unsync)),
            )
        } else {
            let stack = ending(&signal).attempt_limit(attempts).build().unwrap();
            BoxCloneSyncService::new(
                stack
                    .layer(inner)
                    .map_response(|response| response.map(http_body_util::BodyExt::boxed_unsync)),
            )
        };
        let status = async |key| service.clone().oneshot(with_key(key)).await.unwrap().status().as_u16();

        let mut waiting = pin!(service.clone().oneshot(never("application/grpc")));
        assert!(is_pending(waiting.as_mut()));
        signal.end(EndReason::Revoked);
        assert_eq!(waiting.await.unwrap().headers()["grpc-status"], "16");
        assert_eq!(status("bob").await, 200, "not counted");
        assert_eq!(status("ada").await, 401);
        assert_eq!(status("bob").await, 429, "the next request with the ended key is counted");
    }
}

#[tokio::test]
async fn a_key_that_ends_while_a_charge_waits_ends_the_stream_at_once() {
    let (signal, latch, limiter) = (EndSignal::new(), Latch::shut(), suite::Backend::prompt());
    let log = Log::start();
    let slow = limiter.clone();
    let backend = Backend::answering("application/grpc");
    backend.send("never sent");
    let handler = backend.handler.clone();
    let waits = latch.clone();
    let inner = service_fn(move |request: Request<String>| {
        slow.turn_into(&suite::Backend::slow(&waits));
        handler.clone().oneshot(request)
    });
    let limits = RateLimitLayer::from_policies([
        Policy::new("calls", 9.per_minute()).with_cost(Cost::by_response(|_| 1))
    ]);
    let limits = limits.unwrap().with_limiter(SlowLimiter::new(&limiter)).unwrap();
    let service = ending(&signal).rate_limit(limits).build().unwrap().layer(inner);
    let mut waiting = pin!(service.oneshot(call("application/grpc")));
    assert!(is_pending(waiting.as_mut()), "for the limiter");
    signal.end(EndReason::Revoked);
    assert!(is_pending(waiting.as_mut()));
    latch.open();
    let mut stream: Stream = Box::pin(waiting.await.unwrap().into_body());
    assert!(matches!(next(&mut stream), Next::Trailers(trailers) if trailers["grpc-status"] == "16"));
    assert_eq!((next(&mut stream), ended(&log).len()), (Next::End, 1));
}
