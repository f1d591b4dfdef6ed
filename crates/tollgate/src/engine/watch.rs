//! Watching a request for the end of its caller: until the head of its response, and then in the body of a stream.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TE,
        TRANSFER_ENCODING, VARY, WWW_AUTHENTICATE,
    },
    request,
};
use http_body::Frame;
use tollgate_core::{denial::Denial, request::RequestHead, respond::Respond as _};

use super::{
    ReportOnly, RequestContext, ResponseParts,
    context::KeptContext,
    refusal::{Event, Refusal},
};
use crate::{
    Ended,
    layers::stream_end::LAYER,
    respond::{Grpc, Problem},
};

/// A request that is watched for the end of its caller, with what its refusal needs.
///
/// The credential is not among that: a stream may be open for days.
#[derive(Clone)]
pub(crate) struct Watch {
    ended: Ended,
    context: KeptContext,
    method: Method,
    uri: Uri,
    version: Version,
    content_type: Option<HeaderValue>,
    te: Option<HeaderValue>,
    // Whether it is watched before the head of its response, too.
    is_grpc: bool,
    // Present in report-only mode: the end is counted here, and nothing is ended.
    report_only: Option<ReportOnly>,
    // What the response is, once its head has arrived.
    stream: Option<Stream>,
    status: StatusCode,
}

/// A response that is ended with its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stream {
    Grpc,
    GrpcWeb,
    Events,
}

impl Watch {
    /// `None` if no layer has authenticated the caller.
    pub(super) fn of(head: RequestHead<'_>, context: &RequestContext) -> Option<Self> {
        let content_type = head.headers.get(CONTENT_TYPE);
        let is_grpc = head.method == Method::POST
            && matches!(Stream::of(content_type), Some(Stream::Grpc | Stream::GrpcWeb));
        Some(Self {
            ended: Ended::of_context(context)?,
            context: context.for_later(),
            method: head.method.clone(),
            uri: without_query(head.uri),
            version: head.version,
            content_type: content_type.cloned(),
            te: head.headers.get(TE).cloned(),
            is_grpc,
            report_only: None,
            stream: None,
            status: StatusCode::OK,
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
            self.stream = Stream::of(headers.get(CONTENT_TYPE));
        }
        self.status = response.status();
        self.stream.is_some()
    }

    /// Waits for the end of the caller, and takes the watch then. In report-only mode, the end is logged and the wait is over.
    pub(super) fn poll(watch: &mut Option<Box<Self>>, cx: &mut Context<'_>) -> Poll<(Box<Self>, Denial)> {
        let Some(watching) = watch else { return Poll::Pending };
        let denial = ready!(Pin::new(&mut watching.ended).poll(cx));
        match watch.take() {
            Some(ended) if !ended.waives(&denial) => Poll::Ready((ended, denial)),
            _ => Poll::Pending,
        }
    }

    fn waives(&self, denial: &Denial) -> bool {
        let Some(report) = &self.report_only else { return false };
        if !self.context.is_waived {
            report.count();
            let (status, head) = (denial.status(), &self.head());
            let event = Event { message: "refused", layer: LAYER, denial, status, report_only: true };
            event.log(RequestHead::from(head), &self.context.clone().restore(ResponseParts::NONE));
        }
        true
    }

    /// Refuses the request, whose inner service was dropped: the head of its response had not arrived.
    pub(super) fn refuse(self, denial: Denial, mut parts: ResponseParts) -> Refusal {
        // As if the caller had hung up: the handler may have done part of its work.
        parts.break_off_reservation();
        Refusal::new(LAYER, denial, Request::from_parts(self.into_head(parts), ()))
    }

    /// Logs that the stream is ended, and gives its last frame.
    pub(super) fn end_stream(self, denial: &Denial) -> Option<Frame<Bytes>> {
        let (stream, status) = (self.stream?, self.status);
        let mut head = self.into_head(ResponseParts::NONE);
        let event = Event { message: "stream ended", layer: LAYER, denial, status, report_only: false };
        event.log(RequestHead::from(&head), RequestContext::of_refused(&head));
        match stream {
            Stream::Grpc => Some(Frame::trailers(trailers(denial, &mut head))),
            Stream::GrpcWeb => last_data(denial, &mut head).map(Frame::data),
            Stream::Events => None,
        }
    }

    /// The head of the request, as a responder sees it. Its extensions are empty.
    fn head(&self) -> request::Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method.clone();
        head.uri = self.uri.clone();
        head.version = self.version;
        for (name, value) in [(CONTENT_TYPE, &self.content_type), (TE, &self.te)] {
            head.headers.extend(value.clone().map(|value| (name, value)));
        }
        head
    }

    /// The head of the request, with its context.
    fn into_head(self, parts: ResponseParts) -> request::Parts {
        let mut head = self.head();
        Box::new(self.context.restore(parts)).put(&mut head.extensions);
        head
    }
}

impl Stream {
    /// By the content type of a request or a response.
    fn of(content_type: Option<&HeaderValue>) -> Option<Self> {
        let value = content_type?.as_bytes();
        let media_type = value.split(|byte| *byte == b';').next()?.trim_ascii();
        let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
        let begins = |name: &str| {
            media_type.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
        };
        if is("text/event-stream") {
            Some(Self::Events)
        } else if begins("application/grpc-web") {
            Some(Self::GrpcWeb)
        } else if is("application/grpc") || begins("application/grpc+") {
            Some(Self::Grpc)
        } else {
            None
        }
    }
}

/// A key may be in the query.
fn without_query(uri: &Uri) -> Uri {
    match uri.query() {
        None => uri.clone(),
        Some(_) => uri.path().parse().unwrap_or_default(),
    }
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The fields of a refusal that have no meaning in trailers (RFC 9110 section 6.5.1).
static NOT_IN_TRAILERS: [HeaderName; 10] = [
    ALLOW,
    CACHE_CONTROL,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    RETRY_AFTER,
    TRANSFER_ENCODING,
    VARY,
    WWW_AUTHENTICATE,
];

/// The trailers of a gRPC stream that is ended: the headers of the refusal, which is Trailers-Only.
fn trailers(denial: &Denial, head: &mut request::Parts) -> HeaderMap {
    let mut trailers = refusal(denial, head).into_parts().0.headers;
    if !trailers.contains_key(&GRPC_STATUS) {
        // The responder does not know gRPC, but the caller does.
        trailers = Grpc::new().respond(denial, head).into_parts().0.headers;
    }
    for name in &NOT_IN_TRAILERS {
        trailers.remove(name);
    }
    trailers
}

/// The last data of a gRPC-Web stream that is ended: the body of the refusal.
fn last_data(denial: &Denial, head: &mut request::Parts) -> Option<Bytes> {
    let is_grpc_web = |response: &Response<Bytes>| {
        Stream::of(response.headers().get(CONTENT_TYPE)) == Some(Stream::GrpcWeb)
    };
    let mut refusal = refusal(denial, head);
    if !is_grpc_web(&refusal) {
        refusal = Grpc::new().respond(denial, head);
    }
    is_grpc_web(&refusal).then(|| refusal.into_body())
}

/// The answer of the stack's responder.
fn refusal(denial: &Denial, head: &mut request::Parts) -> Response<Bytes> {
    let responder = RequestContext::of_refused(head).responder().cloned();
    match responder {
        Some(responder) => responder.respond(denial, head),
        None => Problem::new().respond(denial, head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_small() {
        assert!(size_of::<Watch>() <= 448, "{} bytes", size_of::<Watch>());
    }

    #[test]
    fn streams_are_recognized_by_their_content_type() {
        for (content_type, expected) in [
            ("application/grpc", Some(Stream::Grpc)),
            ("application/grpc+proto", Some(Stream::Grpc)),
            ("Application/gRPC ; a=b", Some(Stream::Grpc)),
            ("application/grpc-web", Some(Stream::GrpcWeb)),
            ("application/grpc-web-text+proto;charset=utf-8", Some(Stream::GrpcWeb)),
            ("text/event-stream", Some(Stream::Events)),
            ("text/event-stream; charset=utf-8", Some(Stream::Events)),
            ("application/grpcx", None),
            ("text/event-streams", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(Stream::of(Some(&HeaderValue::from_static(content_type))), expected, "{content_type}");
        }
        assert_eq!(Stream::of(None), None);
    }
}
