//! Responders: the response to a refused request.
//!
//! | responder | answers with |
//! |---|---|
//! | [`Problem`] | an RFC 9457 problem: the default |
//! | [`Json`] | JSON in your own format |
//! | [`Grpc`] | gRPC and gRPC-Web requests with a gRPC status, and all others by another responder |
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
pub use grpc::{Grpc, GrpcKind, StatusDetails, is_grpc};
pub use json::Json;
pub use problem::Problem;
#[cfg(feature = "websocket")]
pub use websocket::{CloseCodes, WebSocketClose, is_websocket};

pub use tollgate_core::respond::*;

pub use crate::{engine::refuse, response_head::ResponseHead};
