//! No stack at all: what is taken off all others.

use crate::{
    cast::Scenario,
    drive::{Driven, Handler, Stack},
};

pub(super) fn build(_scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(Handler))
}
