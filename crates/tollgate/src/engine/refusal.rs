//! A denial on its way to the log and to the caller.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    request,
};
use tollgate_core::{Denial, Outcome, Respond};

use super::{
    Passage,
    headers::{PRIVATE, set_header_default},
};
use crate::respond::DefaultResponder;

/// Refuses a request as the layers do, from a layer or a handler of the application's own.
///
/// The responder that the layers outside have set makes the response, which carries the denial in its extensions. The log
/// gets the same event; `layer` is the name by which it calls who refused. `request` is the head of the refused request,
/// with the [`Passage`] in its extensions: where no layer has run, the default responder answers.
///
/// ```
/// use std::{
///     convert::Infallible,
///     task::{Context, Poll},
/// };
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use tollgate::{Denial, DenialKind, Passage, Pending, refuse};
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
///         let principal = Passage::of(request.extensions()).and_then(Passage::principal);
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
    let passage = Passage::of(&request.extensions);
    report(&denial, layer, passage.unwrap_or(&Passage::new()), false);
    let realm = passage.map_or("api", Passage::realm);
    let mut response = match passage.and_then(Passage::responder).map(Arc::clone) {
        Some(responder) => responder.respond(&denial, request),
        None => DefaultResponder.respond(&denial, request),
    };
    complete(&mut response, &denial, realm);
    response.extensions_mut().insert(denial);
    response
}

/// Logs a denial: the precise reason, never a secret. Target and field names are stable.
pub(super) fn report(denial: &Denial, layer: &'static str, passage: &Passage, report_only: bool) {
    macro_rules! report_at {
        ($level:ident) => {
            tracing::$level!(
                target: "tollgate",
                layer,
                reason = denial.kind().reason(),
                code = denial.code(),
                status = denial.status().as_u16(),
                detail = denial.log_detail(),
                request_id = passage.request_id().map(tracing::field::display),
                principal = passage.principal().map(|principal| principal.id()),
                tenant = passage.principal().and_then(|principal| principal.tenant()),
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
    if status.is_client_error() || status.is_server_error() {
        if let Some(challenge) = challenge(denial, status, realm) {
            set_header_default(headers, &WWW_AUTHENTICATE, || challenge);
        }
        if let Some(wait) = denial.retry_after() {
            set_header_default(headers, &RETRY_AFTER, || HeaderValue::from(wait.as_secs()));
        }
    }
    // A refusal must never be served to somebody else, nor to the same caller once they have a key.
    set_header_default(headers, &CACHE_CONTROL, || PRIVATE);
}

/// The challenge of RFC 6750 section 3. A 401 must carry one (RFC 9110 section 15.5.2), also where the credential came in
/// another header than `Authorization`.
fn challenge(denial: &Denial, status: StatusCode, realm: &str) -> Option<HeaderValue> {
    let error = denial.kind().challenge_error();
    if error.is_none() && status != StatusCode::UNAUTHORIZED {
        return None;
    }
    let mut challenge = String::from("Bearer");
    let mut separator = ' ';
    for (name, value) in [("realm", Some(realm)), ("error", error), ("scope", denial.scope())] {
        let Some(value) = value else { continue };
        challenge.push(separator);
        challenge.push_str(name);
        challenge.push_str("=\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\') {
                challenge.push('\\');
            }
            challenge.push(character);
        }
        challenge.push('"');
        separator = ',';
    }
    // Only a realm or a scope of the application's own can make it invalid; the bare scheme still says what to do.
    Some(HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer")))
}
