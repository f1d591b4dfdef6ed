//! Charging requests in credits: what is refused, what is charged, and what remains if a backend or a caller fails.

mod charged;
mod faults;
mod idempotency;
mod refused;

use std::{convert::Infallible, error::Error, fmt, future::pending, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tests::suite::{Directory, FaultyCredits, World, at, get};
use tollgate::{
    CreditsLayer, Plan, Principal, RequestContext, Tollgate,
    clock::ManualClock,
    credits::{CreditCost, CreditMeter},
    layers::{Gated, TollgateBuilder},
};
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneSyncService};

type Body = UnsyncBoxBody<Bytes, Broken>;
type Handler = BoxCloneSyncService<Request<String>, Response<Body>, &'static str>;

/// The error of a body.
#[derive(Clone, Copy, Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is broken")
    }
}

impl Error for Broken {}

/// What each request is estimated to cost.
const ESTIMATE: u64 = 10;

/// A stack whose requests cost [`ESTIMATE`] credits.
fn builder(credits: &FaultyCredits) -> TollgateBuilder {
    builder_with(CreditsLayer::new(credits.clone(), ESTIMATE))
}

fn builder_with(layer: CreditsLayer) -> TollgateBuilder {
    let directory = Directory::new(&World::new().backend)
        .with("ada", Principal::new("ada").with_tenant("acme"))
        .with("bob", Principal::new("bob").with_tenant("acme").with_plan(Plan::active("pro")))
        .with("cyd", Principal::new("cyd").with_tenant("globex"))
        .with("dan", Principal::new("dan"));
    Tollgate::builder().verify(directory).credits(layer).clock(ManualClock::at(at(0)))
}

fn service(tollgate: TollgateBuilder) -> Gated<Handler> {
    tollgate.build().unwrap().layer(handler())
}

fn charging(credits: &FaultyCredits) -> Gated<Handler> {
    service(builder(credits))
}

/// Answers by the first segment of the path. If there is a second one, it is the cost that the handler reports: with the first frame of a
/// streaming body, otherwise before the response.
fn handler() -> Handler {
    BoxCloneSyncService::new(service_fn(|request: Request<String>| async move {
        let credits = RequestContext::of(request.extensions()).and_then(RequestContext::credits).cloned();
        let mut segments = request.uri().path().split('/').skip(1);
        let how = segments.next().unwrap_or_default().to_owned();
        let report = Report { credits, cost: segments.next().and_then(|cost| cost.parse().ok()) };
        answer(&how, report).await
    }))
}

#[derive(Clone)]
struct Report {
    credits: Option<CreditMeter>,
    cost: Option<u64>,
}

impl Report {
    fn report(&self) {
        if let (Some(credits), Some(cost)) = (&self.credits, self.cost) {
            credits.add(cost);
        }
    }
}

#[expect(clippy::panic, reason = "a handler that panics is under test")]
async fn answer(how: &str, report: Report) -> Result<Response<Body>, &'static str> {
    let reporting = {
        let report = report.clone();
        move || {
            report.report();
            Ok(Frame::data(Bytes::from_static(b"one")))
        }
    };
    let streaming = |rest: Vec<Result<Frame<Bytes>, Broken>>| {
        let first = stream::once(async move { reporting() });
        StreamBody::new(futures_util::StreamExt::chain(first, stream::iter(rest))).boxed_unsync()
    };
    let trailers = |status| {
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        Ok(Frame::trailers(trailers))
    };
    let two = || Ok(Frame::data(Bytes::from_static(b"two")));
    let ok = |body| Ok(Response::new(body));
    match how {
        "stream" => return ok(streaming(vec![two()])),
        "broken" => return ok(streaming(vec![Err(Broken), two()])),
        "grpc-ok" => return ok(streaming(vec![trailers("0")])),
        "grpc-failed" => return ok(streaming(vec![trailers("13")])),
        "counted" => {
            let mut response = Response::new(streaming(vec![two()]));
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(6));
            return Ok(response);
        }
        _ => {}
    }
    report.report();
    let full = || Full::<Bytes>::from("inside").map_err(infallible).boxed_unsync();
    let with_status = |status| Ok(Response::builder().status(status).body(full()).unwrap());
    match how {
        "full" => ok(full()),
        "empty" => ok(Empty::new().map_err(infallible).boxed_unsync()),
        "redirect" => with_status(StatusCode::SEE_OTHER),
        "not-modified" => with_status(StatusCode::NOT_MODIFIED),
        "switching" => with_status(StatusCode::SWITCHING_PROTOCOLS),
        "error" => with_status(StatusCode::INTERNAL_SERVER_ERROR),
        "missing" => with_status(StatusCode::NOT_FOUND),
        "grpc-refused" => Ok(Response::builder().header("grpc-status", "7").body(full()).unwrap()),
        "fail" => Err("the handler failed"),
        "panic" => panic!("the handler panicked"),
        _ => pending().await,
    }
}

fn infallible(never: Infallible) -> Broken {
    match never {}
}

fn by(key: &str, path: &str) -> Request<String> {
    get(path, &[("x-api-key", key)])
}

/// A response, without having read its body.
async fn begin(service: &Gated<Handler>, request: Request<String>) -> Response<tollgate::layers::Body<Body>> {
    service.clone().oneshot(request).await.unwrap()
}

/// A response that is read to the end of its body, or to the body's error.
async fn finish(service: &Gated<Handler>, request: Request<String>) -> Response<Bytes> {
    let (head, mut body) = begin(service, request).await.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend(frame.into_data().unwrap_or_default());
    }
    Response::from_parts(head, bytes.into())
}

/// Costs by the caller's plan: 1 with an active one.
fn by_plan() -> CreditCost {
    CreditCost::by_request(|_head, _principal, plan| if plan.is_some() { 1 } else { ESTIMATE })
}

/// A request context that the handler has seen.
type Seen = Arc<std::sync::Mutex<Vec<CreditMeter>>>;

/// A handler that keeps its meters, and answers with the status 200.
fn watching(seen: &Seen) -> Handler {
    let seen = Arc::clone(seen);
    BoxCloneSyncService::new(service_fn(move |request: Request<String>| {
        let meter = RequestContext::of(request.extensions()).and_then(RequestContext::credits);
        seen.lock().unwrap().extend(meter.cloned());
        let body = Full::<Bytes>::from("inside").map_err(infallible).boxed_unsync();
        async { Ok(Response::new(body)) }
    }))
}
