//! What ends with a stream: places, charges, credits, and the watch itself.

use std::pin::pin;

use tests::suite::{FaultyCredits, is_pending};
use tollgate::{
    CreditsLayer, InFlightLimitLayer, PerWindow as _, Policy, RateLimitLayer, RequestContext,
    credits::CreditMeter,
    limit::{Cost, Subject},
};

use super::*;

#[tokio::test]
async fn nothing_is_held_after_a_stream_is_dropped_or_ended_or_over() {
    for content_type in ["application/grpc", "text/event-stream"] {
        for how in ["dropped unread", "dropped while it waits", "over", "ended", "dropped before its head"] {
            let signal = EndSignal::new();
            let weak = signal.downgrade();
            let mut backend = Backend::answering(content_type);
            let tollgate = ending(&signal);
            if how == "dropped before its head" {
                let service = tollgate.build().unwrap().layer(backend.handler.clone());
                let mut request = call("application/grpc");
                *request.uri_mut() = "/never".parse().unwrap();
                let mut waiting = Box::pin(service.oneshot(request));
                assert!(is_pending(waiting.as_mut()));
            } else {
                // The stack goes with the request: only the stream is left.
                let mut stream = open(tollgate, &backend, call(content_type)).await;
                match how {
                    "dropped unread" => drop(stream),
                    "dropped while it waits" => {
                        assert_eq!(next(&mut stream), Next::Nothing);
                        drop(stream);
                    }
                    "over" => {
                        backend.frames = None;
                        assert_eq!(next(&mut stream), Next::End);
                        drop(signal);
                        assert!(!weak.is_held(), "{content_type} {how}, and the body is still there");
                        continue;
                    }
                    _ => {
                        signal.end(EndReason::Revoked);
                        while next(&mut stream) != Next::End {}
                        drop(signal);
                        assert!(!weak.is_held(), "{content_type} {how}, and the body is still there");
                        continue;
                    }
                }
            }
            drop(signal);
            assert!(!weak.is_held(), "{content_type} {how}");
            assert!(backend.is_dropped());
        }
    }
}

#[tokio::test]
async fn a_place_is_free_when_the_stream_is_ended() {
    for before_head in [false, true] {
        let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc"));
        let other = Backend::answering("text/plain");
        let everybody = Subject::custom(|_, _| Some("all".into()));
        let limit = InFlightLimitLayer::new(1).with_subject(everybody);
        let tollgate = ending(&signal).in_flight_limit(limit).build().unwrap();
        let (service, others) = (tollgate.layer(backend.handler.clone()), tollgate.layer(other.handler));
        let status = async || others.clone().oneshot(with_key("bob")).await.unwrap().status().as_u16();
        let mut request = call("application/grpc");
        if before_head {
            *request.uri_mut() = "/never".parse().unwrap();
        }
        let mut response = pin!(service.oneshot(request));
        let stream = if before_head {
            assert!(is_pending(response.as_mut()));
            None
        } else {
            Some(Box::pin(response.as_mut().await.unwrap().into_body()))
        };
        assert_eq!(status().await, 429);
        signal.end(EndReason::Revoked);
        let _still_there = match stream {
            Some(mut stream) => {
                assert!(matches!(next(&mut stream), Next::Trailers(_)));
                stream
            }
            None => Box::pin(response.await.unwrap().into_body()),
        };
        assert_eq!(status().await, 200);
    }
}

#[tokio::test]
async fn a_cut_stream_costs_what_its_handler_has_reported() {
    for before_head in [false, true] {
        for reported in [None, Some(3)] {
            let credits = FaultyCredits::granted("acme", 100);
            let signal = EndSignal::new();
            let meter = Arc::new(Mutex::new(None::<CreditMeter>));
            let seen = Arc::clone(&meter);
            let inner = service_fn(move |request: Request<String>| {
                *seen.lock().unwrap() =
                    RequestContext::of(request.extensions()).and_then(RequestContext::credits).cloned();
                async move {
                    if before_head {
                        return pending().await;
                    }
                    let body =
                        StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
                    let mut response = Response::new(body.boxed_unsync());
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                    Ok::<_, Infallible>(response)
                }
            });
            let tollgate = ending(&signal)
                .credits(CreditsLayer::new(credits.clone(), 10))
                .clock(tollgate::clock::ManualClock::at(tests::suite::at(0)));
            let service = tollgate.build().unwrap().layer(inner);
            let mut response = pin!(service.oneshot(call("application/grpc")));
            let stream = if before_head {
                assert!(is_pending(response.as_mut()));
                None
            } else {
                Some(Box::pin(response.as_mut().await.unwrap().into_body()))
            };
            assert_eq!(credits.account("acme"), (90, 10, 0));
            if let Some(cost) = reported {
                meter.lock().unwrap().as_ref().unwrap().add(cost);
            }
            signal.end(EndReason::Revoked);
            match stream {
                Some(mut stream) => assert!(matches!(next(&mut stream), Next::Trailers(_))),
                None => assert_eq!(response.await.unwrap().headers()["grpc-status"], "16"),
            }
            assert_eq!(credits.account("acme"), (100 - reported.unwrap_or(0), 0, 0), "{before_head}");
        }
    }
}

#[tokio::test]
async fn bytes_are_charged_as_far_as_they_were_read() {
    let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc"));
    let by_body = Policy::new("bytes", 100.per_minute())
        .with_cost(Cost::by_body(|bytes| bytes))
        .with_subject(Subject::custom(|_, _| Some("all".into())));
    let limits = RateLimitLayer::from_policies([by_body]).unwrap();
    let tollgate = ending(&signal).rate_limit(limits).build().unwrap();
    let service = tollgate.layer(backend.handler.clone());
    let mut stream: Stream = Box::pin(service.oneshot(call("application/grpc")).await.unwrap().into_body());
    backend.send("five!");
    assert_eq!(next(&mut stream), Next::data("five!"));
    backend.send("never read");
    signal.end(EndReason::Revoked);
    assert!(matches!(next(&mut stream), Next::Trailers(_)));
    let other = tollgate.layer(Backend::answering("text/plain").handler);
    let response = other.oneshot(with_key("bob")).await.unwrap();
    assert_eq!(response.headers()["x-ratelimit-remaining"], "95");
}
