//! Running a request through its gates.

use std::{mem, sync::Arc, time::SystemTime};

use http::Request;
use tollgate_core::{
    answer::Pending,
    denial::{Denial, Outcome},
};
use tracing::{Level, Span};

use super::{
    Caller, Cx, Flow, GateLayer, ReportOnly, RequestContext, ResponseParts, Settings, deferred, gate::Resume,
    instant, refusal, settings::Inherited,
};
use crate::layers::Gate;

/// Gates in the order of a request, and the settings they share.
#[derive(Debug)]
pub(crate) struct Engine {
    stations: Vec<Station>,
    inherited: Option<Arc<Inherited>>,
}

/// A gate in its place.
#[derive(Debug)]
pub(crate) struct Station {
    gate: Gate,
    // Present in report-only mode: refusals are counted here and waived.
    report_only: Option<ReportOnly>,
}

/// What the gates decided about a request.
pub(super) enum Verdict {
    /// Every gate lets the request pass, at this instant. The response carries these parts.
    Admit(SystemTime, ResponseParts),
    /// This layer refused the request.
    Refuse { layer: &'static str, denial: Denial },
    /// Gate number `at` waits for its backend.
    Wait { at: usize, pending: Pending<Resume> },
}

impl Engine {
    pub(crate) fn new(mut stations: Vec<Station>, settings: &Settings) -> Arc<Self> {
        let verify_reports = stations
            .iter()
            .any(|station| matches!(station.gate, Gate::Verify(_)) && station.report_only.is_some());
        for Station { gate, report_only } in &mut stations {
            if let Gate::Message(gate) = gate {
                gate.report_to(report_only.as_ref(), verify_reports);
            }
        }
        Arc::new(Self { stations, inherited: settings.inherited() })
    }

    /// The engine of a layer that stands alone.
    pub(crate) fn of(layer: impl GateLayer) -> Arc<Self> {
        let (gate, settings) = layer.into_parts();
        Self::new(vec![Station::new(gate, settings.report_only.clone())], &settings)
    }

    /// Runs all gates over a request that has just arrived.
    #[inline]
    pub(super) fn start<B>(&self, request: &mut Request<B>) -> Verdict {
        self.with_context(request, |engine, cx| {
            engine.enter(cx.context);
            match engine.check_not_ended(cx) {
                Ok(()) => engine.run(0, cx),
                Err(denial) => engine.refuse(0, denial),
            }
        })
    }

    /// Completes the decision of gate number `at`, which has waited, and runs the gates behind it. The wait may have been
    /// long: the clock is read anew, and an authenticated principal that has ended meanwhile is refused whatever the backend
    /// says. (A key that ends while it is being verified is refused by `VerifyGate`.)
    pub(super) fn resume<B>(&self, at: usize, resume: Resume, request: &mut Request<B>) -> Verdict {
        self.with_context(request, |engine, cx| {
            cx.context.read_clock();
            let decision = engine.check_not_ended(cx).and_then(|()| match engine.stations.get(at) {
                Some(station) => station.complete(resume, cx),
                None => Ok(()),
            });
            match decision {
                Ok(()) => engine.run(at + 1, cx),
                Err(denial) => engine.refuse(at, denial),
            }
        })
    }

    /// Counts a failed attempt if the request was dropped while gate number `at` verified its credential. Otherwise a caller that
    /// never waits for an answer could try any number of credentials.
    pub(super) fn abandon<B>(&self, at: usize, request: &mut Request<B>) {
        if self.stations.get(at).is_some_and(Station::is_authenticating) {
            let mut context = RequestContext::take(request.extensions_mut());
            deferred::charge_abandoned(mem::take(&mut context.parts));
        }
    }

    /// Takes the context out of the request and puts it back. While gates run, no other code does this.
    #[inline]
    fn with_context<B>(
        &self,
        request: &mut Request<B>,
        decide: impl FnOnce(&Self, &mut Cx<'_, B>) -> Verdict,
    ) -> Verdict {
        let mut context = RequestContext::take(request.extensions_mut());
        let verdict = decide(self, &mut Cx::new(request, &mut context));
        context.put(request.extensions_mut());
        verdict
    }

    /// Sets the instant of the request, and what inner layers inherit.
    #[inline]
    fn enter(&self, context: &mut RequestContext) {
        if let Some(inherited) = &self.inherited {
            inherited.add_to(context);
            context.read_clock();
        } else if !instant::is_current(context.now()) {
            // Between the outer layer and this one a queue or a buffer may have waited.
            context.read_clock();
        }
    }

    /// Refuses a principal that has ended. Only report-only mode of the layer that verifies credentials waives that: another
    /// layer in report-only mode must not admit an ended principal.
    #[inline]
    fn check_not_ended<B>(&self, cx: &mut Cx<'_, B>) -> Result<(), Denial> {
        match cx.context.check_not_ended() {
            Ok(()) => Ok(()),
            Err(denial) => self.waive_ended(denial, cx),
        }
    }

    #[cold]
    fn waive_ended<B>(&self, denial: Denial, cx: &mut Cx<'_, B>) -> Result<(), Denial> {
        match self.stations.iter().find(|station| matches!(station.gate, Gate::Verify(_))) {
            Some(station) => station.waive(denial, Some(Caller::Presented), cx),
            None => Err(denial),
        }
    }

    /// Runs the gates from number `from` on.
    fn run<B>(&self, from: usize, cx: &mut Cx<'_, B>) -> Verdict {
        for (at, station) in self.stations.iter().enumerate().skip(from) {
            match station.check(cx) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Wait(pending)) => return Verdict::Wait { at, pending },
                Err(denial) => return self.refuse(at, denial),
            }
        }
        Verdict::Admit(cx.context.instant(), mem::take(&mut cx.context.parts))
    }

    #[cold]
    fn refuse(&self, at: usize, denial: Denial) -> Verdict {
        let layer = self.stations.get(at).map_or("", |station| station.gate.layer());
        Verdict::Refuse { layer, denial }
    }

    /// The span in which the inner service runs, if a subscriber listens at `INFO`.
    #[inline]
    pub(super) fn span<B>(&self, request: &Request<B>) -> Option<Box<Span>> {
        if tracing::level_enabled!(Level::INFO) { self.new_span(request.extensions()) } else { None }
    }

    #[cold]
    fn new_span(&self, extensions: &http::Extensions) -> Option<Box<Span>> {
        let context = RequestContext::of(extensions)?;
        self.stations.iter().find_map(|station| station.gate.span(context)).map(Box::new)
    }
}

impl Station {
    pub(crate) fn new(gate: Gate, report_only: Option<ReportOnly>) -> Self {
        Self { gate, report_only }
    }

    /// Has the gate decide about a request.
    #[inline]
    fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        if self.report_only.is_none() { self.gate.check(cx) } else { self.check_report_only(cx) }
    }

    #[cold]
    fn check_report_only<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let before = self.caller_before(cx.context);
        let checked = self.gate.check(cx);
        if let (Gate::StreamEnd(_), Some(report)) = (&self.gate, &self.report_only) {
            cx.context.parts.report_end_to(report);
        }
        checked.or_else(|denial| self.waive(denial, before, cx).map(|()| Flow::Continue))
    }

    /// Whether its gate refuses a request for its credential.
    fn is_authenticating(&self) -> bool {
        self.report_only.is_none() && matches!(self.gate, Gate::Verify(_))
    }

    /// Completes the gate's decision after a wait.
    fn complete<B>(&self, resume: Resume, cx: &mut Cx<'_, B>) -> Result<(), Denial> {
        let before = self.caller_before(cx.context);
        resume(cx.context).or_else(|denial| self.waive(denial, before, cx))
    }

    /// Who is calling, before a gate that decides that.
    fn caller_before(&self, context: &RequestContext) -> Option<Caller> {
        self.gate.identifies().then(|| context.caller.clone())
    }

    /// In report-only mode, logs and counts a refusal and lets the request pass. A stack that is configured wrongly is
    /// refused all the same: the mistake would stay hidden.
    #[cold]
    fn waive<B>(&self, denial: Denial, before: Option<Caller>, cx: &mut Cx<'_, B>) -> Result<(), Denial> {
        let Some(report) = &self.report_only else { return Err(denial) };
        if denial.outcome() == Outcome::Misconfigured {
            return Err(denial);
        }
        if !cx.context.is_waived {
            report.count();
            let denial = cx.context.in_verifiers_words(denial);
            let (layer, status) = (self.gate.layer(), denial.status());
            let message = "refused";
            let event = refusal::Event { message, layer, denial: &denial, status, report_only: true };
            event.log(cx.head(), cx.context);
        }
        cx.context.is_waived = true;
        if let Some(before) = before {
            cx.context.caller = before.waived();
        }
        Ok(())
    }
}
