//! The walk of a request through the gates.

use std::{mem, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, request};
use tollgate_core::{
    answer::Pending,
    denial::{Denial, DenialKind, Outcome},
    limit::Decision,
};
use tracing::{Level, Span};

use super::{
    Asked, Entrant, Gate, GateLayer, Learned, ReportOnly, RequestContext, ResponseParts, Settings, instant,
    refusal, settings::Inherited, stamp::Settling,
};
use crate::{ConfigurationError, layers::AnyGate, respond::ResponseHead};

/// Gates in the order of a request, and what they have in common.
#[derive(Debug)]
pub(crate) struct Engine {
    stations: Vec<Station>,
    stamps: bool,
    inherited: Option<Arc<Inherited>>,
    configuration_error: Option<ConfigurationError>,
}

/// A gate in its place.
#[derive(Debug)]
pub(crate) struct Station {
    gate: AnyGate,
    // In report-only mode if there is a count.
    report_only: Option<ReportOnly>,
    // What the gate says of itself.
    stamps: bool,
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

impl Station {
    pub(crate) fn new(gate: AnyGate, report_only: Option<ReportOnly>) -> Self {
        let stamps = gate.stamps();
        Self { gate, report_only, stamps }
    }

    #[inline]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        let Some(report) = &self.report_only else { return self.gate.ask(entrant) };
        self.ask_reporting(report, entrant)
    }

    #[cold]
    fn ask_reporting(&self, report: &ReportOnly, entrant: &mut impl Entrant) -> Asked {
        let before = self.remember(entrant.context());
        match self.gate.ask(entrant) {
            Asked::Answered(verdict) => Asked::Answered(self.waive(report, verdict, before, entrant)),
            later @ Asked::Later(_) => later,
        }
    }

    /// Has the gate judge by the answer that it has waited for.
    fn judge(&self, answer: Result<Learned, Denial>, entrant: &mut impl Entrant) -> Result<(), Denial> {
        let context = entrant.context_mut();
        let before = self.remember(context);
        let verdict = answer.and_then(|learned| {
            context.learn(learned);
            self.gate.judge(context)
        });
        match &self.report_only {
            Some(report) => self.waive(report, verdict, before, entrant),
            None => verdict,
        }
    }

    /// In report-only mode, the request context as it is before this gate finds out who is calling: who is refused shall not count as
    /// found out.
    fn remember(&self, context: &RequestContext) -> Option<Box<RequestContext>> {
        (self.report_only.is_some() && self.gate.identifies()).then(|| Box::new(context.clone()))
    }

    /// In report-only mode, waives a refusal. What is put together wrongly is never waved through: nobody would learn of it.
    fn waive(
        &self,
        report: &ReportOnly,
        verdict: Result<(), Denial>,
        before: Option<Box<RequestContext>>,
        entrant: &mut impl Entrant,
    ) -> Result<(), Denial> {
        let Err(denial) = verdict else { return Ok(()) };
        if denial.outcome() == Outcome::Misconfigured {
            return Err(denial);
        }
        let context = entrant.context_mut();
        if !context.is_waived {
            report.count();
            refusal::report(&denial, self.gate.layer(), context, true);
        }
        context.waive(before);
        Ok(())
    }
}

impl Engine {
    pub(crate) fn new(stations: Vec<Station>, settings: &Settings) -> Arc<Self> {
        let configuration_error = stations.iter().find_map(|station| station.gate.configuration_error());
        let stamps = stations.iter().any(|station| station.stamps);
        Arc::new(Self { stations, stamps, inherited: settings.hand_down(), configuration_error })
    }

    /// The engine of a layer that stands alone.
    pub(crate) fn of(layer: impl GateLayer) -> Arc<Self> {
        let (gate, settings) = layer.into_parts();
        Self::new(vec![Station::new(gate, settings.report_only.clone())], &settings)
    }

    /// Why the stack cannot work as it was built.
    pub(crate) fn configuration_error(&self) -> Option<&ConfigurationError> {
        self.configuration_error.as_ref()
    }

    /// Begins the walk with what layers further out have learned.
    pub(super) fn enter(&self, entrant: &mut impl Entrant) -> Walk {
        let context = entrant.context();
        // If the layer that calls this one does so right now, its instant is this one's.
        let ended = if self.inherited.is_none() && instant::is_present(context.now()) {
            context.check_end()
        } else {
            let context = entrant.context_mut();
            if let Some(inherited) = &self.inherited {
                inherited.hand_to(context);
            }
            // Something may have waited in between, a queue or a buffer.
            context.read_clock();
            context.check_end()
        };
        if let Some(configuration_error) = &self.configuration_error {
            return Walk::Refused { at: 0, denial: Denial::misconfigured(configuration_error.to_string()) };
        }
        match ended {
            Ok(()) => self.walk(0, entrant),
            Err(denial) => self.rule(0, Err(denial), entrant),
        }
    }

    /// Goes on with the answer that gate number `at` waited for. The wait may have been long: the instant is a new one, and
    /// the principal may have ended meanwhile.
    pub(super) fn resume(
        &self,
        at: usize,
        answer: Result<Learned, Denial>,
        entrant: &mut impl Entrant,
    ) -> Walk {
        let context = entrant.context_mut();
        context.read_clock();
        let answer = context.check_end().and(answer);
        self.rule(at, answer, entrant)
    }

    /// Has gate number `at` judge by an answer, and goes on.
    fn rule(&self, at: usize, answer: Result<Learned, Denial>, entrant: &mut impl Entrant) -> Walk {
        match self.stations.get(at).map_or(Ok(()), |station| station.judge(answer, entrant)) {
            Ok(()) => self.walk(at + 1, entrant),
            Err(denial) => Walk::Refused { at, denial },
        }
    }

    /// Asks one gate after the other, from number `from` on.
    fn walk(&self, from: usize, entrant: &mut impl Entrant) -> Walk {
        for (at, station) in self.stations.iter().enumerate().skip(from) {
            match station.ask(entrant) {
                Asked::Answered(Ok(())) => {}
                Asked::Answered(Err(denial)) => return Walk::Refused { at, denial },
                Asked::Later(pending) => return Walk::Waits { at, pending },
            }
        }
        Walk::Admitted
    }

    /// What the response to an admitted request carries; `None` behind gates that have nothing to say, as half of them.
    pub(super) fn stamp_all(&self, entrant: &mut impl Entrant) -> Option<ResponseParts> {
        self.stamps.then(|| self.stamp(self.stations.len().saturating_sub(1), entrant.context_mut()))
    }

    /// The span in which the inner service runs, if somebody listens.
    pub(super) fn span(&self, entrant: &impl Entrant) -> Option<Box<Span>> {
        // A span costs much even where nobody does.
        if !tracing::level_enabled!(Level::INFO) {
            return None;
        }
        let context = entrant.context();
        self.stations.iter().find_map(|station| station.gate.span(context)).map(Box::new)
    }

    /// The response to a refusal by gate number `at`, with what it and the gates before it stamp.
    pub(super) fn refuse<B>(&self, at: usize, denial: Denial, request: Request<B>) -> Refusal {
        let (mut head, _) = request.into_parts();
        let layer = self.stations.get(at).map_or("", |station| station.gate.layer());
        let mut stamp = self.stamp(at, head.extensions.get_or_insert_default());
        if denial.kind() == DenialKind::KeyExpired {
            self.tell_expired(at, &head, &mut stamp);
        }
        let is_usual = stamp.more.is_none();
        // What is charged for a refusal is charged when there is one, and stamped then.
        let at_once = if is_usual { mem::take(&mut stamp) } else { ResponseParts::default() };
        let mut response = refusal::respond(layer, &denial, &mut head, at_once);
        if response.extensions().is_empty() {
            // Nobody needs the request's map any more, and the response needs one.
            head.extensions.clear();
            *response.extensions_mut() = head.extensions;
        }
        response.extensions_mut().insert(denial);
        if is_usual { Refusal::stamped(response) } else { Refusal::settle(response, stamp) }
    }

    /// Has the gates from number `at` on tell somebody whose key has expired where their limits stand, if they are to.
    #[cold]
    fn tell_expired(&self, at: usize, head: &request::Parts, stamp: &mut ResponseParts) {
        let Some(context) = RequestContext::of(&head.extensions) else { return };
        // That one, too: it may have refused for what has happened while it waited, before it learned anything.
        for station in self.stations.iter().skip(at) {
            if let Some((settlement, headers)) = station.gate.tell_expired(head.into(), context) {
                let more = stamp.more_mut();
                more.settlements.push(settlement);
                more.told = Some((Decision::evaluate(context.instant(), []), headers));
            }
        }
    }

    /// What a response carries of the gates up to number `at`.
    fn stamp(&self, at: usize, context: &mut RequestContext) -> ResponseParts {
        let mut stamp = ResponseParts::default();
        for station in self.stations.get(..=at).unwrap_or(&self.stations) {
            if station.stamps {
                station.gate.stamp(context, &mut stamp);
            }
        }
        if let Some(owed) = context.take_owed() {
            stamp.more_mut().settlements = owed.0;
        }
        stamp
    }
}

/// The response to a refusal.
pub(super) struct Refusal {
    pub(super) response: Response<Bytes>,
    // What is still to be stamped, what costs by the body, and what limiters take their time for before both. Boxed, since
    // hardly any refusal has such.
    pub(super) owing: Option<Box<(ResponseParts, Option<Settling>)>>,
}

impl Refusal {
    fn stamped(response: Response<Bytes>) -> Self {
        Self { response, owing: None }
    }

    #[cold]
    fn settle(response: Response<Bytes>, mut stamp: ResponseParts) -> Self {
        let settling = stamp.settle(ResponseHead::of(&response));
        Self { response, owing: Some(Box::new((stamp, settling))) }
    }
}
