//! Streams that are ended after their head.

use http::{HeaderName, header::CONTENT_LENGTH};
use tollgate::{CredentialLayer, PerWindow as _, RateLimitLayer, VerifyLayer, layers::ReportOnly};
use tower::ServiceBuilder;

use super::*;

#[tokio::test]
async fn each_kind_of_stream_ends_in_its_own_way_with_each_end() {
    for (reason, status, log_reason) in ENDS {
        for (content_type, last) in [
            ("application/grpc", "trailers"),
            ("application/grpc+proto", "trailers"),
            ("application/grpc-web+proto", "data"),
            ("application/grpc-web-text", "data"),
            ("text/event-stream; charset=utf-8", "nothing"),
        ] {
            let log = Log::start();
            let (signal, backend) = (EndSignal::new(), Backend::answering(content_type));
            let mut stream = open(ending(&signal), &backend, call(content_type)).await;
            assert_eq!((stream.size_hint().lower(), stream.size_hint().upper()), (0, None));
            backend.send("one");
            assert_eq!(next(&mut stream), Next::data("one"));
            assert_eq!(next(&mut stream), Next::Nothing);
            assert!(ended(&log).is_empty() && !backend.is_dropped() && !stream.is_end_stream());

            // The end comes before data that is ready.
            backend.send("two");
            signal.end(reason);
            match last {
                "trailers" => {
                    let Next::Trailers(trailers) = next(&mut stream) else { unreachable!("no trailers") };
                    assert_eq!(trailers["grpc-status"], status);
                    assert!(trailers.contains_key("grpc-message"));
                    assert_eq!(trailers.len(), 2, "{trailers:?}");
                }
                "data" => {
                    let Next::Data(data) = next(&mut stream) else { unreachable!("no data") };
                    let lines = web_status(&data, content_type.contains("text"));
                    assert!(lines.starts_with(&format!("grpc-status: {status}\r\n")), "{lines}");
                }
                _ => {}
            }
            assert_eq!(next(&mut stream), Next::End, "{content_type}");
            assert_eq!(next(&mut stream), Next::End);
            assert!(backend.is_dropped() && stream.is_end_stream());
            assert_eq!(stream.size_hint().exact(), Some(0));

            let events = ended(&log);
            let [event] = &events[..] else { unreachable!("{events:?}") };
            assert_eq!((&*event.target, event.level), ("tollgate", tracing::Level::INFO));
            for (field, value) in [
                ("layer", "StreamEndLayer"),
                ("reason", log_reason),
                ("status", "200"),
                ("method", "POST"),
                ("path", "/market.Prices/Watch"),
                ("principal", "ada"),
                ("tenant", "acme"),
                ("report_only", "false"),
            ] {
                assert_eq!(event.field(field), Some(value), "{field}");
            }
            assert!(event.field("request_id").is_some());
            assert!(log.refusals().is_empty());
        }
    }
}

#[tokio::test]
async fn a_reader_that_waits_is_woken() {
    let (signal, backend) = (EndSignal::new(), Backend::answering("text/event-stream"));
    let mut stream = open(ending(&signal), &backend, with_key("ada")).await;
    let reader = tokio::spawn(async move { stream.frame().await.is_none() });
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    signal.end(EndReason::Revoked);
    assert!(tests::hosts::within(reader).await.unwrap());
}

#[tokio::test]
async fn a_stream_that_is_over_is_not_ended() {
    let log = Log::start();
    let (signal, mut backend) = (EndSignal::new(), Backend::answering("application/grpc"));
    let mut stream = open(ending(&signal), &backend, call("application/grpc")).await;
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 0.into())]);
    backend.frames.take().unwrap().send(Frame::trailers(trailers.clone())).unwrap();
    assert_eq!(next(&mut stream), Next::Trailers(trailers));
    signal.end(EndReason::Revoked);
    assert_eq!(next(&mut stream), Next::End);
    assert!(ended(&log).is_empty());
}

#[tokio::test]
async fn downloads_and_bodies_of_a_known_size_go_on() {
    let content_type = |value| (CONTENT_TYPE, HeaderValue::from_static(value));
    for headers in [
        HeaderMap::new(),
        HeaderMap::from_iter([content_type("application/json")]),
        HeaderMap::from_iter([content_type("application/octet-stream")]),
        HeaderMap::from_iter([content_type("text/event-stream"), (CONTENT_LENGTH, 3.into())]),
    ] {
        let (signal, backend) = (EndSignal::new(), Backend::answering_with(headers));
        let mut stream = open(ending(&signal), &backend, with_key("ada")).await;
        assert_eq!(next(&mut stream), Next::Nothing);
        signal.end(EndReason::Revoked);
        backend.send("one");
        assert_eq!(next(&mut stream), Next::data("one"));
    }

    let signal = EndSignal::new();
    let inner = service_fn(async |_: Request<String>| {
        let mut response = Response::new(http_body_util::Full::new(Bytes::from_static(b"data: 1\n\n")));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Ok::<_, Infallible>(response)
    });
    let response = ending(&signal).build().unwrap().layer(inner).oneshot(with_key("ada")).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(9));
    signal.end(EndReason::Revoked);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "data: 1\n\n");
}

#[tokio::test]
async fn no_stream_is_ended_without_the_layer_and_none_of_another_caller() {
    let (signal, backend) = (EndSignal::new(), Backend::answering("text/event-stream"));
    let mut unwatched = open(builder(&signal), &backend, with_key("ada")).await;
    let other_backend = Backend::answering("text/event-stream");
    let mut others = open(ending(&signal), &other_backend, with_key("bob")).await;
    signal.end(EndReason::Revoked);
    assert_eq!((next(&mut unwatched), next(&mut others)), (Next::Nothing, Next::Nothing));
}

#[tokio::test]
async fn anonymous_callers_have_no_end() {
    let (signal, backend) = (EndSignal::new(), Backend::answering("text/event-stream"));
    let tollgate = ending(&signal).credential(CredentialLayer::new().with_anonymous());
    let mut stream = open(tollgate, &backend, Request::new(String::new())).await;
    signal.end(EndReason::Revoked);
    backend.send("one");
    assert_eq!(next(&mut stream), Next::data("one"));
}

#[tokio::test]
async fn report_only_counts_the_end_and_lets_the_stream_go_on() {
    for whole_stack in [false, true] {
        let (log, report) = (Log::start(), ReportOnly::new());
        let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc"));
        let tollgate = if whole_stack {
            ending(&signal).report_only(&report)
        } else {
            builder(&signal).stream_end(StreamEndLayer::new().with_report_only(&report))
        };
        let mut stream = open(tollgate, &backend, call("application/grpc")).await;
        assert_eq!(next(&mut stream), Next::Nothing);
        signal.end(EndReason::TenantSuspended);
        backend.send("one");
        backend.send("two");
        assert_eq!(next(&mut stream), Next::data("one"));
        assert_eq!(next(&mut stream), Next::data("two"));
        assert_eq!(report.refusals(), 1);
        let [refusal] = &log.refusals()[..] else { unreachable!("one event") };
        for (field, value) in [
            ("layer", "StreamEndLayer"),
            ("report_only", "true"),
            ("reason", "tenant_suspended"),
            ("status", "403"),
        ] {
            assert_eq!(refusal.field(field), Some(value));
        }
        assert!(ended(&log).is_empty());
    }
}

#[tokio::test]
async fn of_nested_stacks_the_outermost_ends_a_stream() {
    let log = Log::start();
    let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc"));
    let inner = ending(&signal).build().unwrap().layer(backend.handler.clone());
    let service = ending(&signal).responder(Grpc::new()).build().unwrap().layer(inner);
    let response = service.oneshot(call("application/grpc")).await.unwrap();
    signal.end(EndReason::Revoked);
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "16");
    assert_eq!(ended(&log).len(), 1);
    assert!(backend.is_dropped());
}

#[tokio::test]
async fn an_outer_stack_that_only_reports_leaves_the_end_to_the_inner_one() {
    let (log, report) = (Log::start(), ReportOnly::new());
    let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc"));
    let inner = ending(&signal).build().unwrap().layer(backend.handler.clone());
    let outer = builder(&signal).stream_end(StreamEndLayer::new().with_report_only(&report)).build().unwrap();
    let response = outer.layer(inner).oneshot(call("application/grpc")).await.unwrap();
    signal.end(EndReason::Revoked);
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "16");
    assert_eq!((report.refusals(), log.refusals().len(), ended(&log).len()), (1, 1, 1));
}

#[tokio::test]
async fn report_only_reports_the_end_also_after_another_waived_refusal() {
    let (report, others) = (ReportOnly::new(), ReportOnly::new());
    let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc"));
    let tollgate = builder(&signal)
        .rate_limit(RateLimitLayer::new(0.per_minute()).with_report_only(&others))
        .stream_end(StreamEndLayer::new().with_report_only(&report));
    let mut stream = open(tollgate, &backend, call("application/grpc")).await;
    assert_eq!((others.refusals(), report.refusals()), (1, 0));
    signal.end(EndReason::Revoked);
    assert_eq!((next(&mut stream), next(&mut stream)), (Next::Nothing, Next::Nothing));
    assert_eq!((others.refusals(), report.refusals()), (1, 1));
}

#[tokio::test]
async fn stands_alone_and_needs_a_verify_layer() {
    let signal = EndSignal::new();
    let ada = Principal::new("ada").with_end_signal(signal.clone());
    let layers = || {
        let directory = Directory::new(&World::new().backend).with("ada", ada.clone());
        ServiceBuilder::new().layer(CredentialLayer::new()).layer(VerifyLayer::new(directory))
    };
    let backend = Backend::answering("text/event-stream");
    let service = layers().layer(StreamEndLayer::new()).service(backend.handler.clone());
    let response = service.oneshot(with_key("ada")).await.unwrap();
    signal.end(EndReason::Revoked);
    assert!(response.into_body().frame().await.is_none());

    let log = Log::start();
    let service = StreamEndLayer::new().layer(Backend::answering("text/event-stream").handler);
    assert_eq!(service.oneshot(with_key("ada")).await.unwrap().status(), 500);
    assert!(log.refusals()[0].field("detail").unwrap().contains("VerifyLayer"));
}

#[tokio::test]
async fn a_stack_has_one() {
    let error = ending(&EndSignal::new()).stream_end(StreamEndLayer::new()).build().unwrap_err();
    assert!(error.to_string().contains("two of StreamEndLayer"), "{error}");
}
