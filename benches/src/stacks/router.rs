//! Stacks on axum's `Router`, which boxes and clones on its own account: their base is the router without them.

use axum::{Router, routing::post};

use super::{built, handwritten, peers};
use crate::{
    cast::Scenario,
    drive::{Answers, Bare, Driven, Stack},
};

pub(super) fn empty() -> Box<dyn Stack> {
    build(|router, _| router, Scenario::Allowed)
}

/// The router with what `put_on` puts on it, and with its state, as `axum::serve` has it: a router without one makes the layers'
/// services anew for each request.
pub(super) fn build(put_on: fn(Router, Scenario) -> Router, scenario: Scenario) -> Box<dyn Stack> {
    let router: Router = put_on(router(), scenario).with_state(());
    Box::new(Driven(router))
}

/// The stacks that can be put behind a real socket, the bare one first.
pub static SERVED: [&str; 4] = ["empty", "built", "peers", "handwritten"];

/// The stack of this name as a real server has it, for callers whose limits no load generator uses up.
pub fn served(name: &str) -> Option<Router> {
    match name {
        "empty" => Some(router()),
        "built" => Some(built::on(router(), Scenario::Flood)),
        "peers" => Some(peers::on(router(), Scenario::Flood)),
        "handwritten" => Some(handwritten::on(router(), Scenario::Flood)),
        _ => None,
    }
}

fn router() -> Router {
    let handler = |request| async { Bare::answer(request) };
    Router::new().route("/v1/jobs/{id}", post(handler).get(handler))
}
