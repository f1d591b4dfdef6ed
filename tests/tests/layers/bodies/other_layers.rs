//! Other tower layers outside and inside, and the errors that they cause.

use std::{
    convert::Infallible,
    future::{pending, ready},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use tests::hosts::{Api, request, within};
use tollgate::Denial;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_http::{
    cors::CorsLayer, map_response_body::MapResponseBodyLayer, timeout::TimeoutLayer, trace::TraceLayer,
};

use super::{Content, answers, check, nothing, stream_with_trailers};

#[tokio::test]
async fn layers_outside_accept_the_body() {
    let api = Api::new();
    let alone = Content::of(stream_with_trailers()).await;
    // CORS and the timeout require `ResBody: Default`.
    let (cors, timeout) = (CorsLayer::permissive, || {
        TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(10))
    });
    let trace = TraceLayer::new_for_http;

    let service =
        ServiceBuilder::new().layer(trace()).layer(api.stack()).service(answers(stream_with_trailers));
    check(service, &api, &nothing, &alone).await;
    let service =
        ServiceBuilder::new().layer(trace()).layer(api.six_layers()).service(answers(stream_with_trailers));
    check(service, &api, &nothing, &alone).await;
    let service = ServiceBuilder::new()
        .layer(trace())
        .layer(cors())
        .layer(timeout())
        .layer(api.stack())
        .layer(trace())
        .service(answers(stream_with_trailers));
    check(service, &api, &nothing, &alone).await;
    let service = ServiceBuilder::new()
        .layer(cors())
        .layer(timeout())
        .layer(api.six_layers())
        .layer(trace())
        .service(answers(stream_with_trailers));
    check(service, &api, &nothing, &alone).await;
    let service = ServiceBuilder::new()
        .layer(MapResponseBodyLayer::new(BoxBody::new))
        .layer(api.six_layers())
        .service(answers(stream_with_trailers));
    check(service, &api, &nothing, &alone).await;
}

#[tokio::test]
async fn errors_of_the_service_pass_untouched() {
    let api = Api::new();
    let failing = service_fn(|_: Request<Full<Bytes>>| {
        ready(Err::<Response<Empty<Bytes>>, _>(io::Error::other("error of the service")))
    });
    let send = async |key: Option<&str>| {
        let (built, separate) = (api.stack().layer(failing), api.six_layers().layer(failing));
        let built =
            within(built.oneshot(request(Method::GET, "/", key))).await.map(|response| response.status());
        let separate = within(separate.oneshot(request(Method::GET, "/", key))).await;
        (built, separate.map(|response| response.status()))
    };
    let (built, separate) = send(Some(&api.key)).await;
    assert_eq!(built.unwrap_err().to_string(), "error of the service");
    assert_eq!(separate.unwrap_err().to_string(), "error of the service");
    let (built, separate) = send(None).await;
    assert_eq!(built.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!(separate.unwrap(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn errors_in_the_middle_of_a_body_pass_untouched() {
    let api = Api::new();
    let breaks = || {
        let frames =
            [Ok(Frame::data(Bytes::from_static(b"half"))), Err(io::Error::other("error of the body"))];
        StreamBody::new(stream::iter(frames))
    };
    let request = request(Method::GET, "/", Some(&api.key));
    let mut body =
        within(api.six_layers().layer(answers(breaks)).oneshot(request)).await.unwrap().into_body();
    assert_eq!(within(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
    assert_eq!(within(body.frame()).await.unwrap().unwrap_err().to_string(), "error of the body");
}

#[tokio::test]
async fn tower_layers_work_outside_and_inside() {
    let api = Api::new();
    let alone = Content::of(stream_with_trailers()).await;
    let tower = || {
        ServiceBuilder::new()
            .buffer(4)
            .load_shed()
            .concurrency_limit(2)
            .timeout(Duration::from_secs(10))
            .into_inner()
    };
    let inner = || answers::<Empty<Bytes>, _>(stream_with_trailers);
    check(ServiceBuilder::new().layer(tower()).layer(api.stack()).service(inner()), &api, &nothing, &alone)
        .await;
    check(ServiceBuilder::new().layer(api.stack()).layer(tower()).service(inner()), &api, &nothing, &alone)
        .await;
    check(
        ServiceBuilder::new().layer(tower()).layer(api.six_layers()).service(inner()),
        &api,
        &nothing,
        &alone,
    )
    .await;
    check(
        ServiceBuilder::new().layer(api.six_layers()).layer(tower()).service(inner()),
        &api,
        &nothing,
        &alone,
    )
    .await;
    let service = ServiceBuilder::new().boxed_clone().layer(api.stack()).service(inner());
    check(service, &api, &nothing, &alone).await;
    let service = BoxCloneSyncService::new(api.six_layers().layer(inner()));
    check(service, &api, &nothing, &alone).await;
}

#[tokio::test]
async fn unauthenticated_callers_do_not_learn_that_the_service_is_overloaded() {
    let api = Api::new();
    let service = ServiceBuilder::new()
        .layer(api.stack())
        .load_shed()
        .concurrency_limit(1)
        .service_fn(|_: Request<Full<Bytes>>| pending::<Result<Response<Empty<Bytes>>, Infallible>>());
    let mut busy = service.clone();
    let at_work = within(busy.ready()).await.unwrap().call(request(Method::GET, "/", Some(&api.key)));

    let shed = within(service.clone().oneshot(request(Method::GET, "/", Some(&api.key)))).await;
    assert!(shed.unwrap_err().is::<tower::load_shed::error::Overloaded>());
    let refused = within(service.clone().oneshot(request(Method::GET, "/", None))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    drop(at_work);
}

#[tokio::test]
async fn an_idle_service_holds_no_permit_after_a_refusal() {
    let api = Api::new();
    let limited = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(answers::<Full<Bytes>, _>(|| Full::<Bytes>::from("bytes")));
    let mut built = [api.stack().layer(limited.clone()), api.stack().layer(limited.clone())];
    let mut separate = [api.six_layers().layer(limited.clone()), api.six_layers().layer(limited)];
    for _ in 0..2 {
        for service in &mut built {
            let response =
                within(within(service.ready()).await.unwrap().call(request(Method::GET, "/", None))).await;
            assert_eq!(response.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
        for service in &mut separate {
            let response =
                within(within(service.ready()).await.unwrap().call(request(Method::GET, "/", None))).await;
            assert_eq!(response.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_covers_the_wait_for_a_verifier() {
    struct Silent;

    impl tollgate::verify::Verify for Silent {
        fn verify(
            &self,
            _: &tollgate::verify::VerifyRequest<'_>,
        ) -> tollgate::Answer<Result<Arc<tollgate::Principal>, Denial>> {
            tollgate::Answer::later(pending())
        }
    }

    let tollgate = tollgate::Tollgate::builder().verify(Silent).build().unwrap();
    let service = ServiceBuilder::new().timeout(Duration::from_secs(1)).layer(tollgate).service(answers::<
        Full<Bytes>,
        _,
    >(
        Empty::<Bytes>::new,
    ));
    let slow = within(service.clone().oneshot(request(Method::GET, "/", Some("key")))).await;
    assert!(slow.unwrap_err().is::<tower::timeout::error::Elapsed>());
    let refused = within(service.oneshot(request(Method::GET, "/", None))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_covers_only_the_service() {
    let api = Api::new();
    let service = ServiceBuilder::new()
        .layer(api.six_layers())
        .timeout(Duration::from_secs(1))
        .service_fn(|_: Request<Full<Bytes>>| pending::<Result<Response<Empty<Bytes>>, Infallible>>());
    let slow = within(service.clone().oneshot(request(Method::GET, "/", Some(&api.key)))).await;
    assert!(slow.unwrap_err().is::<tower::timeout::error::Elapsed>());
    let refused = within(service.oneshot(request(Method::GET, "/", None))).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}
