//! Stacks on axum's `Router`, which boxes and clones on its own account: their base is the router without them.

use axum::{Router, routing::post};

use super::built;
use crate::{
    cast::Scenario,
    drive::{Answers, Bare, Driven, Stack},
};

pub(super) fn empty() -> Box<dyn Stack> {
    Box::new(Driven(router()))
}

pub(super) fn built(scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(router().layer(built::layer(scenario, 1))))
}

fn router() -> Router {
    Router::new().route("/v1/jobs/{id}", post(|request| async { Bare::answer(request) }))
}
