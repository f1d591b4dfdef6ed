//! A denial on its way to the log and to the caller.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
    request,
};
use tollgate_core::{Denial, Outcome, Respond};

use super::Passage;
use crate::respond::DefaultResponder;

/// Logs a denial: the precise reason, never a secret. Target and field names are stable.
pub(super) fn report(denial: &Denial, layer: &'static str, passage: &Passage, report_only: bool) {
    macro_rules! report_at {
        ($level:ident) => {
            tracing::$level!(
                target: "tollgate",
                layer,
                reason = denial.kind().reason(),
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

/// Turns a denial into a response: what the responder makes of it, what every refusal needs, and the denial itself.
pub(super) fn respond(denial: Denial, head: &mut request::Parts, passage: &Passage) -> Response<Bytes> {
    let mut response = match passage.responder() {
        Some(responder) => responder.respond(&denial, head),
        None => DefaultResponder.respond(&denial, head),
    };
    // gRPC and WebSocket refuse inside a successful response, where headers of HTTP errors have no meaning.
    if response.status().is_client_error() || response.status().is_server_error() {
        complete(response.headers_mut(), &denial, passage.realm.unwrap_or("api"));
    }
    response.extensions_mut().insert(denial);
    response
}

/// Adds what every refusal needs and the responder has not set.
fn complete(headers: &mut HeaderMap, denial: &Denial, realm: &str) {
    if let Some(challenge) = challenge(denial, realm) {
        headers.entry(WWW_AUTHENTICATE).or_insert(challenge);
    }
    if let Some(wait) = denial.retry_after() {
        headers.entry(RETRY_AFTER).or_insert_with(|| HeaderValue::from(wait.as_secs()));
    }
    // A refusal must never be served to somebody else, nor to the same caller once they have a key.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-store"));
}

/// The challenge of RFC 6750 section 3. A 401 must carry one (RFC 9110 section 15.5.2), also where the credential came in
/// another header than `Authorization`.
fn challenge(denial: &Denial, realm: &str) -> Option<HeaderValue> {
    let error = denial.kind().challenge_error();
    if error.is_none() && denial.status() != http::StatusCode::UNAUTHORIZED {
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
