//! Every kind of response body and request body.

use std::{
    cell::Cell,
    convert::Infallible,
    future::ready,
    marker::PhantomPinned,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::Router;
use bytes::{Buf, Bytes};
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{
    BodyExt as _, Empty, Full, StreamBody,
    combinators::{BoxBody, UnsyncBoxBody},
};
use hyper::body::Incoming;
use tests::hosts::{Api, request, within};
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::trace::TraceLayer;

use super::{Content, answers, check_behind_all, nothing, stream_with_trailers};

#[tokio::test]
async fn full_and_empty_bodies_pass() {
    check_behind_all(answers(|| Full::new(Bytes::from_static(b"bytes"))), nothing).await;
    check_behind_all(answers(Full::<Bytes>::default), nothing).await;
    check_behind_all(answers(Empty::<Bytes>::new), nothing).await;
}

#[tokio::test]
async fn bodies_of_axum_pass() {
    check_behind_all(answers(|| axum::body::Body::from("bytes")), nothing).await;
    check_behind_all(answers(axum::body::Body::empty), nothing).await;
    check_behind_all(answers(|| axum::body::Body::new(stream_with_trailers())), nothing).await;
    check_behind_all(Router::new().fallback(async || "bytes"), axum::body::Body::empty).await;
}

#[tokio::test]
async fn bodies_of_tonic_pass() {
    check_behind_all(answers(|| tonic::body::Body::new(stream_with_trailers())), tonic::body::Body::empty)
        .await;
}

#[tokio::test]
async fn boxed_bodies_pass() {
    let sync = || BoxBody::<Bytes, BoxError>::new(stream_with_trailers().map_err(BoxError::from));
    let unsync = || UnsyncBoxBody::<Bytes, BoxError>::new(Full::from("bytes").map_err(BoxError::from));
    check_behind_all(answers(sync), nothing).await;
    check_behind_all(answers(unsync), nothing).await;
}

#[tokio::test]
async fn streams_keep_their_frames_and_their_trailers() {
    check_behind_all(answers(stream_with_trailers), nothing).await;

    let service = Api::new().with_slow_backend();
    let request = request(Method::GET, "/", Some(&service.key));
    let response =
        within(service.six_layers().layer(answers(stream_with_trailers)).oneshot(request)).await.unwrap();
    let frames: Vec<_> = within(response.into_body().into_data_stream().collect::<Vec<_>>()).await;
    assert_eq!(frames, [Ok(Bytes::from_static(b"one ")), Ok(Bytes::from_static(b"two"))]);
}

#[tokio::test]
async fn a_stream_is_read_only_as_far_as_its_caller_reads() {
    let api = Api::new();
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let endless = move || {
        let counter = Arc::clone(&counter);
        StreamBody::new(stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"tick")))
        }))
    };
    let request = request(Method::GET, "/", Some(&api.key));
    let response = within(api.stack().layer(answers(endless)).oneshot(request)).await.unwrap();
    let mut body = response.into_body();
    for _ in 0..3 {
        assert!(within(body.frame()).await.is_some_and(|frame| frame.unwrap().is_data()));
    }
    assert_eq!(read.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn traced_bodies_pass() {
    let traced = || ServiceBuilder::new().layer(TraceLayer::new_for_http());
    check_behind_all(traced().service(answers(stream_with_trailers)), nothing).await;
    check_behind_all(traced().service(answers(|| Full::<Bytes>::from("bytes"))), nothing).await;
}

#[tokio::test]
async fn a_default_body_is_empty() {
    // Behind a service whose body type has no default.
    let content = Content::of(tollgate::layers::Body::<Full<Bytes>>::default()).await;
    let empty = Content { length: (0, Some(0)), is_empty: true, bytes: Bytes::new(), trailers: None };
    assert_eq!(content, empty);
    assert!(tollgate::layers::Body::<Incoming>::default().is_end_stream());
}

/// A stream of one frame that owns `owned`.
fn owning<T>(owned: T) -> impl Body<Data = Bytes, Error = Infallible> {
    StreamBody::new(stream::once(async move {
        tokio::task::yield_now().await;
        drop(owned);
        Ok(Frame::data(Bytes::from_static(b"bytes")))
    }))
}

#[tokio::test]
async fn bodies_need_be_neither_sync_nor_send_nor_unpin() {
    let inner = service_fn(|_| ready(Ok::<_, Infallible>(Response::new(owning(Cell::new(1))))));
    check_behind_all(inner, nothing).await;
    let inner = service_fn(|_| ready(Ok::<_, Infallible>(Response::new(owning(Rc::new(1))))));
    check_behind_all(inner, nothing).await;
    let inner = service_fn(|_| ready(Ok::<_, Infallible>(Response::new(owning(PhantomPinned)))));
    check_behind_all(inner, || owning(Rc::new(1))).await;
}

/// An application's own `Buf`.
struct Chunk(Bytes);

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

#[tokio::test]
async fn data_need_not_be_bytes() {
    let body = || stream_with_trailers().map_frame(|frame| frame.map_data(Chunk));
    check_behind_all(answers(body), nothing).await;
}

#[tokio::test]
async fn request_bodies_of_any_kind_arrive() {
    /// Answers with the request's body.
    fn echo<B>() -> impl Service<Request<B>, Response = Response<B>, Error = Infallible> + Clone {
        service_fn(|request: Request<B>| ready(Ok(Response::new(request.into_body()))))
    }

    check_behind_all(echo(), || Full::<Bytes>::from("bytes")).await;
    check_behind_all(echo(), || axum::body::Body::from("bytes")).await;
    check_behind_all(echo(), || tonic::body::Body::new(stream_with_trailers())).await;
    check_behind_all(echo(), || UnsyncBoxBody::new(stream_with_trailers())).await;
    check_behind_all(echo(), stream_with_trailers).await;
    // Types that are not bodies.
    check_behind_all(answers(|| Full::<Bytes>::from("bytes")), || ()).await;
    check_behind_all(answers(|| Full::<Bytes>::from("bytes")), || String::from("text")).await;
    check_behind_all(answers(|| Full::<Bytes>::from("bytes")), || Rc::new(Cell::new(1))).await;
}
