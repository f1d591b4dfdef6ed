//! A denial as a status of tonic.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    request,
};
use tollgate::{
    Denial, RequestContext,
    respond::{self, Grpc, Respond},
};
use tonic::{Code, Status, metadata::MetadataMap};

/// Refuses a request with these extensions, as its stack does: the same answer, and the same event in the log.
pub(crate) fn refuse(layer: &'static str, denial: Denial, extensions: &Extensions) -> Status {
    let mut head = grpc_head();
    RequestContext::copy(extensions, &mut head.extensions);
    let mut response = respond::refuse::<Bytes>(layer, denial.clone(), &mut head);
    // The denial in the words of the verifier.
    let denial = response.extensions_mut().remove().unwrap_or(denial);
    match status_of(std::mem::take(response.headers_mut())) {
        Some(status) => caused_by(status, denial),
        // The stack has no responder for gRPC.
        None => answer(&Grpc::new(), &denial),
    }
}

/// The status by which `responder` refuses a gRPC request with `denial`.
pub(crate) fn answer(responder: &Grpc, denial: &Denial) -> Status {
    let response = responder.respond(denial, &mut grpc_head());
    let status = status_of(response.into_parts().0.headers);
    caused_by(status.unwrap_or_else(|| Status::unknown("")), denial.clone())
}

/// The head of a gRPC request of which nothing else is known.
fn grpc_head() -> request::Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::POST;
    head.version = Version::HTTP_2;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head
}

/// The status in the headers of a Trailers-Only response. All that belongs to the refusal alone is its metadata. `None` if there is no
/// status, or one of success: a refusal must not be one.
fn status_of(headers: HeaderMap) -> Option<Status> {
    const DETAILS: &str = "grpc-status-details-bin";

    // `from_header_map` panics if a responder of the application's own has written details that are not base64.
    let mut metadata = MetadataMap::from_headers(headers);
    if metadata.get_bin(DETAILS).is_some_and(|details| details.to_bytes().is_err()) {
        metadata.remove_bin(DETAILS);
    }
    let mut headers = metadata.into_headers();
    headers.remove(CONTENT_TYPE);
    headers.remove(CONTENT_LENGTH);
    Status::from_header_map(&headers).filter(|status| status.code() != Code::Ok)
}

fn caused_by(mut status: Status, denial: Denial) -> Status {
    status.set_source(Arc::new(denial));
    status
}
