//! A denial on its way to the log and to the caller.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    request,
};
use tollgate_core::{
    denial::{Denial, Outcome},
    respond::Respond,
};

use super::{
    RequestContext, ResponseParts,
    headers::{PRIVATE, set_header_default},
    numbers::format_number,
};
use crate::respond::DefaultResponder;

mod challenge;
mod headers;

use challenge::challenge;

/// Refuses a request as the layers do, from a layer or a handler of the application's own.
///
/// The responder that the layers outside have set makes the response, which carries the denial in its extensions. The log
/// gets the same event; `layer` is the name by which it calls who refused. `request` is the head of the refused request,
/// with the [`RequestContext`] in its extensions: where no layer has run, the default responder answers.
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
/// /// Lets nobody in but the organizations of a pilot.
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
///         let response = refuse("PilotOnly", denial, &mut head).map(ResponseBody::from);
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
pub fn refuse(layer: &'static str, denial: Denial, request: &mut request::Parts) -> Response<Bytes> {
    let mut response = respond(layer, &denial, request, ResponseParts::default());
    response.extensions_mut().insert(denial);
    response
}

/// The response to a refused request, stamped. The denial is still to be put into its extensions.
pub(super) fn respond(
    layer: &'static str,
    denial: &Denial,
    request: &mut request::Parts,
    mut stamp: ResponseParts,
) -> Response<Bytes> {
    let context = RequestContext::of(&request.extensions).unwrap_or(&NOTHING_LEARNED);
    report(denial, layer, context, false);
    let realm = context.realm();
    let mut response = match context.responder().map(Arc::clone) {
        Some(responder) => responder.respond(denial, request),
        None => DefaultResponder.respond(denial, request),
    };
    if let Some(headers) = headers::of(&response, denial, realm, &mut stamp) {
        *response.headers_mut() = headers;
    } else {
        complete(&mut response, denial, realm);
        stamp.apply(&mut response);
    }
    response
}

/// Of a request that no layer has seen.
static NOTHING_LEARNED: RequestContext = RequestContext::new();

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Logs a denial: the precise reason, never a secret. Target and field names are stable.
pub(super) fn report(denial: &Denial, layer: &'static str, context: &RequestContext, report_only: bool) {
    macro_rules! report_at {
        ($level:ident) => {
            tracing::$level!(
                target: "tollgate",
                layer,
                reason = denial.kind().reason(),
                code = denial.code(),
                status = denial.status().as_u16(),
                detail = denial.log_detail(),
                request_id = context.request_id().map(tracing::field::display),
                principal = context.principal().map(|principal| principal.id()),
                tenant = context.principal().and_then(|principal| principal.tenant()),
                report_only,
                "refused"
            )
        };
    }
    match denial.outcome() {
        Outcome::Misconfigured => report_at!(error),
        Outcome::Unavailable => report_at!(warn),
        _ => report_at!(info),
    }
}

/// Adds what every refusal needs and the responder has not set.
fn complete(response: &mut Response<Bytes>, denial: &Denial, realm: &str) {
    let status = response.status();
    let headers = response.headers_mut();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    // gRPC refuses inside a successful response, where the headers of HTTP errors have no meaning.
    if is_error(status) {
        if let Some(challenge) = challenge(denial, status, realm) {
            set_header_default(headers, &WWW_AUTHENTICATE, || challenge);
        }
        if let Some(wait) = retry_after(denial) {
            set_header_default(headers, &RETRY_AFTER, || wait);
        }
    }
    // A refusal must never be served to somebody else, nor to the same caller once they have a key.
    set_header_default(headers, &CACHE_CONTROL, || PRIVATE);
}

/// How long the caller should wait, in seconds.
fn retry_after(denial: &Denial) -> Option<HeaderValue> {
    let seconds = denial.retry_after()?.as_secs();
    Some(format_number(seconds))
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
