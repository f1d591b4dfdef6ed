//! Watching a request for the end of its caller: until the head of its response, and then in the body of a stream.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE},
    request,
};
use http_body::Frame;
use tollgate_core::{denial::Denial, request::RequestHead};

use super::{
    ReportOnly, RequestContext, ResponseParts,
    context::KeptContext,
    last_frame::Stream,
    refusal::{Event, Logged, Refusal},
};
use crate::{Ended, layers::stream_end::LAYER, respond::GrpcKind};

/// A request that is watched for the end of its caller, with what its refusal needs.
///
/// The credential is not among that: a stream may be open for days. Nor is the memory of the connection, of which a server's heads are
/// parts: what is kept is copied.
#[derive(Clone)]
pub(crate) struct Watch {
    ended: Ended,
    context: KeptContext,
    method: Method,
    // Without the query: a key may be in it.
    target: Uri,
    version: Version,
    // Of a gRPC request. From the head of a stream on, that of the response: the client reads it.
    content_type: Option<HeaderValue>,
    // Of a gRPC request.
    accept: Option<HeaderValue>,
    accepts_trailers: bool,
    // Whether it is watched before the head of its response, too.
    is_grpc: bool,
    // Present in report-only mode: the end is counted here, and nothing is ended.
    report_only: Option<ReportOnly>,
    // What the response is, once its head has arrived.
    stream: Option<Stream>,
    // Of its head.
    status: StatusCode,
    // Whether the last data was the status of the handler, which gRPC-Web sends as data. After it there must be no other one.
    has_status: bool,
}

impl Watch {
    /// `None` if no layer has authenticated the caller.
    pub(super) fn of(head: RequestHead<'_>, context: &RequestContext) -> Option<Self> {
        let is_grpc = GrpcKind::of_head(head).is_some();
        let copy_of = |name| if is_grpc { copy(head.headers.get(name)?) } else { None };
        Some(Self {
            ended: Ended::of_context(context)?,
            context: context.for_later(),
            method: head.method.clone(),
            target: without_query(head.uri),
            version: head.version,
            content_type: copy_of(CONTENT_TYPE),
            accept: copy_of(ACCEPT),
            accepts_trailers: head.headers.get(TE).is_some_and(|te| te == "trailers"),
            is_grpc,
            report_only: None,
            stream: None,
            status: StatusCode::OK,
            has_status: false,
        })
    }

    /// Has the end counted and logged only.
    pub(super) fn report_to(&mut self, report: &ReportOnly) {
        self.report_only = Some(report.clone());
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// Sees the head of the response. Returns whether its body is a stream, which is ended with the caller.
    pub(super) fn see_head<B>(&mut self, response: &Response<B>) -> bool {
        let headers = response.headers();
        if !headers.contains_key(CONTENT_LENGTH) {
            self.stream = Stream::of(headers);
        }
        self.content_type = headers.get(CONTENT_TYPE).and_then(copy);
        self.status = response.status();
        self.stream.is_some()
    }

    /// Sees data of the stream.
    pub(super) fn see_data(&mut self, data: &impl Buf) {
        self.has_status = self.stream.is_some_and(|stream| stream.is_status(data));
    }

    /// Whether the caller has ended. If so, takes the watch. In report-only mode, the end is logged, and not watched for any longer.
    #[inline]
    pub(super) fn take_ended(watch: &mut Option<Box<Self>>) -> Option<(Box<Self>, Denial)> {
        let denial = watch.as_ref()?.ended.now()?;
        Self::take_unless_waived(watch, denial)
    }

    /// Waits for the end of the caller, as [`take_ended`](Self::take_ended) sees it.
    pub(super) fn poll_ended(
        watch: &mut Option<Box<Self>>,
        cx: &mut Context<'_>,
    ) -> Poll<(Box<Self>, Denial)> {
        let Some(watching) = watch else { return Poll::Pending };
        let denial = ready!(watching.ended.poll_end(cx));
        Self::take_unless_waived(watch, denial).map_or(Poll::Pending, Poll::Ready)
    }

    #[cold]
    fn take_unless_waived(watch: &mut Option<Box<Self>>, denial: Denial) -> Option<(Box<Self>, Denial)> {
        let ended = watch.take()?;
        let Some(report) = &ended.report_only else { return Some((ended, denial)) };
        // Also if a refusal of the request was waived before: that was another one, perhaps of a layer that stays in report-only mode.
        if !ended.has_status {
            report.count();
            ended.log("refused", &denial, denial.status(), true);
        }
        None
    }

    /// Refuses the request, whose inner service was dropped: the head of its response had not arrived.
    pub(super) fn refuse(self, denial: Denial, mut parts: ResponseParts) -> Refusal {
        // As if the caller had hung up: the handler may have done part of its work.
        parts.break_off_reservation();
        Refusal::of_admitted(LAYER, denial, Request::from_parts(self.into_head(parts), ()))
    }

    /// Logs that the stream is ended, and gives its last frame. A stream that has its status is over, and needs neither.
    pub(super) fn end_stream(self, denial: &Denial) -> Option<Frame<Bytes>> {
        if self.has_status {
            return None;
        }
        self.log("stream ended", denial, self.status, false);
        let stream = self.stream?;
        stream.last_frame(denial, &mut self.into_head(ResponseParts::NONE))
    }

    fn log(&self, message: &'static str, denial: &Denial, status: StatusCode, report_only: bool) {
        Event { message, layer: LAYER, denial, status, report_only }.log_of(&Logged {
            method: &self.method,
            path: self.target.path(),
            request_id: self.context.request_id(),
            principal: self.context.principal().map(Arc::as_ref),
        });
    }

    /// The head of the request, as a responder sees it, with its context.
    fn into_head(self, parts: ResponseParts) -> request::Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method;
        head.uri = self.target;
        head.version = self.version;
        let accept = if self.stream.is_some() { self.content_type.clone() } else { self.accept };
        let te = self.accepts_trailers.then_some(HeaderValue::from_static("trailers"));
        for (name, value) in [(CONTENT_TYPE, self.content_type), (ACCEPT, accept), (TE, te)] {
            head.headers.extend(value.map(|value| (name, value)));
        }
        Box::new(self.context.restore(parts)).put(&mut head.extensions);
        head
    }
}

/// The same value, in memory of its own.
fn copy(value: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

/// The same target without its query, in memory of its own.
fn without_query(uri: &Uri) -> Uri {
    let path = uri.path();
    let target = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{path}"),
        (None, Some(authority)) => authority.to_string(),
        _ => path.to_owned(),
    };
    target.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_keeps_all_but_its_query() {
        for (target, expected) in [
            ("/a/b?key=s3cr3t", "/a/b"),
            ("/a/b", "/a/b"),
            ("https://api.example.com:8443/a/b?key=s3cr3t", "https://api.example.com:8443/a/b"),
            ("https://api.example.com?key=s3cr3t", "https://api.example.com/"),
            ("api.example.com:443", "api.example.com:443"),
            ("*", "*"),
        ] {
            assert_eq!(without_query(&target.parse().unwrap()).to_string(), expected);
        }
    }

    #[test]
    fn a_watch_is_small() {
        assert!(size_of::<Watch>() <= 448, "{} bytes", size_of::<Watch>());
    }
}
