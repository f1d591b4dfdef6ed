//! gRPC requests that are ended before the head of their response.

use std::pin::pin;

use tests::suite::is_pending;
use tollgate::{DenialKind, layers::ReportOnly};

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
                assert_eq!(body, format!("web:{status}"));
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
async fn a_query_is_not_kept_for_the_refusal() {
    let (signal, backend) = (EndSignal::new(), Backend::answering("unused/unused"));
    let responder = respond_fn(|denial: &Denial, head: &mut request::Parts| {
        assert_eq!(head.uri, "/never");
        Grpc::new().respond(denial, head)
    });
    let service = ending(&signal).responder(responder).build().unwrap().layer(backend.handler.clone());
    let mut request = never("application/grpc");
    *request.uri_mut() = "/never?key=s3cr3t".parse().unwrap();
    let mut waiting = pin!(service.oneshot(request));
    assert!(is_pending(waiting.as_mut()));
    signal.end(EndReason::Revoked);
    assert_eq!(waiting.await.unwrap().headers()["grpc-status"], "16");
}
