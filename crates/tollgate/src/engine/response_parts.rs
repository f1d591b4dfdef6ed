//! What the gates add to a response: complete before the inner service is called.

use std::{cmp::Reverse, mem};

use http::{Extensions, HeaderName, HeaderValue, Response};
use tollgate_core::limit::Decision;

use super::{
    Caching, RateLimitHeaders,
    deferred::{Charged, DeferredCharge, log_failure},
    header_template,
    headers::{set_header, set_header_default},
    rate_limit_headers::RateLimitValues,
};

/// What the gates add to a response. Small, because the future of every admitted request holds it.
#[derive(Default)]
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
#[derive(Default)]
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
    /// Writes the request's identifier into another header than `x-request-id`.
    #[cold]
    pub(crate) fn set_request_id_header(&mut self, header: HeaderName) {
        self.rare_mut().request_id_header = Some(header);
    }

    /// Shows where the caller's limits stand.
    #[inline]
    pub(crate) fn show_limit(&mut self, decision: &Decision, headers: RateLimitHeaders) {
        self.rate_limit = headers.values(decision);
        if headers.has_others() {
            self.show_others(decision, headers);
        }
    }

    #[cold]
    fn show_others(&mut self, decision: &Decision, headers: RateLimitHeaders) {
        let rare = self.rare_mut();
        rare.rate_limit_headers = headers.others(decision);
        rare.limit = ShownLimit::of(decision);
    }

    /// Shows it anew once deferred charges are made.
    #[cold]
    pub(crate) fn show_limit_again(&mut self, decision: &Decision, headers: RateLimitHeaders) {
        self.rare_mut().shown = Some((decision.clone(), headers));
    }

    /// Lets an outer limit layer know what this response shows.
    #[cold]
    pub(crate) fn mark_limit(&mut self, decision: &Decision) {
        let shows_values = self.rate_limit.is_some();
        let rare = self.rare_mut();
        rare.limit = ShownLimit::of(decision);
        rare.is_limit_stacked = shows_values || !rare.rate_limit_headers.is_empty();
    }

    /// Adds charges that wait for the response.
    #[inline]
    pub(super) fn defer(&mut self, charges: Vec<DeferredCharge>) {
        if !charges.is_empty() {
            self.rare_mut().deferred.extend(charges);
        }
    }

    /// Whether charges wait for the response.
    #[inline]
    pub(super) fn has_deferred(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.deferred.is_empty())
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
        self.show_limit(&decision, headers);
        let rare = self.rare_mut();
        rare.limit = ShownLimit::of(&decision);
        rare.shown = Some((decision, headers));
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
        match (rate_limit, request_id) {
            (Some(values), request_id) if is_tightest || !header_template::are_in(response.headers()) => {
                header_template::write(values, request_id, response.headers_mut());
            }
            (_, Some(request_id)) => {
                set_header(response.headers_mut(), X_REQUEST_ID.clone(), request_id);
            }
            _ => {}
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
                set_header(response.headers_mut(), name, value);
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
                set_header(response.headers_mut(), header, request_id);
                None
            }
            (_, request_id) => request_id,
        }
    }
}
