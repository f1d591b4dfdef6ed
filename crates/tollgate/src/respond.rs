//! Responders: one refusal, many faces.
//!
//! | responder | answers with |
//! |---|---|
//! | [`Problem`] | an RFC 9457 problem: the default |
//! | [`Json`] | a JSON shape of your own |
//! | [`Grpc`] | a gRPC status, Trailers-Only: the default for gRPC requests |
#![cfg_attr(
    feature = "websocket",
    doc = "| [`WebSocketClose`] | a WebSocket that closes at once, with a code that browsers can read |"
)]
//! | [`ByRequest`] | what another responder says, chosen by the request |

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

/// What answers where no responder is set: gRPC requests in their own way, all others with a problem.
pub(crate) struct DefaultResponder;

impl Respond for DefaultResponder {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        if is_grpc(request) { Grpc.respond(denial, request) } else { Problem::new().respond(denial, request) }
    }
}
