//! Sending refused requests again.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, request::Parts};
use http_body::Body;

mod attempts;
mod deadline;
mod future;
mod replay_body;
mod requested_wait;
mod retry_info;

use attempts::Attempts;
pub use future::ResponseFuture;
use replay_body::ReadBody;
pub use replay_body::ReplayBody;

/// Sends a request again if the server refuses it and says how long to wait, after that time.
///
/// | response | sent again | wait |
/// |---|---|---|
/// | the gRPC status `RESOURCE_EXHAUSTED` in the headers (*Trailers-Only*) | yes | the longest of `grpc-retry-pushback-ms`, `RetryInfo` in `grpc-status-details-bin`, and `Retry-After` |
/// | 429 | yes | `Retry-After` (RFC 9110 section 10.2.3), in seconds or as a date |
/// | 503 | if the method is idempotent (RFC 9110 section 9.2.2) | `Retry-After` |
/// | a refusal by gRPC-Web: 200, and its gRPC status is in the body | no | |
/// | one of these without a wait, or with a `grpc-retry-pushback-ms` that is negative or not a number | no | |
/// | any other, and errors of the inner service | no | |
///
/// The refusal is returned at once, unchanged, if the [tries](Self::with_max_tries) are used up, if the server says to wait longer than the
/// [time](Self::with_max_wait) that is left, or if the wait would not end before the `grpc-timeout` of the request.
///
/// A wait is never shorter than the server says. A random part of at most a tenth of it, but at least 100 ms and at most 1 s, is added: it
/// spreads clients that were refused at the same time. The added part never exceeds the time that is left.
///
/// A date is compared to the response's `Date`, so that it does not depend on the clock of this machine; without `Date`, to the
/// [clock](crate::ClientLayer::with_clock). A date in the past is a wait of 0.
///
/// # Which requests
///
/// Only requests to the origin of the key, and only if the body can be sent again. [`Retries::new`] reads the body before the first try,
/// while it is ready, and keeps at most [64 KiB](Self::with_max_body). If the body has not ended by then, it is streamed, and the request
/// is sent once.
///
/// A refusal by a limit means that the request was not processed, so methods such as `POST` are sent again, too. Do not enable retries for
/// a server that answers 429 after it has done the work. A refusal for missing credits has no wait: such requests are not sent again.
///
/// All tries have the same request ID, because they are one request of the caller: the log of the server has one refusal for each try. A
/// gRPC request that is sent again has the time that is left as its `grpc-timeout`, and, unless it is one of gRPC-Web, the number of
/// earlier tries as its `grpc-previous-rpc-attempts` (gRPC proposal A6).
///
/// # While waiting
///
/// The layer holds no readiness of the inner service, and polls it ready again before each try. It drops the body of the refusal without
/// reading it: hyper keeps an HTTP/1 connection if the rest of the body has already arrived, and always keeps an HTTP/2 connection.
/// Nothing is spawned: to drop the response future is to end the request. tokio's timers must be enabled. A timeout inside this layer,
/// such as tonic's `Endpoint::timeout`, applies to one try; a timeout outside applies to all tries and waits.
///
/// # Examples
///
/// By how a body is made of another one:
///
/// ```
/// use tollgate_client::Retries;
///
/// let tonic = Retries::new(tonic::body::Body::new);
/// let reqwest = Retries::new(reqwest::Body::wrap);
/// let axum = Retries::new(axum::body::Body::new);
/// ```
///
/// For bodies that are complete in memory, with all settings:
///
/// ```
/// use std::time::Duration;
///
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tollgate_client::Retries;
///
/// let retries = Retries::<Full<Bytes>>::cloned().with_max_tries(5).with_max_wait(Duration::from_secs(60));
/// ```
pub struct Retries<B: Body> {
    replay: Replay<B>,
    max_tries: u32,
    max_wait: Duration,
    max_body: usize,
}

/// How a body is kept, and made again.
enum Replay<B: Body> {
    Clone(fn(&B) -> B),
    Read(Arc<Build<B>>),
}

type Build<B> = dyn Fn(ReplayBody<B>) -> B + Send + Sync;

impl<B: Body> Retries<B> {
    /// For bodies that are read before the first try. `build` makes a body from what was read: usually the constructor of a boxed body. A
    /// body that is not `Unpin` must be boxed.
    pub fn new(build: impl Fn(ReplayBody<B>) -> B + Send + Sync + 'static) -> Self {
        Self::with(Replay::Read(Arc::new(build)))
    }

    /// For bodies whose clones are complete, such as `Full<Bytes>`: nothing is read, and bodies of any size are sent again.
    pub fn cloned() -> Self
    where
        B: Clone,
    {
        Self::with(Replay::Clone(B::clone))
    }

    fn with(replay: Replay<B>) -> Self {
        Self { replay, max_tries: 3, max_wait: Duration::from_secs(30), max_body: 64 * 1024 }
    }

    /// How often a request is sent at most, the first try included. 0 means 1. Default: 3.
    pub fn with_max_tries(mut self, tries: u32) -> Self {
        self.max_tries = tries;
        self
    }

    /// How long one request waits at most, for all its tries together. If the server says to wait longer, its refusal is returned at once.
    /// Default: 30 s.
    pub fn with_max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// How many bytes of a body are kept at most, in at most 1,024 frames. A longer body is streamed, and sent once. Ignored for
    /// [`cloned`](Self::cloned) bodies. Default: 65,536.
    pub fn with_max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }
}

impl<B: Body<Data = Bytes> + Unpin> Retries<B> {
    /// The request for the first try, and what is needed for the next ones, if the request can be sent again.
    pub(crate) fn keep(&self, request: Request<B>) -> (Request<B>, Option<KeptRequest<B>>) {
        if self.max_tries <= 1 {
            return (request, None);
        }
        let (head, body) = request.into_parts();
        let (body, kept) = match &self.replay {
            Replay::Clone(clone) => {
                let kept = KeptBody::Whole(clone(&body), *clone);
                (body, Some(kept))
            }
            Replay::Read(build) => {
                let (first, pieces) = ReplayBody::read(body, self.max_body);
                (build(first), pieces.map(|pieces| KeptBody::Read(pieces, build.clone())))
            }
        };
        let kept = kept.map(|body| KeptRequest {
            attempts: Attempts::new(&head, self.max_tries, self.max_wait),
            head: head.clone(),
            body,
        });
        (Request::from_parts(head, body), kept)
    }
}

impl<B: Body> Clone for Retries<B> {
    fn clone(&self) -> Self {
        let replay = match &self.replay {
            Replay::Clone(clone) => Replay::Clone(*clone),
            Replay::Read(build) => Replay::Read(build.clone()),
        };
        Self { replay, ..*self }
    }
}

impl<B: Body> fmt::Debug for Retries<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries")
            .field("max_tries", &self.max_tries)
            .field("max_wait", &self.max_wait)
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}

/// A request that can be sent again.
pub(crate) struct KeptRequest<B: Body> {
    head: Parts,
    body: KeptBody<B>,
    attempts: Attempts,
}

enum KeptBody<B: Body> {
    Whole(B, fn(&B) -> B),
    Read(ReadBody<B>, Arc<Build<B>>),
}

impl<B: Body> KeptRequest<B> {
    /// The request of the next try.
    fn next(&self) -> Request<B> {
        let mut head = self.head.clone();
        self.attempts.mark(&mut head.headers);
        let body = match &self.body {
            KeptBody::Whole(body, clone) => clone(body),
            KeptBody::Read(read, build) => build(read.replay()),
        };
        Request::from_parts(head, body)
    }
}
