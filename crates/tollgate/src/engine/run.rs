//! Running a request through its gates.

use std::{mem, sync::Arc, time::SystemTime};

use http::Request;
use tollgate_core::{
    answer::Pending,
    denial::{Denial, Outcome},
};
use tracing::{Level, Span};

use super::{
    Caller, Cx, Flow, GateLayer, ReportOnly, RequestContext, ResponseParts, Settings,
    gate::Resume,
    instant,
    refusal::{self, Refusal},
    settings::Inherited,
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
    /// Gate number `at` refused the request.
    Refuse { at: usize, denial: Denial },
    /// Gate number `at` waits for its backend.
    Wait { at: usize, pending: Pending<Resume> },
}

impl Engine {
    pub(crate) fn new(stations: Vec<Station>, settings: &Settings) -> Arc<Self> {
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
        self.with_context(request, |engine, cx| match engine.enter(cx.context) {
            Ok(()) => engine.run(0, cx),
            // The principal of an outer layer has ended before this layer's gate could decide anything.
            Err(denial) => engine.conclude(0, Err(denial), None, cx),
        })
    }

    /// Completes the decision of gate number `at`, which has waited, and runs the gates behind it. The wait may have been
    /// long: the clock is read anew, and a principal that has ended meanwhile is refused whatever the backend says.
    pub(super) fn resume<B>(&self, at: usize, resume: Resume, request: &mut Request<B>) -> Verdict {
        self.with_context(request, |engine, cx| {
            let before = engine.stations.get(at).and_then(|station| station.caller_before(cx.context));
            cx.context.read_clock();
            let decision = cx.context.check_not_ended().and_then(|()| resume(cx.context));
            engine.conclude(at, decision, before, cx)
        })
    }

    /// Takes the context out of the request and puts it back: the only place that does.
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

    /// Takes over what outer layers know, and the instant of the request.
    #[inline]
    fn enter(&self, context: &mut RequestContext) -> Result<(), Denial> {
        if let Some(inherited) = &self.inherited {
            inherited.add_to(context);
            context.read_clock();
        } else if !instant::is_current(context.now()) {
            // Between the outer layer and this one a queue or a buffer may have waited.
            context.read_clock();
        }
        context.check_not_ended()
    }

    /// Goes on behind gate number `at` if it let the request pass, or if its refusal is waived.
    fn conclude<B>(
        &self,
        at: usize,
        decision: Result<(), Denial>,
        before: Option<Caller>,
        cx: &mut Cx<'_, B>,
    ) -> Verdict {
        let waived = match (decision, self.stations.get(at)) {
            (Err(denial), Some(station)) => station.waive(denial, before, cx.context),
            (decision, _) => decision,
        };
        match waived {
            Ok(()) => self.run(at + 1, cx),
            Err(denial) => Verdict::Refuse { at, denial },
        }
    }

    /// Runs the gates from number `from` on.
    fn run<B>(&self, from: usize, cx: &mut Cx<'_, B>) -> Verdict {
        for (at, station) in self.stations.iter().enumerate().skip(from) {
            match station.check(cx) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Wait(pending)) => return Verdict::Wait { at, pending },
                Err(denial) => return Verdict::Refuse { at, denial },
            }
        }
        Verdict::Admit(cx.context.instant(), mem::take(&mut cx.context.parts))
    }

    /// The response to a request that gate number `at` refused. It carries what this gate and those before it add.
    pub(super) fn refuse<B>(&self, at: usize, denial: Denial, request: Request<B>) -> Refusal {
        let (head, _body) = request.into_parts();
        let layer = self.stations.get(at).map_or("", |station| station.gate.layer());
        Refusal::new(layer, denial, head)
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

    #[inline]
    fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        if self.report_only.is_none() { self.gate.check(cx) } else { self.check_and_report(cx) }
    }

    #[cold]
    fn check_and_report<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let before = self.caller_before(cx.context);
        match self.gate.check(cx) {
            Err(denial) => self.waive(denial, before, cx.context).map(|()| Flow::Continue),
            flow => flow,
        }
    }

    /// In report-only mode, who was calling before this gate decides who is calling.
    fn caller_before(&self, context: &RequestContext) -> Option<Caller> {
        (self.report_only.is_some() && self.gate.identifies()).then(|| context.caller.clone())
    }

    /// In report-only mode, logs and counts a refusal and lets the request pass. A stack that is put together wrongly is
    /// refused all the same: the mistake would stay hidden.
    #[cold]
    fn waive(
        &self,
        denial: Denial,
        before: Option<Caller>,
        context: &mut RequestContext,
    ) -> Result<(), Denial> {
        let Some(report) = &self.report_only else { return Err(denial) };
        if denial.outcome() == Outcome::Misconfigured {
            return Err(denial);
        }
        if !context.is_waived {
            report.count();
            refusal::log(&denial, self.gate.layer(), context, true);
        }
        context.is_waived = true;
        if let Some(before) = before {
            context.caller = before.waived();
        }
        Ok(())
    }
}
