//! The walk of a request through the gates.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use tollgate_core::{Denial, Outcome, Pending};
use tracing::{Level, Span};

use super::{
    Asked, Entrant, Gate, GateLayer, Learned, Passage, ReportOnly, Settings, Stamp, entrant::Arrival,
    refusal, stamp::Template,
};
use crate::ConfigurationError;

/// Gates in the order of a request, and what they have in common.
#[derive(Debug)]
pub(crate) struct Engine {
    stations: Vec<Station>,
    // For the gates up to each one, which is as far as a request may come.
    templates: Vec<Template>,
    settings: Settings,
    flaw: Option<ConfigurationError>,
}

/// A gate in its place.
#[derive(Debug)]
pub(crate) struct Station {
    pub(super) gate: Arc<dyn Gate>,
    // In report-only mode if there is a count.
    report_only: Option<ReportOnly>,
    // What the gate says of itself, since asking it costs a virtual call.
    pub(super) stamps: bool,
}

/// How far a request came.
pub(super) enum Walk {
    /// Through all gates.
    Admitted(Admission),
    /// To gate number `at`, which refused it.
    Refused { at: usize, denial: Denial },
    /// To gate number `at`, which has to wait.
    Waits { at: usize, pending: Pending<Result<Learned, Denial>> },
}

/// What is left to do for a request that was admitted.
pub(super) struct Admission {
    /// What its response will carry.
    pub(super) stamp: Stamp,
    /// The span in which the inner service runs, if somebody listens.
    pub(super) span: Option<Box<Span>>,
    /// Its instant.
    pub(super) now: SystemTime,
}

impl Station {
    pub(crate) fn new(gate: Arc<dyn Gate>, report_only: Option<ReportOnly>) -> Self {
        let stamps = gate.stamps().is_some();
        Self { gate, report_only, stamps }
    }

    /// In report-only mode, the passage as it is before this gate finds out who is calling: who is refused shall not count as
    /// found out.
    fn remember(&self, passage: &Passage) -> Option<Passage> {
        (self.report_only.is_some() && self.gate.identifies()).then(|| passage.clone())
    }

    /// Rules on the verdict of the gate: in report-only mode it waives a refusal. What is put together wrongly is never waved
    /// through: nobody would learn of it.
    fn rule(
        &self,
        verdict: Result<(), Denial>,
        before: Option<Passage>,
        entrant: &mut dyn Entrant,
    ) -> Result<(), Denial> {
        let Err(denial) = verdict else { return Ok(()) };
        let Some(report) = self.report_only.as_ref().filter(|_| denial.outcome() != Outcome::Misconfigured)
        else {
            return Err(denial);
        };
        let passage = entrant.passage_mut();
        if !passage.is_waived {
            report.count();
            refusal::report(&denial, self.gate.layer(), passage, true);
        }
        passage.waive(before);
        Ok(())
    }
}

impl Engine {
    pub(crate) fn new(stations: Vec<Station>, settings: Settings) -> Arc<Self> {
        let flaw = stations.iter().find_map(|station| station.gate.flaw());
        let templates = (0..stations.len()).map(|at| Template::new(passed(&stations, at))).collect();
        Arc::new(Self { stations, templates, settings, flaw })
    }

    /// The engine of a layer that stands alone.
    pub(crate) fn of(layer: impl GateLayer) -> Arc<Self> {
        let (gate, settings) = layer.into_parts();
        Self::new(vec![Station::new(gate, settings.report_only.clone())], settings)
    }

    /// Why the stack cannot work as it was built.
    pub(crate) fn flaw(&self) -> Option<&ConfigurationError> {
        self.flaw.as_ref()
    }

    /// Begins the walk with what layers further out have learned.
    pub(super) fn enter<B>(&self, request: &mut Request<B>) -> Walk {
        let mut arrival = Arrival::of(request);
        self.settings.prepare(&mut arrival);
        // Something between the layers may have waited, and the principal may have ended meanwhile.
        let ended = arrival.passage().check_end();
        let walk = match (&self.flaw, ended) {
            (Some(flaw), _) => Walk::Refused { at: 0, denial: Denial::misconfigured(flaw.to_string()) },
            (None, Ok(())) => self.walk(0, &mut arrival),
            (None, ended @ Err(_)) => self.go_on(0, ended, None, &mut arrival),
        };
        arrival.leave();
        walk
    }

    /// Goes on with the answer that gate number `at` waited for. The wait may have been long: the instant is a new one, and
    /// the principal may have ended meanwhile.
    pub(super) fn resume<B>(
        &self,
        at: usize,
        answer: Result<Learned, Denial>,
        request: &mut Request<B>,
    ) -> Walk {
        let mut arrival = Arrival::of(request);
        let Some(Station { gate, .. }) = self.stations.get(at) else { return self.admit(&mut arrival) };
        let passage = arrival.passage_mut();
        passage.read_clock();
        let before = self.stations.get(at).and_then(|station| station.remember(passage));
        let verdict = passage.check_end().and(answer).and_then(|learned| {
            passage.learn(learned);
            gate.judge(passage)
        });
        let walk = self.go_on(at, verdict, before, &mut arrival);
        arrival.leave();
        walk
    }

    /// Asks one gate after the other, from number `from` on.
    fn walk(&self, from: usize, entrant: &mut dyn Entrant) -> Walk {
        for (at, station) in self.stations.iter().enumerate().skip(from) {
            let before = station.remember(entrant.passage());
            let verdict = match station.gate.ask(entrant) {
                Asked::Answered(Ok(())) => continue,
                Asked::Answered(verdict) => verdict,
                Asked::Later(pending) => return Walk::Waits { at, pending },
            };
            if let Err(denial) = station.rule(verdict, before, entrant) {
                return Walk::Refused { at, denial };
            }
        }
        self.admit(entrant)
    }

    /// Goes on with the verdict of gate number `at`.
    fn go_on(
        &self,
        at: usize,
        verdict: Result<(), Denial>,
        before: Option<Passage>,
        entrant: &mut dyn Entrant,
    ) -> Walk {
        let ruled = match self.stations.get(at) {
            Some(station) => station.rule(verdict, before, entrant),
            None => verdict,
        };
        match ruled {
            Ok(()) => self.walk(at + 1, entrant),
            Err(denial) => Walk::Refused { at, denial },
        }
    }

    fn admit(&self, entrant: &mut dyn Entrant) -> Walk {
        let passage = entrant.passage_mut();
        // A span costs much even where nobody listens.
        let span = if tracing::level_enabled!(Level::INFO) {
            self.stations.iter().find_map(|station| station.gate.span(passage)).map(Box::new)
        } else {
            None
        };
        let now = passage.instant();
        let last = self.stations.len().saturating_sub(1);
        Walk::Admitted(Admission { stamp: self.stamp(last, passage), span, now })
    }

    /// The response to a refusal by gate number `at`, with what it and the gates before it stamp.
    pub(super) fn refuse<B>(&self, at: usize, denial: Denial, request: Request<B>) -> Response<Bytes> {
        let (mut head, _) = request.into_parts();
        let layer = self.stations.get(at).map_or("", |station| station.gate.layer());
        let mut response = refusal::refuse(layer, denial, &mut head);
        // A responder may have taken it away.
        let passage = head.extensions.get_or_insert_default();
        self.stamp(at, passage).apply(&mut response);
        response
    }

    /// What a response carries of the gates up to number `at`.
    fn stamp(&self, at: usize, passage: &mut Passage) -> Stamp {
        match self.templates.get(at) {
            Some(template) => template.fill(passed(&self.stations, at), passage),
            None => Stamp::default(),
        }
    }
}

/// The stations up to number `at`.
fn passed(stations: &[Station], at: usize) -> &[Station] {
    stations.get(..=at).unwrap_or(stations)
}
