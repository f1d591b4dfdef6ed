//! What every layer is tested with: a service that counts its calls, backends that can be slow or down, a log that can
//! be read, and the [cases](Case), one for each layer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "whatever goes wrong in a test fails it")]

mod backend;
mod case;
mod credits;
mod inner;
mod log;

pub use backend::{
    Backend, Directory, Latch, SlowEntitlements, SlowGuard, SlowLimiter, SlowPlaces, limit_by_key,
};
pub use case::{Case, GOOD, Refusal, World, failing};
pub use credits::{Call, FaultyCredits};
pub use inner::{Failure, Inner};
pub use log::{Entry, Log};

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use tollgate::{Denial, DenialKind};
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

/// Layers around an [`Inner`], whatever their types.
pub type Stack = BoxCloneSyncService<Request<String>, Response<Body>, Failure>;

/// The body of a response, whatever its type.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Forgets a stack's types.
pub fn erase<B>(service: impl Erasable<B>) -> Stack
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let erased =
        service.map_response(|response: Response<B>| response.map(http_body_util::BodyExt::boxed_unsync));
    BoxCloneSyncService::new(erased)
}

/// A service whose types can be forgotten, and whose bodies are `B`.
pub trait Erasable<B>:
    Service<Request<String>, Response = Response<B>, Error = Failure, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S, B> Erasable<B> for S where
    S: Service<Request<String>, Response = Response<B>, Error = Failure, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A response that has been read to its end.
#[derive(Clone)]
pub struct Reply {
    head: response::Parts,
    body: Bytes,
}

impl Reply {
    /// Reads a response to its end.
    pub async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await;
        Self { head, body: body.to_bytes() }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The text of a header; of a repeated one all values, joined by `" | "`. Empty if there is none.
    pub fn header(&self, name: &str) -> String {
        let values: Vec<_> = self
            .head
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        values.join(" | ")
    }

    /// Its body, which is text.
    ///
    /// # Panics
    /// If it is not.
    pub fn body(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Its body as JSON.
    ///
    /// # Panics
    /// If it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Why it was refused, if it was.
    pub fn denial(&self) -> Option<&Denial> {
        self.head.extensions.get()
    }

    /// The kind of its denial, if it was refused.
    pub fn kind(&self) -> Option<DenialKind> {
        self.denial().map(Denial::kind)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.head.status)
            .field("headers", &self.head.headers)
            .field("denial", &self.denial())
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish()
    }
}

/// Sends a request through a stack, the way a server does: ready first, then call.
///
/// # Errors
/// Those of the inner service.
pub async fn try_send(stack: &mut Stack, request: Request<String>) -> Result<Reply, Failure> {
    let response = stack.ready().await?.call(request).await?;
    Ok(Reply::read(response).await)
}

/// Sends a request through a stack whose inner service does not fail.
///
/// # Panics
/// If it does.
pub async fn send(stack: &mut Stack, request: Request<String>) -> Reply {
    match try_send(stack, request).await {
        Ok(reply) => reply,
        Err(failure) => panic!("the inner service failed: {failure}"),
    }
}

/// Whether a service is ready at once.
pub fn is_ready_now<S: Service<Request<String>>>(service: &mut S) -> bool {
    matches!(service.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
}

/// Whether a future is pending.
pub fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// A `GET` of this path with these headers, in this order.
///
/// # Panics
/// If they are not valid.
pub fn get(path: &str, headers: &[(&str, &str)]) -> Request<String> {
    let request =
        headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    request.body(String::new()).unwrap()
}

/// A `GET /jobs` with `Authorization: Bearer <key>`.
pub fn with_key(key: &str) -> Request<String> {
    get("/jobs", &[("authorization", &format!("Bearer {key}"))])
}

/// So many seconds after midnight UTC of 2033-05-19: all windows up to a day begin at 0.
pub fn at(seconds: u64) -> SystemTime {
    const MIDNIGHT: u64 = 2_000_073_600;
    SystemTime::UNIX_EPOCH + Duration::from_secs(MIDNIGHT + seconds)
}
