//! Responders: the response to a refused request.
//!
//! | responder | answers with |
//! |---|---|
//! | [`Problem`] | an RFC 9457 problem: the default |
//! | [`Json`] | JSON in your own format |
//! | [`Grpc`] | a gRPC status, Trailers-Only: the default for gRPC requests |
#![cfg_attr(
    feature = "websocket",
    doc = "| [`WebSocketClose`] | a WebSocket that closes immediately, with a code that browsers can read |"
)]
//! | [`ByRequest`] | the answer of another responder, chosen by the request |

mod by_request;
mod grpc;
mod json;
mod problem;
#[cfg(feature = "websocket")]
mod websocket;

pub use by_request::ByRequest;
pub use grpc::{Grpc, is_grpc};
pub use json::Json;
pub use problem::Problem;
#[cfg(feature = "websocket")]
pub use websocket::{WebSocketClose, is_websocket};

pub use tollgate_core::respond::*;

pub use crate::{engine::refuse, response_head::ResponseHead};

use bytes::Bytes;
use http::{Response, request};
use tollgate_core::denial::Denial;

/// The default responder: a gRPC status for gRPC requests, a problem for all others.
pub(crate) struct DefaultResponder;

impl Respond for DefaultResponder {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        if is_grpc(request) { Grpc.respond(denial, request) } else { Problem::new().respond(denial, request) }
    }
}
