//! Streams that end with the key of their caller.

mod before_head;
mod body;
mod expiry;
mod freed;
mod last_frame;
mod over;

use std::{
    convert::Infallible,
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header::CONTENT_TYPE, request};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use tests::suite::{Directory, Log, World, with_key};
use tokio::sync::mpsc;
use tollgate::{
    Denial, Principal, StreamEndLayer, Tollgate,
    layers::{Gated, TollgateBuilder},
    respond::{Grpc, Problem, respond_fn},
    store::{EndReason, EndSignal},
};
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneSyncService};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Handler = BoxCloneSyncService<Request<String>, Response<Body>, Infallible>;
type Stream = Pin<Box<tollgate::layers::Body<Body>>>;

/// Every way in which a store ends a principal, with the gRPC status.
const ENDS: [(EndReason, &str, &str); 3] = [
    (EndReason::Revoked, "16", "key_revoked"),
    (EndReason::Expired, "16", "key_expired"),
    (EndReason::TenantSuspended, "7", "tenant_suspended"),
];

/// A stack whose caller `ada` ends by this signal.
fn builder(signal: &EndSignal) -> TollgateBuilder {
    let ada = Principal::new("ada").with_tenant("acme").with_end_signal(signal.clone());
    builder_for(ada)
}

fn builder_for(ada: Principal) -> TollgateBuilder {
    let directory = Directory::new(&World::new().backend).with("ada", ada).with("bob", Principal::new("bob"));
    Tollgate::builder().verify(directory).responder(Grpc::new())
}

/// The status in the body of a gRPC-Web response: the lines of its only frame.
fn web_status(body: &[u8], is_text: bool) -> String {
    let frame = if is_text { STANDARD.decode(body).unwrap() } else { body.to_vec() };
    assert_eq!(frame[0], 0x80, "a frame of trailers");
    assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - 5);
    String::from_utf8(frame[5..].to_vec()).unwrap()
}

/// What the handler of a test does: sends frames, answers at last, and sees whether it was dropped.
struct Backend {
    frames: Option<mpsc::UnboundedSender<Frame<Bytes>>>,
    handler: Handler,
    // Held by the body, or by the future of a handler that does not answer.
    alive: Weak<()>,
}

impl Backend {
    /// Answers one request with a stream of this content type. A request to `/never` is not answered.
    fn answering(content_type: &'static str) -> Self {
        Self::answering_with(HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]))
    }

    fn answering_with(headers: HeaderMap) -> Self {
        let (frames, received) = mpsc::unbounded_channel();
        let token = Arc::new(());
        let alive = Arc::downgrade(&token);
        let once = Arc::new(Mutex::new(Some((received, token))));
        let handler = BoxCloneSyncService::new(service_fn(move |request: Request<String>| {
            let once = once.lock().unwrap().take();
            let headers = headers.clone();
            async move {
                let (received, token) = once.unwrap();
                if request.uri().path() == "/never" {
                    return waiting_with(token).await;
                }
                let frames = futures_util::stream::unfold((received, token), async |mut open| {
                    Some((Ok(open.0.recv().await?), open))
                });
                let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
                *response.headers_mut() = headers;
                Ok(response)
            }
        }));
        Self { frames: Some(frames), handler, alive }
    }

    fn send(&self, text: &'static str) {
        self.frames.as_ref().unwrap().send(Frame::data(Bytes::from_static(text.as_bytes()))).unwrap();
    }

    fn is_dropped(&self) -> bool {
        self.alive.strong_count() == 0
    }
}

/// A gRPC call by `ada`, over HTTP/2.
fn call(content_type: &'static str) -> Request<String> {
    let mut request = with_key("ada");
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = "/market.Prices/Watch".parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    request
}

/// Opens a stream.
async fn open(tollgate: TollgateBuilder, backend: &Backend, request: Request<String>) -> Stream {
    let service: Gated<Handler> = tollgate.build().unwrap().layer(backend.handler.clone());
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    Box::pin(response.into_body())
}

/// What a stream gives next.
#[derive(Debug, PartialEq)]
enum Next {
    Nothing,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl Next {
    fn data(text: &'static str) -> Self {
        Self::Data(Bytes::from_static(text.as_bytes()))
    }
}

fn next(stream: &mut Stream) -> Next {
    match stream.as_mut().poll_frame(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Pending => Next::Nothing,
        Poll::Ready(None) => Next::End,
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => Next::Data(data),
            Err(frame) => Next::Trailers(frame.into_trailers().unwrap()),
        },
    }
}

/// The events of streams that were ended.
fn ended(log: &Log) -> Vec<tests::suite::Entry> {
    let entries = log.entries().into_iter();
    entries.filter(|entry| entry.field("message") == Some("stream ended")).collect()
}

fn ending(signal: &EndSignal) -> TollgateBuilder {
    builder(signal).stream_end(StreamEndLayer::new())
}

/// Never answers, and holds the token meanwhile.
async fn waiting_with<T>(_token: Arc<()>) -> T {
    pending().await
}
