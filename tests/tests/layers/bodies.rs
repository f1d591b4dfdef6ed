//! Bodies of every kind, behind the built stack and behind six separate layers. The layers do not change the inner body, and a
//! refusal has its own body.

mod kinds;
mod other_layers;
mod proxy;

use std::{
    convert::Infallible,
    fmt::Debug,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use tests::hosts::{Api, code, header, request, within};
use tollgate::Denial;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};

/// What a body announces, and what it delivers.
#[derive(Debug, PartialEq)]
struct Content {
    length: (u64, Option<u64>),
    is_empty: bool,
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl Content {
    async fn of<B: Body<Error: Debug>>(body: B) -> Self {
        let (hint, is_empty) = (body.size_hint(), body.is_end_stream());
        let collected = within(body.collect()).await.unwrap();
        let trailers = collected.trailers().cloned();
        Self { length: (hint.lower(), hint.upper()), is_empty, bytes: collected.to_bytes(), trailers }
    }
}

/// Sends one allowed and some refused requests through `service`. Compares the allowed response with what the inner service
/// delivers without the layers.
async fn check<S, Q, B>(service: S, api: &Api, request_body: &impl Fn() -> Q, inside: &Content)
where
    S: Service<Request<Q>, Response = Response<B>, Error: Debug> + Clone,
    B: Body<Error: Debug>,
{
    let send = async |key: Option<&str>| {
        let request = request(Method::POST, "/", key).map(|_| request_body());
        within(service.clone().oneshot(request)).await.unwrap()
    };

    let allowed = send(Some(&api.key)).await;
    assert_eq!(allowed.status(), StatusCode::OK);
    assert_eq!(header(allowed.headers(), "x-ratelimit-limit"), "1000000");
    assert!(allowed.headers().contains_key("x-request-id"));
    assert_eq!(Content::of(allowed.into_body()).await, *inside);

    for (key, status, expected) in [
        (None, StatusCode::UNAUTHORIZED, "missing_credential"),
        (Some(&*api.unknown_key), StatusCode::UNAUTHORIZED, "invalid_credential"),
        (Some(&*api.key_without_scope), StatusCode::FORBIDDEN, "insufficient_scope"),
    ] {
        let refused = send(key).await;
        assert_eq!(refused.status(), status);
        assert_eq!(header(refused.headers(), "content-type"), "application/problem+json");
        assert!(refused.extensions().get::<Denial>().is_some());
        let content = Content::of(refused.into_body()).await;
        assert_eq!(code(&content.bytes), expected);
        let length = content.bytes.len() as u64;
        assert_eq!((content.length, content.is_empty), ((length, Some(length)), false));
        assert_eq!(content.trailers, None);
    }
}

/// Checks `inner` behind the built stack and behind six separate layers, with a verifier that answers at once and one that waits.
/// Its bounds on bodies are those of the layers.
async fn check_behind_all<S, Q, B>(inner: S, request_body: impl Fn() -> Q)
where
    S: Service<Request<Q>, Response = Response<B>, Error: Debug> + Clone,
    B: Body<Data: From<Bytes>, Error: Debug>,
{
    let alone = inner.clone().oneshot(Request::new(request_body()));
    let inside = Content::of(within(alone).await.unwrap().into_body()).await;

    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let service = ServiceBuilder::new()
        .map_request(move |request| {
            counter.fetch_add(1, Ordering::SeqCst);
            request
        })
        .service(inner);

    for api in [Api::new(), Api::new().with_slow_backend()] {
        check(api.stack().layer(service.clone()), &api, &request_body, &inside).await;
        check(api.six_layers().layer(service.clone()), &api, &request_body, &inside).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4, "once for each allowed request");
}

/// A service that answers every request with `body()`.
fn answers<Q, B>(
    body: impl Fn() -> B + Clone,
) -> impl Service<Request<Q>, Response = Response<B>, Error = Infallible, Future: Send> + Clone
where
    B: Send,
{
    service_fn(move |_| ready(Ok(Response::new(body()))))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("x-checksum"), HeaderValue::from_static("abc"))])
}

/// Three frames, the last of them trailers.
fn stream_with_trailers() -> impl Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static {
    let frames = [
        Frame::data(Bytes::from_static(b"one ")),
        Frame::data(Bytes::from_static(b"two")),
        Frame::trailers(trailers()),
    ];
    StreamBody::new(stream::iter(frames.map(Ok)))
}

/// An empty request body.
fn nothing() -> Empty<Bytes> {
    Empty::new()
}
