//! The walk of a request through the gates.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request, response};
use tollgate_core::{Answer, Denial, Outcome, Pending};

use super::{Gate, Learned, Passage, Settings, refusal};

/// Gates in the order of a request, and what they have in common.
#[derive(Debug)]
pub(crate) struct Engine {
    gates: Vec<Box<dyn Gate>>,
    settings: Settings,
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
    pub(crate) fn new(gates: Vec<Box<dyn Gate>>, settings: Settings) -> Arc<Self> {
        Arc::new(Self { gates, settings })
    }

    /// Begins the walk with what layers further out have learned.
    pub(super) fn enter(&self, head: &mut request::Parts) -> (Passage, Walk) {
        let mut passage = Passage::take(&mut head.extensions);
        self.settings.prepare(&mut passage);
        let walk = self.walk(0, None, head, &mut passage);
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
        passage.now = Some(self.settings.now());
        let answer = passage.check_end().and(answer);
        self.walk(at, Some(answer), head, passage)
    }

    fn walk(
        &self,
        from: usize,
        mut answered: Option<Result<Learned, Denial>>,
        head: &mut request::Parts,
        passage: &mut Passage,
    ) -> Walk {
        for (at, gate) in self.gates.iter().enumerate().skip(from) {
            let answer = match answered.take() {
                Some(answer) => answer,
                None => match gate.ask(head, passage) {
                    Answer::Now(answer) => answer,
                    Answer::Later(pending) => return Walk::Waits { at, pending },
                },
            };
            let before = self.settings.is_report_only().then(|| passage.clone());
            let verdict = answer.and_then(|learned| {
                passage.learn(learned);
                gate.judge(head, passage)
            });
            match (verdict, before) {
                (Ok(()), _) => {}
                (Err(denial), Some(before)) if denial.outcome() != Outcome::Misconfigured => {
                    self.waive(&**gate, &denial, passage, before);
                }
                (Err(denial), _) => return Walk::Refused { at, denial },
            }
        }
        Walk::Admitted
    }

    /// Lets a refused request go on, as if the gate had not been there. It is reported and counted once, where it would have
    /// been refused. What is put together wrongly is never waved through: nobody would learn of it.
    fn waive(&self, gate: &dyn Gate, denial: &Denial, passage: &mut Passage, before: Passage) {
        if !passage.is_waived {
            self.settings.count_waived();
            refusal::report(denial, gate.layer(), passage, true);
        }
        *passage = before;
        passage.waive(gate.identifies());
    }

    /// The response to a refusal by gate number `at`, completed by it and the gates before it.
    pub(super) fn refuse(
        &self,
        at: usize,
        denial: Denial,
        mut head: request::Parts,
        mut passage: Passage,
    ) -> Response<Bytes> {
        let layer = self.gates.get(at).map_or("", |gate| gate.layer());
        refusal::report(&denial, layer, &passage, false);
        if let Some(decision) = denial.decision() {
            passage.learn(Learned::Decision(decision.clone()));
        }
        passage.clone().put(&mut head.extensions);
        let response = refusal::respond(denial, &mut head, &passage);
        let (mut parts, bytes) = response.into_parts();
        self.finish_from(at, &passage, &mut parts);
        Response::from_parts(parts, bytes)
    }

    /// Completes a response from inside.
    pub(super) fn finish(&self, passage: &Passage, response: &mut response::Parts) {
        self.finish_from(self.gates.len(), passage, response);
    }

    /// Gates finish in the opposite order, as layers would: from number `at` outwards.
    fn finish_from(&self, at: usize, passage: &Passage, response: &mut response::Parts) {
        for gate in self.gates.iter().take(at.saturating_add(1)).rev() {
            gate.finish(passage, response);
        }
    }

    /// The span in which the inner service runs: one that carries the request's identifier, if a gate here has set it.
    pub(super) fn span(&self, passage: &Passage) -> tracing::Span {
        self.gates.iter().find_map(|gate| gate.span(passage)).unwrap_or_else(tracing::Span::none)
    }
}
