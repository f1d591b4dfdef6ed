//! What the gates add to a response: complete before the inner service is called.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderName, HeaderValue, Response};
use tollgate_core::{denial::Denial, in_flight::Place, limit::Decision};

use super::{
    Caching,
    deferred::{Charged, DeferredCharge, log_failure},
    headers::{set_header, set_header_default},
    metered::UntilEnd,
    settings::ReportOnly,
    watch::Watch,
};
use crate::{
    layers::{
        credits::{OpenReservation, OpenUntilEnd},
        rate_limit::{RateLimitHeaders, RateLimitValues},
    },
    number_text::number_text,
};

/// What the gates add to a response. Small, because the future of every admitted request holds it.
#[derive(Clone, Default)]
pub(crate) struct ResponseParts {
    /// The request's identifier.
    pub(crate) request_id: Option<HeaderValue>,
    /// What caches may do with the response.
    pub(crate) caching: Caching,
    rate_limit: Option<RateLimitValues>,
    // Boxed, because few responses carry such.
    rare: Option<Box<RareParts>>,
}

/// What few responses carry.
#[derive(Clone, Default)]
struct RareParts {
    // The header of the request's identifier, if it is not `x-request-id`.
    request_id_header: Option<HeaderName>,
    // Rate-limit headers beside the three usual ones.
    rate_limit_headers: Vec<(HeaderName, HeaderValue)>,
    // What rate-limit headers show, in case a deferred charge changes it.
    shown: Option<(Decision, RateLimitHeaders)>,
    // Whether an outer limit layer has to know what this one shows.
    is_limit_stacked: bool,
    deferred: Vec<DeferredCharge>,
    // The request's places among those in flight.
    places: Vec<Place>,
    // The request's reservation of credits.
    credits: Option<Arc<OpenReservation>>,
    // What `X-Credits-Remaining` shows.
    credits_remaining: Option<u64>,
    // What watches for the end of the caller.
    watch: Option<Box<Watch>>,
}

/// What a limit layer shows on a response. An outer limit layer reads it from the response's extensions.
#[derive(Clone, Copy)]
struct ShownLimit(RateLimitValues);

static X_CREDITS_REMAINING: HeaderName = HeaderName::from_static("x-credits-remaining");

/// The default header of a request's identifier.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl ResponseParts {
    pub(super) const NONE: Self =
        Self { request_id: None, caching: Caching::Free, rate_limit: None, rare: None };

    /// Writes the request's identifier into another header than `x-request-id`.
    #[cold]
    pub(crate) fn set_request_id_header(&mut self, header: HeaderName) {
        self.rare_mut().request_id_header = Some(header);
    }

    /// Shows where the caller's limits stand. `is_stacked`: an outer limit layer shows its own decision, too.
    #[inline]
    pub(crate) fn show_limit(&mut self, decision: &Decision, headers: RateLimitHeaders, is_stacked: bool) {
        self.rate_limit = headers.values(decision);
        if is_stacked || headers.has_others() {
            let rare = self.rare_mut();
            rare.rate_limit_headers = headers.others(decision);
            rare.is_limit_stacked = is_stacked;
        }
    }

    /// Adds a charge that waits for the response. `shown`: the decision that rate-limit headers show before this charge.
    #[cold]
    pub(crate) fn defer(&mut self, charge: DeferredCharge, shown: Option<(&Decision, RateLimitHeaders)>) {
        let rare = self.rare_mut();
        rare.deferred.push(charge);
        rare.shown = shown.map(|(decision, headers)| (decision.clone(), headers)).or(rare.shown.take());
    }

    /// Holds a place until the body of the response has ended.
    #[cold]
    pub(crate) fn hold(&mut self, place: Place) {
        self.rare_mut().places.push(place);
    }

    /// Keeps a reservation of credits until the body of the response has ended.
    #[cold]
    pub(crate) fn keep_reservation(&mut self, reservation: Arc<OpenReservation>) {
        self.rare_mut().credits = Some(reservation);
    }

    /// Releases the reservation of credits: the request has failed.
    pub(super) fn release_reservation(&mut self) {
        if let Some(reservation) = self.take_reservation() {
            reservation.release();
        }
    }

    /// Settles the reservation of credits as if the caller had hung up.
    pub(super) fn break_off_reservation(&mut self) {
        if let Some(reservation) = self.take_reservation() {
            reservation.break_off();
        }
    }

    /// Watches for the end of the caller.
    #[cold]
    pub(super) fn watch(&mut self, watch: Watch) {
        self.rare_mut().watch = Some(Box::new(watch));
    }

    /// Has the end of the caller counted and logged only.
    #[cold]
    pub(super) fn report_end_to(&mut self, report: &ReportOnly) {
        if let Some(watch) = self.rare.as_mut().and_then(|rare| rare.watch.as_mut()) {
            watch.report_to(report);
        }
    }

    /// Whether the caller has ended, if the request is ended before the head of its response.
    pub(super) fn take_ended(&mut self) -> Option<(Box<Watch>, Denial)> {
        Watch::take_ended(self.watch_before_head()?)
    }

    /// Waits for the end of the caller, if the request is ended before the head of its response.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Watch>, Denial)> {
        self.watch_before_head().map_or(Poll::Pending, |watch| Watch::poll_ended(watch, cx))
    }

    fn watch_before_head(&mut self) -> Option<&mut Option<Box<Watch>>> {
        let watch = &mut self.rare.as_mut()?.watch;
        watch.as_ref().is_some_and(|watch| watch.is_grpc()).then_some(watch)
    }

    /// Takes what watches the body of this response, if it is a stream.
    pub(super) fn take_watch<B>(&mut self, response: &Response<B>) -> Option<Box<Watch>> {
        let mut watch = self.rare.as_mut()?.watch.take()?;
        watch.see_head(response).then_some(watch)
    }

    /// The request's places among those in flight, for a task that outlives the request.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.rare.as_ref().map(|rare| rare.places.clone()).unwrap_or_default()
    }

    /// Shows how many credits the caller's account has left.
    #[cold]
    pub(crate) fn show_credits(&mut self, remaining: u64) {
        self.rare_mut().credits_remaining = Some(remaining);
    }

    /// Whether charges wait for the response, places and credits for the end of its body, or a watch for the end of the caller.
    #[inline]
    pub(super) fn outlast_head(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| {
            !rare.deferred.is_empty()
                || !rare.places.is_empty()
                || rare.credits.is_some()
                || rare.watch.is_some()
        })
    }

    /// Whether charges wait for the response.
    #[inline]
    pub(super) fn has_deferred(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.deferred.is_empty())
    }

    /// Keeps a charge that waits for the end of the body.
    pub(super) fn keep_deferred(&mut self, charge: DeferredCharge) {
        self.rare_mut().deferred.push(charge);
    }

    pub(super) fn take_deferred(&mut self) -> Vec<DeferredCharge> {
        self.rare.as_mut().map(|rare| mem::take(&mut rare.deferred)).unwrap_or_default()
    }

    /// Takes the reservation of credits.
    pub(super) fn take_reservation(&mut self) -> Option<Arc<OpenReservation>> {
        self.rare.as_mut()?.credits.take()
    }

    /// Takes what waits for the end of the body, beside these credits.
    pub(super) fn take_until_end(&mut self, credits: Option<OpenUntilEnd>) -> UntilEnd {
        let places = self.rare.as_mut().map(|rare| mem::take(&mut rare.places)).unwrap_or_default();
        UntilEnd { charges: self.take_deferred(), places, credits, watch: None }
    }

    /// Takes over a limiter's answer to a deferred charge.
    pub(super) fn update(&mut self, is_shown: bool, charged: Charged) {
        match charged {
            Ok(newer) if is_shown => self.show_newer(&newer),
            Ok(_) => {}
            Err(error) => log_failure(&error),
        }
    }

    fn show_newer(&mut self, newer: &Decision) {
        let Some((decision, headers)) = self.rare_mut().shown.take() else { return };
        let decision = decision.refreshed_by(newer);
        let is_stacked = self.rare_mut().is_limit_stacked;
        self.show_limit(&decision, headers, is_stacked);
        self.rare_mut().shown = Some((decision, headers));
    }

    /// Completes a response. A handler's own values of these headers are replaced.
    #[inline]
    pub(super) fn apply<B>(&mut self, response: &mut Response<B>) {
        mem::take(&mut self.caching).apply(response.headers_mut());
        // Few responses have extensions, or carry anything rare.
        let (limit, request_id) = if self.rare.is_none() && response.extensions().is_empty() {
            (self.rate_limit.take(), self.request_id.take())
        } else {
            self.apply_rare(response)
        };
        let headers = response.headers_mut();
        if let Some(values) = limit
            && values.is_usual
        {
            values.write(headers);
        }
        if let Some(request_id) = request_id {
            set_header(headers, &X_REQUEST_ID, request_id);
        }
    }

    /// Writes what few responses carry. Gives what is still to be written.
    #[inline(never)]
    fn apply_rare<B>(
        &mut self,
        response: &mut Response<B>,
    ) -> (Option<RateLimitValues>, Option<HeaderValue>) {
        let (mut limit, mut request_id) = (self.rate_limit.take(), self.request_id.take());
        let rare = self.rare.take().map_or_else(RareParts::default, |rare| *rare);
        let inner = response.extensions().get().map(|ShownLimit(inner)| *inner);
        // An inner limit layer's headers stay where they are tighter. On its refusal nothing else is shown.
        let is_tightest = match (&limit, &inner) {
            (Some(own), Some(inner)) => own.are_tighter_than(inner),
            _ => true,
        };
        for (name, value) in rare.rate_limit_headers {
            if is_tightest {
                set_header(response.headers_mut(), &name, value);
            } else if inner.is_some_and(|inner| !inner.is_refusal) {
                set_header_default(response.headers_mut(), &name, || value);
            }
        }
        if is_tightest {
            if let Some(own) = limit
                && rare.is_limit_stacked
            {
                let mut shown = own;
                shown.is_usual |= inner.is_some_and(|inner| inner.is_usual);
                response.extensions_mut().insert(ShownLimit(shown));
            }
        } else if inner.is_some_and(|inner| inner.is_usual || inner.is_refusal) {
            limit = None;
        }
        if let Some(remaining) = rare.credits_remaining {
            set_header(response.headers_mut(), &X_CREDITS_REMAINING, number_text(remaining));
        }
        if let Some(header) = rare.request_id_header
            && let Some(request_id) = request_id.take()
        {
            set_header(response.headers_mut(), &header, request_id);
        }
        (limit, request_id)
    }

    fn rare_mut(&mut self) -> &mut RareParts {
        self.rare.get_or_insert_default()
    }
}
