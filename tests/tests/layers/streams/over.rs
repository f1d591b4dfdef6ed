//! Streams that are over when their caller ends, and are not ended again.

use std::time::Duration;

use tests::suite::{self, Call, FaultyCredits, Latch, SlowLimiter};
use tollgate::{
    CreditsLayer, PerWindow as _, Policy, RateLimitLayer,
    layers::ReportOnly,
    limit::{Cost, Subject},
};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_its_credits_is_over() {
    for last in [Frame::trailers(HeaderMap::new()), Frame::data(Bytes::from_static(b"\x80\0\0\0\x01x"))] {
        let log = Log::start();
        let (signal, mut backend) = (EndSignal::new(), Backend::answering("application/grpc-web+proto"));
        let credits = FaultyCredits::granted("acme", 100).settling(Call::Slow(Duration::from_secs(1)));
        let tollgate = ending(&signal)
            .credits(CreditsLayer::new(credits, 10))
            .clock(tollgate::clock::ManualClock::at(suite::at(0)));
        let mut stream = open(tollgate, &backend, call("application/grpc-web+proto")).await;
        let frames = backend.frames.take().unwrap();
        let is_data = last.is_data();
        frames.send(last).unwrap();
        drop(frames);
        if is_data {
            assert!(matches!(next(&mut stream), Next::Data(_)));
        }
        assert_eq!(next(&mut stream), Next::Nothing, "the credits are being settled");
        signal.end(EndReason::Revoked);
        assert_eq!(next(&mut stream), Next::Nothing, "and the stream waits for that");
        let rest = stream.as_mut().collect().await.unwrap();
        assert!(rest.to_bytes().is_empty());
        assert!(ended(&log).is_empty());
    }
}

#[tokio::test]
async fn a_stream_that_waits_for_a_limiter_is_over() {
    let log = Log::start();
    let (signal, latch, limiter) = (EndSignal::new(), Latch::shut(), suite::Backend::prompt());
    let by_body = Policy::new("bytes", 100.per_minute())
        .with_cost(Cost::by_body(|bytes| bytes))
        .with_subject(Subject::custom(|_, _| Some("all".into())));
    let limits =
        RateLimitLayer::from_policies([by_body]).unwrap().with_limiter(SlowLimiter::new(&limiter)).unwrap();
    let mut backend = Backend::answering("application/grpc-web+proto");
    let mut stream =
        open(ending(&signal).rate_limit(limits), &backend, call("application/grpc-web+proto")).await;
    limiter.turn_into(&suite::Backend::slow(&latch));
    backend.send("one");
    backend.frames = None;
    assert_eq!((next(&mut stream), next(&mut stream)), (Next::data("one"), Next::Nothing));
    signal.end(EndReason::Revoked);
    assert_eq!(next(&mut stream), Next::Nothing);
    latch.open();
    assert!(stream.frame().await.is_none());
    assert!(ended(&log).is_empty());
}

#[tokio::test]
async fn a_web_stream_that_has_its_status_gets_no_other_one() {
    for report_only in [false, true] {
        for (content_type, status) in [
            ("application/grpc-web+proto", &b"\x80\0\0\0\x10grpc-status: 0\r\n"[..]),
            ("application/grpc-web-text", b"gAAAABBncnBjLXN0YXR1czogMA0K"),
        ] {
            let (log, report) = (Log::start(), ReportOnly::new());
            let (signal, backend) = (EndSignal::new(), Backend::answering(content_type));
            let layer = StreamEndLayer::new();
            let layer = if report_only { layer.with_report_only(&report) } else { layer };
            let mut stream = open(builder(&signal).stream_end(layer), &backend, call(content_type)).await;
            let frames = backend.frames.as_ref().unwrap();
            frames.send(Frame::data(Bytes::from_static(status))).unwrap();
            assert_eq!(next(&mut stream), Next::Data(Bytes::from_static(status)));
            signal.end(EndReason::Revoked);
            // The handler has not ended its body yet.
            assert_eq!(next(&mut stream), if report_only { Next::Nothing } else { Next::End });
            assert!(ended(&log).is_empty() && report.refusals() == 0);
        }
    }
}

#[tokio::test]
async fn a_part_of_a_message_that_looks_like_a_status_does_not_keep_a_stream_open() {
    for parts in [&[&b"\x80\0\0\0\x09x"[..]][..], &[b"\x80\0\0\0\x01x", b"more"]] {
        let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc-web"));
        let mut stream = open(ending(&signal), &backend, call("application/grpc-web")).await;
        for part in parts {
            backend.frames.as_ref().unwrap().send(Frame::data(Bytes::copy_from_slice(part))).unwrap();
            assert!(matches!(next(&mut stream), Next::Data(_)));
        }
        signal.end(EndReason::Revoked);
        let Next::Data(last) = next(&mut stream) else { unreachable!("no data") };
        assert!(web_status(&last, false).starts_with("grpc-status: 16"));
    }
}
