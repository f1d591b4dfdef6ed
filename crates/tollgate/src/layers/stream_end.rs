//! Ends long streams when their caller's key ends: gRPC streams, gRPC-Web streams and server-sent events.
//!
//! Without this layer, a key is checked once for each request: a stream that is open when its key is revoked goes on until one of its
//! ends closes it.
//!
//! # What is ended
//!
//! When the key of the caller is revoked or expires, or its tenant is suspended:
//!
//! | open | how it ends |
//! |---|---|
//! | a response of `application/grpc` | trailers with the gRPC status of the refusal: `UNAUTHENTICATED` or, for a suspended tenant, `PERMISSION_DENIED` |
//! | a response of `application/grpc-web` or `application/grpc-web-text` | the same trailers, as its last data |
//! | a response of `text/event-stream` | the body ends |
//! | a gRPC or gRPC-Web request whose response has no head yet, such as a client stream | the handler's future is dropped, and the request is refused |
//! | the body of a request, such as of a client stream | it goes on: see [Security](#security) |
//! | any other request or response | it goes on: a download that is cut would look complete, or be an error |
//!
//! The end comes before data that is ready at the same time, and nothing is sent after it. A body whose size is known, by itself or by
//! `Content-Length`, is not a stream and goes on. Anonymous requests, requests for public routes and CORS preflights are not watched. A
//! gRPC-Web stream whose handler has sent its status is over, and so is a stream that only waits for its credits. A WebSocket is not a response
//! any more: `GuardedUpgrade` of `tollgate-axum` closes it, and [`Ended`](crate::Ended) helps every other library to do so.
//!
//! The status and its details are those of the stack's responder: what [`Grpc`](crate::respond::Grpc) answers to the next request of the same
//! key. Of its headers, those whose names begin with `grpc-` become the trailers, and no others: there `set-cookie`, for instance, has no
//! meaning. Where the responder of the stack does not know gRPC, or does not write gRPC-Web as the open response, the trailers are those of
//! `Grpc`.
//!
//! The responder sees of the request: its method, its target without the query, its version, its
//! [`RequestContext`](crate::RequestContext) without the credential, `TE: trailers`, and of a gRPC request `Content-Type` and the first
//! `Accept`. After the head of a stream, these two are the content type of the response. The instant of the context is that of the end.
//!
//! # What is refused
//!
//! | condition | status | log reason |
//! |---|---|---|
//! | the key of a gRPC request ends before the head of its response | 401, or 403 for a suspended tenant; `Grpc` sends it as a gRPC status | `key_revoked`, `key_expired`, `tenant_suspended` |
//! | no `VerifyLayer` outside | 500 | `misconfigured` |
//!
//! A stream that is ended after its head is one event at `INFO`, with the fields of a refusal and the message `stream ended`. Its `status` is the
//! one that was sent with the head. In report-only mode, the ends are logged and counted, and the streams go on; that holds also if another
//! refusal of the request was waived before. A call that is ended is no failed attempt: an
//! [`AttemptLimitLayer`](crate::AttemptLimitLayer) does not count it.
//!
//! # Where it stands
//!
//! Innermost, inside `VerifyLayer` and all layers that refuse. A stack has one. Of nested stacks, the outermost ends a stream.
//!
//! # Examples
//!
//! ```
//! use tollgate::{KeyFormat, KeyVerifier, MemoryKeys, StreamEndLayer, Tollgate, respond::Grpc};
//!
//! let tollgate = Tollgate::builder()
//!     .verify(KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new()))
//!     .stream_end(StreamEndLayer::new())
//!     .responder(Grpc::new())
//!     .build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Around some routes of a service only, and only to see what it would end:
//!
//! ```
//! use tollgate::{StreamEndLayer, layers::ReportOnly};
//!
//! let report = ReportOnly::new();
//! let layer = StreamEndLayer::new().with_report_only(&report); // inside the layers that authenticate
//! ```
//!
//! # What else ends with the stream
//!
//! The body of the handler is dropped, as if the caller had hung up: its place among the requests in flight is free, bytes are charged
//! for what was read, and credits are charged for what the handler has reported so far.
//!
//! # Memory
//!
//! At most 850 bytes for a gRPC call that waits for the head of its response, and 1,350 bytes for an open stream, in all, and no task. If the key
//! expires, its timer takes 112 bytes more. The texts of the head, such as the path, come on top; the server's limits bound them. The
//! request's credential is not kept.
//!
//! # Runtime
//!
//! Any, for keys that do not expire. Keys that expire need a tokio runtime whose timers are enabled, as `#[tokio::main]` does; see
//! [`Ended`](crate::Ended).
//!
//! # Security
//!
//! **Only the response is ended, never the body of the request.** If a handler reads that in a task of its own, the task goes on after the
//! end, and so does everything it does for the client. Let it select on [`Ended`](crate::Ended), or check each message by a charge of 0
//! ([`MessageMeter::charge`](crate::request::MessageMeter::charge)). A handler that reads it in its own future, or in the body that it
//! returns, is dropped.
//!
//! A stream ends as soon as this process knows of the change: with `MemoryKeys` at once, with `CachedKeys` and `CachedVerifier` within their
//! stated bounds. Data that was given to the server before, and is still in its buffers, is still sent. If a handler passes on messages
//! of another server in parts, one may be cut in its middle: a gRPC client then reports an error of its own, often `INTERNAL`, in place of
//! the status.
//!
//! An expiry is found by the runtime's timer and the clock of the stack. Where the clock runs on and the timer does not, as on a machine
//! that was suspended, an idle stream ends late by as much. A stream that sends ends with its next frame.
//!
//! A client that does not read gets nothing more, and its stream ends when it reads on: servers do not poll a body that cannot be sent. Until
//! then it holds what every slow reader holds. Give the server a time limit for writing.

use tollgate_core::denial::Denial;

use crate::engine::{Caller, Cx, Flow, Settings, impl_layer};

/// Ends long streams when their caller's key ends. See the [module](self).
///
/// ```
/// use tollgate::StreamEndLayer;
///
/// let layer = StreamEndLayer::new();
/// ```
#[derive(Clone, Debug, Default)]
pub struct StreamEndLayer {
    pub(crate) gate: StreamEndGate,
    settings: Settings,
}

impl StreamEndLayer {
    /// Ends gRPC streams and server-sent events.
    pub fn new() -> Self {
        Self::default()
    }
}

impl_layer!(StreamEndLayer, StreamEnd);

pub(crate) const LAYER: &str = "StreamEndLayer";

#[derive(Clone, Debug, Default)]
pub(crate) struct StreamEndGate;

impl StreamEndGate {
    // Not inlined: few stacks have one, and all gates run in one loop.
    #[inline(never)]
    #[expect(clippy::unused_self, reason = "as all gates")]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        // A guard decides whether such callers may pass.
        if matches!(cx.context.caller, Caller::Anonymous | Caller::Waived) {
            return Ok(Flow::Continue);
        }
        if cx.context.guarded(LAYER)?.is_some() {
            cx.watch_end();
        }
        Ok(Flow::Continue)
    }
}
