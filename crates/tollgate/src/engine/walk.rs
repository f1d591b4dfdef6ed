//! The walk of a request through the gates.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request, response};
use tollgate_core::{Answer, Denial, Outcome, Pending};

use super::{Gate, GateLayer, Learned, Passage, ReportOnly, Settings, refusal};
use crate::ConfigurationError;

/// Gates in the order of a request, and what they have in common.
#[derive(Debug)]
pub(crate) struct Engine {
    stations: Vec<Station>,
    settings: Settings,
    flaw: Option<ConfigurationError>,
}

/// A gate in its place.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) gate: Arc<dyn Gate>,
    // In report-only mode if there is a count.
    pub(crate) report_only: Option<ReportOnly>,
}

/// How far a request came.
pub(super) enum Walk {
    /// Through all gates.
    Admitted,
    /// To gate number `at`, which refused it.
    Refused { at: usize, denial: Denial },
    /// To gate number `at`, which has to wait.
    Waits { at: usize, pending: Pending<Result<Learned, Denial>> },
}

impl Engine {
    pub(crate) fn new(stations: Vec<Station>, settings: Settings) -> Arc<Self> {
        let flaw = stations.iter().find_map(|station| station.gate.flaw());
        Arc::new(Self { stations, settings, flaw })
    }

    /// The engine of a layer that stands alone.
    pub(crate) fn of(layer: impl GateLayer) -> Arc<Self> {
        let (gate, settings) = layer.into_parts();
        Self::new(vec![Station { gate, report_only: settings.report_only.clone() }], settings)
    }

    /// Why the stack cannot work as it was built.
    pub(crate) fn flaw(&self) -> Option<&ConfigurationError> {
        self.flaw.as_ref()
    }

    /// Begins the walk with what layers further out have learned. Something between the layers may have waited.
    pub(super) fn enter(&self, head: &mut request::Parts) -> (Passage, Walk) {
        let mut passage = Passage::take(&mut head.extensions);
        self.settings.prepare(&mut passage);
        let walk = match &self.flaw {
            Some(flaw) => Walk::Refused { at: 0, denial: Denial::misconfigured(flaw.to_string()) },
            None => self.walk(0, ended(&passage), head, &mut passage),
        };
        (passage, walk)
    }

    /// Goes on with the answer that gate number `at` waited for. The wait may have been long: the instant is a new one, and
    /// the principal may have ended meanwhile.
    pub(super) fn resume(
        &self,
        at: usize,
        answer: Result<Learned, Denial>,
        head: &mut request::Parts,
        passage: &mut Passage,
    ) -> Walk {
        passage.read_clock();
        let answer = ended(passage).unwrap_or(answer);
        self.walk(at, Some(answer), head, passage)
    }

    fn walk(
        &self,
        from: usize,
        mut answered: Option<Result<Learned, Denial>>,
        head: &mut request::Parts,
        passage: &mut Passage,
    ) -> Walk {
        for (at, Station { gate, report_only }) in self.stations.iter().enumerate().skip(from) {
            let answer = match answered.take() {
                Some(answer) => answer,
                None => match gate.ask(head, passage) {
                    Answer::Now(answer) => answer,
                    Answer::Later(pending) => return Walk::Waits { at, pending },
                },
            };
            // In report-only mode, who was found out and is refused shall not count as found out.
            let before = (report_only.is_some() && gate.identifies()).then(|| passage.clone());
            let verdict = answer.and_then(|learned| {
                passage.learn(learned);
                gate.judge(head, passage)
            });
            match (verdict, report_only) {
                (Ok(()), _) => {}
                // What is put together wrongly is never waved through: nobody would learn of it.
                (Err(denial), Some(report)) if denial.outcome() != Outcome::Misconfigured => {
                    if !passage.is_waived {
                        report.count();
                        refusal::report(&denial, gate.layer(), passage, true);
                    }
                    passage.waive(before);
                }
                (Err(denial), _) => return Walk::Refused { at, denial },
            }
        }
        Walk::Admitted
    }

    /// The response to a refusal by gate number `at`, completed by it and the gates before it.
    pub(super) fn refuse(
        &self,
        at: usize,
        denial: Denial,
        mut head: request::Parts,
        passage: &Passage,
    ) -> Response<Bytes> {
        let layer = self.stations.get(at).map_or("", |station| station.gate.layer());
        refusal::report(&denial, layer, passage, false);
        passage.clone().put(&mut head.extensions);
        let response = refusal::respond(denial, &mut head, passage);
        let (mut parts, bytes) = response.into_parts();
        self.finish_from(at, passage, &mut parts);
        Response::from_parts(parts, bytes)
    }

    /// Completes a response from inside.
    pub(super) fn finish(&self, passage: &Passage, response: &mut response::Parts) {
        self.finish_from(self.stations.len(), passage, response);
    }

    /// Gates finish in the opposite order, as layers would: from number `at` outwards.
    fn finish_from(&self, at: usize, passage: &Passage, response: &mut response::Parts) {
        for station in self.stations.iter().take(at.saturating_add(1)).rev() {
            station.gate.finish(passage, response);
        }
    }

    /// The span in which the inner service runs: one that carries the request's identifier, if a gate here has set it.
    pub(super) fn span(&self, passage: &Passage) -> tracing::Span {
        self.stations
            .iter()
            .find_map(|station| station.gate.span(passage))
            .unwrap_or_else(tracing::Span::none)
    }
}

/// The answer to whatever is asked for a principal that has ended while something waited.
fn ended(passage: &Passage) -> Option<Result<Learned, Denial>> {
    passage.check_end().err().map(Err)
}
