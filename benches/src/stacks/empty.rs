//! No stack: the base that is subtracted from all others.

use crate::{
    cast::Scenario,
    drive::{Answers, Driven, Handler, Stack},
};

pub(super) fn build<A: Answers>(_scenario: Scenario, _windows: usize) -> Box<dyn Stack> {
    Box::new(Driven(Handler::<A>::new()))
}
