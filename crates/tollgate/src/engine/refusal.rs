//! A denial becomes a response and a log event.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    request,
};
use tollgate_core::{
    denial::{Denial, Outcome},
    request::RequestHead,
    respond::Respond as _,
    verify::Principal,
};

use super::{
    Body, RequestContext,
    deferred::Charging,
    headers::{PRIVATE, set_header_default},
};
use crate::{
    number_text::number_text,
    request_id::RequestId,
    respond::{Problem, ResponseHead},
};

mod challenge;

pub(crate) use challenge::Schemes;
use challenge::add_challenges;

/// Refuses a request as the layers do, from a layer or a handler of the application's own.
///
/// The responder that outer layers have set makes the response, which carries the denial in its extensions. The refusal is
/// logged like those of the layers; `layer` is the value of the event's field `layer`. `request` is the head of the refused
/// request, with the [`RequestContext`] in its extensions. Where no layer has run, the default responder answers. The body is of any
/// type that is made from bytes, such as `axum::body::Body`.
///
/// ```
/// use std::{
///     convert::Infallible,
///     task::{Context, Poll},
/// };
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use tollgate::{Denial, DenialKind, RequestContext, answer::Pending, respond::refuse};
/// use tower::Service;
///
/// /// Admits only the organizations of a pilot.
/// #[derive(Clone)]
/// struct PilotOnly<S> {
///     inner: S,
/// }
///
/// impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for PilotOnly<S>
/// where
///     S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
///     S::Future: Send + 'static,
///     ResponseBody: From<Bytes> + Send + 'static,
/// {
///     type Response = S::Response;
///     type Error = S::Error;
///     type Future = Pending<Result<S::Response, S::Error>>;
///
///     fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
///         self.inner.poll_ready(context)
///     }
///
///     fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
///         let principal = RequestContext::of(request.extensions()).and_then(RequestContext::principal);
///         if principal.and_then(|principal| principal.tenant()) == Some("acme") {
///             return Box::pin(self.inner.call(request));
///         }
///         let (mut head, _) = request.into_parts();
///         let denial = Denial::new(DenialKind::Forbidden)
///             .with_code("pilot_only")
///             .with_detail("Ask us to join the pilot.");
///         let response = refuse("PilotOnly", denial, &mut head);
///         Box::pin(async { Ok(response) })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Infallible> {
/// let inner = tower::service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Bytes::new())));
/// let response = PilotOnly { inner }.call(Request::new(())).await?;
/// assert_eq!(response.status(), 403);
/// # Ok(())
/// # }
/// ```
pub fn refuse<B: From<Bytes>>(
    layer: &'static str,
    denial: Denial,
    request: &mut request::Parts,
) -> Response<B> {
    let denial = RequestContext::of_refused(request).in_verifiers_words(denial);
    let mut response = respond(layer, &denial, request);
    response.extensions_mut().insert(denial);
    response.map(B::from)
}

/// The answer of the responder that outer layers have set, or else the default one's.
pub(super) fn answer(denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
    let responder = RequestContext::of_refused(request).responder().map(Arc::clone);
    match responder {
        Some(responder) => responder.respond(denial, request),
        None => Problem::new().respond(denial, request),
    }
}

/// Logs a denial and makes the response to it, with what every refusal needs.
fn respond(layer: &'static str, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
    let mut response = answer(denial, request);
    let context = RequestContext::of_refused(request);
    complete(&mut response, denial, context);
    let status = response.status();
    let event = Event { message: "refused", layer, denial, status, report_only: false };
    event.log(RequestHead::from(&*request), context);
    response
}

/// Marks the refusal of a request whose caller has ended after all layers had admitted it. It was no attempt to authenticate.
#[derive(Clone, Copy)]
pub(crate) struct WasAdmitted;

/// The response to a refused request, and the charges that still have to be made for it.
pub(super) struct Refusal {
    response: Response<Bytes>,
    // Boxed, because few refusals have such.
    charging: Option<Box<Charging>>,
}

impl Refusal {
    /// Refuses a request. The response carries what the refusing gate and those before it add.
    pub(super) fn new<B>(layer: &'static str, denial: Denial, request: Request<B>) -> Self {
        Self::marked(layer, denial, request, None)
    }

    /// Refuses a request that all gates had admitted.
    pub(super) fn of_admitted<B>(layer: &'static str, denial: Denial, request: Request<B>) -> Self {
        Self::marked(layer, denial, request, Some(WasAdmitted))
    }

    fn marked<B>(
        layer: &'static str,
        denial: Denial,
        request: Request<B>,
        mark: Option<WasAdmitted>,
    ) -> Self {
        let (mut request, _body) = request.into_parts();
        let mut context = RequestContext::take(&mut request.extensions);
        let mut parts = mem::take(&mut context.parts);
        let denial = context.in_verifiers_words(denial);
        context.put(&mut request.extensions);
        let mut response = respond(layer, &denial, &mut request);
        if response.extensions().is_empty() {
            // The request's map is no longer needed and the response needs one: refusals come in floods.
            request.extensions.clear();
            *response.extensions_mut() = request.extensions;
        }
        response.extensions_mut().insert(denial);
        if let Some(mark) = mark {
            response.extensions_mut().insert(mark);
        }
        let charging = if parts.has_deferred() {
            Some(Box::new(Charging::start(parts, ResponseHead::of(&response))))
        } else {
            parts.apply(&mut response);
            None
        };
        Self { response, charging }
    }

    /// Waits for limiters that answer later.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(charging) = &mut self.charging {
            ready!(charging.poll(cx));
        }
        Poll::Ready(())
    }

    /// The response, once [`poll`](Self::poll) is ready.
    pub(super) fn into_response<B>(self) -> Response<Body<B>> {
        let Self { mut response, charging } = self;
        let until_end = charging.map(|mut charging| charging.finish(&mut response)).unwrap_or_default();
        // The request has ended: its places are free.
        response.map(|bytes| Body::refusal_charged_by(bytes, until_end.charges))
    }
}

/// A refusal as the log shows it.
pub(super) struct Event<'d> {
    pub(super) message: &'static str,
    pub(super) layer: &'static str,
    pub(super) denial: &'d Denial,
    /// The status that was sent; in report-only mode, the denial's own.
    pub(super) status: StatusCode,
    pub(super) report_only: bool,
}

/// What the log shows of the refused request. The query is left out, because it may hold a credential.
pub(super) struct Logged<'r> {
    pub(super) method: &'r Method,
    pub(super) path: &'r str,
    pub(super) request_id: Option<&'r RequestId>,
    pub(super) principal: Option<&'r Principal>,
}

impl Event<'_> {
    /// Logs the refusal: the precise reason, never a secret. Target and field names are stable.
    pub(super) fn log(&self, head: RequestHead<'_>, context: &RequestContext) {
        self.log_of(&Logged {
            method: head.method,
            path: head.uri.path(),
            request_id: context.request_id(),
            principal: context.principal().map(Arc::as_ref),
        });
    }

    pub(super) fn log_of(&self, request: &Logged<'_>) {
        let &Self { message, layer, denial, status, report_only } = self;
        macro_rules! log_at {
            ($level:ident) => {
                tracing::$level!(
                    target: "tollgate",
                    layer,
                    reason = denial.kind().reason(),
                    code = denial.code(),
                    status = status.as_u16(),
                    method = request.method.as_str(),
                    path = request.path,
                    detail = denial.log_detail(),
                    request_id = request.request_id.map(tracing::field::display),
                    principal = request.principal.map(Principal::id),
                    tenant = request.principal.and_then(Principal::tenant),
                    report_only,
                    "{message}"
                )
            };
        }
        match denial.outcome() {
            Outcome::Misconfigured => log_at!(error),
            Outcome::Unavailable => log_at!(warn),
            _ => log_at!(info),
        }
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Adds what every refusal needs and the responder has not set.
fn complete(response: &mut Response<Bytes>, denial: &Denial, context: &RequestContext) {
    let status = response.status();
    let headers = response.headers_mut();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    // gRPC refuses inside a successful response, where the headers of HTTP errors have no meaning.
    if is_error(status) {
        if !headers.contains_key(WWW_AUTHENTICATE) {
            add_challenges(headers, denial, status, context);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED
            && let Some(methods) = denial.allowed_methods().and_then(|methods| methods.try_into().ok())
        {
            set_header_default(headers, &ALLOW, || methods);
        }
        if let Some(wait) = retry_after(denial) {
            set_header_default(headers, &RETRY_AFTER, || wait);
        }
    }
    // A cache must never serve a refusal to another caller, nor to the same one once it has a key.
    set_header_default(headers, &CACHE_CONTROL, || PRIVATE);
}

/// The value of `Retry-After`, in seconds.
fn retry_after(denial: &Denial) -> Option<HeaderValue> {
    let seconds = denial.retry_after()?.as_secs();
    Some(number_text(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tollgate_core::denial::DenialKind;

    use super::*;

    #[test]
    fn waits_are_written_in_seconds() {
        for seconds in [1, 59, 3_600, u64::MAX] {
            let denial = Denial::new(DenialKind::RateLimited).with_retry_after(Duration::from_secs(seconds));
            assert_eq!(retry_after(&denial).unwrap(), seconds.to_string());
        }
        assert_eq!(retry_after(&Denial::new(DenialKind::RateLimited)), None);
    }
}
