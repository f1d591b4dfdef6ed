//! What the gates add to a response: complete before the inner service is called.

use std::{cmp::Reverse, mem};

use http::{Extensions, HeaderName, HeaderValue, Response};
use tollgate_core::limit::Decision;

use super::{
    Caching,
    deferred::{Charged, DeferredCharge, log_failure},
    headers::{set_header, set_header_default},
};
use crate::layers::rate_limit::{RateLimitHeaders, RateLimitValues};

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
    // What this layer shows, in short, and whether an outer limit layer has to know.
    limit: Option<ShownLimit>,
    is_limit_stacked: bool,
    deferred: Vec<DeferredCharge>,
}

/// What a limit layer shows, in short. In a response's extensions, so that an outer limit layer replaces it only by something
/// tighter.
#[derive(Clone, Copy)]
struct ShownLimit {
    is_refusal: bool,
    remaining: u64,
    reset_second: u64,
}

impl ShownLimit {
    fn of(decision: &Decision) -> Option<Self> {
        let window = decision.tightest()?;
        let is_refusal = !decision.is_allowed();
        Some(Self { is_refusal, remaining: window.remaining(), reset_second: window.reset_second })
    }

    fn is_tighter_than(self, other: Self) -> bool {
        let rank = |limit: Self| (!limit.is_refusal, limit.remaining, Reverse(limit.reset_second));
        rank(self) < rank(other)
    }
}

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
            self.show_more(decision, headers, is_stacked);
        }
    }

    #[cold]
    fn show_more(&mut self, decision: &Decision, headers: RateLimitHeaders, is_stacked: bool) {
        let has_values = self.rate_limit.is_some();
        let rare = self.rare_mut();
        rare.rate_limit_headers = headers.others(decision);
        rare.limit = ShownLimit::of(decision);
        rare.is_limit_stacked = is_stacked && (has_values || !rare.rate_limit_headers.is_empty());
    }

    /// Adds a charge that waits for the response. `shown` is what rate-limit headers show until then.
    #[cold]
    pub(crate) fn defer(&mut self, charge: DeferredCharge, shown: Option<(&Decision, RateLimitHeaders)>) {
        let rare = self.rare_mut();
        rare.deferred.push(charge);
        rare.shown = shown.map(|(decision, headers)| (decision.clone(), headers)).or(rare.shown.take());
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
        let (rate_limit, request_id) = (self.rate_limit.take(), self.request_id.take());
        mem::take(&mut self.caching).apply(response.headers_mut());
        // An inner limit layer leaves a mark, but few responses have any extensions.
        let is_tightest =
            response.extensions().is_empty() || self.is_tightest(response.extensions(), rate_limit);
        let request_id = match self.rare.take() {
            None => request_id,
            Some(rare) => rare.apply(is_tightest, request_id, response),
        };
        let headers = response.headers_mut();
        if let Some(values) = rate_limit
            && (is_tightest || !RateLimitValues::are_in(headers))
        {
            values.write(headers);
        }
        if let Some(request_id) = request_id {
            set_header(headers, &X_REQUEST_ID, request_id);
        }
    }

    /// Whether no inner limit layer shows anything as tight.
    #[inline(never)]
    fn is_tightest(&self, extensions: &Extensions, values: Option<RateLimitValues>) -> bool {
        let Some(shown) = extensions.get::<ShownLimit>() else { return true };
        let values = values.map(|values| ShownLimit {
            is_refusal: false,
            remaining: values.remaining,
            reset_second: values.reset,
        });
        let own = self.rare.as_ref().and_then(|rare| rare.limit).or(values);
        own.is_some_and(|own| own.is_tighter_than(*shown))
    }

    fn rare_mut(&mut self) -> &mut RareParts {
        self.rare.get_or_insert_default()
    }
}

impl RareParts {
    /// Completes a response. Gives back the request's identifier if its header is `x-request-id`.
    #[cold]
    fn apply<B>(
        self,
        is_tightest: bool,
        request_id: Option<HeaderValue>,
        response: &mut Response<B>,
    ) -> Option<HeaderValue> {
        for (name, value) in self.rate_limit_headers {
            if is_tightest {
                set_header(response.headers_mut(), &name, value);
            } else {
                set_header_default(response.headers_mut(), &name, || value);
            }
        }
        if let Some(limit) = self.limit
            && self.is_limit_stacked
            && is_tightest
        {
            response.extensions_mut().insert(limit);
        }
        match (self.request_id_header, request_id) {
            (Some(header), Some(request_id)) => {
                set_header(response.headers_mut(), &header, request_id);
                None
            }
            (_, request_id) => request_id,
        }
    }
}
