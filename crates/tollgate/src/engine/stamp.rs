//! What a response will carry: known before the inner service is called.

use std::sync::{Arc, LazyLock};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response, header::ValuesMut};
use tollgate_core::{
    answer::{Answer, Pending},
    denial::Unavailable,
    limit::Decision,
};

use super::{
    Caching,
    headers::set_header,
    numbers::{cached_number, format_number},
    rate_limit_headers::RateLimitHeaders,
    settlement::{self, DeferredCharge},
};
use crate::respond::ResponseHead;

/// What a response will carry of the gates that its request has passed. Small, since futures hold it: up to 128 bytes are moved
/// without a call.
#[derive(Default)]
pub(crate) struct ResponseParts {
    /// The request's identifier, and the header for it.
    pub(crate) request_id: Option<HeaderValue>,
    /// The header for it, where it is not `x-request-id`.
    pub(crate) other_header: Option<Arc<HeaderName>>,
    /// Where the caller's limits stand.
    pub(crate) numbers: Option<Numbers>,
    /// Whether they tell of limits further out, too: of stacked limits only the innermost writes them, for all.
    pub(crate) are_numbers_merged: bool,
    /// What caches may do with it.
    pub(crate) caching: Caching,
    /// What hardly any response carries.
    pub(super) more: Option<Box<More>>,
}

/// What hardly any response carries.
#[derive(Default)]
pub(super) struct More {
    /// Headers that tell more of the limits than three numbers.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What is still to be charged.
    pub(super) settlements: Vec<DeferredCharge>,
    /// What is told of the limits, as of the admission, and how: to be told anew when something was charged.
    pub(super) told: Option<Told>,
    /// Whether it was: then it takes the place of what limits further in have written.
    is_told_anew: bool,
}

/// Where limits stand, and how callers are told.
pub(super) type Told = (Decision, RateLimitHeaders);

/// Where limits stand: the three numbers of one window.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    /// What the window admits.
    pub(crate) limit: u64,
    /// What it still admits.
    pub(crate) remaining: u64,
    /// When the whole limit is there again.
    pub(crate) reset: u64,
}

/// What limiters take their time for.
pub(super) type Settling = Pending<Vec<Result<Option<Decision>, Unavailable>>>;

/// The header of a request's identifier, unless another one was chosen.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl Numbers {
    /// Limit, remaining and reset as the values of headers, one after another.
    #[inline(always)]
    pub(super) fn tell(self, mut told: impl FnMut(&HeaderName, HeaderValue)) {
        let (limit, reset) = cached_number(self.limit, self.reset);
        told(&LIMIT, limit);
        told(&REMAINING, format_number(self.remaining));
        told(&RESET, reset);
    }
}

impl ResponseParts {
    pub(super) fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Keeps what is told of the limits, since what is charged later changes it.
    #[cold]
    pub(crate) fn will_tell_anew(&mut self, decision: &Decision, headers: RateLimitHeaders) {
        self.more_mut().told = Some((decision.clone(), headers));
    }

    /// Completes a response. What the inner service says of the same headers is replaced.
    #[inline(always)]
    pub(super) fn apply<B>(&mut self, response: &mut Response<B>) {
        std::mem::take(&mut self.caching).apply(response.headers_mut());
        let are_numbers_due = (self.numbers.is_some() || self.more.is_some())
            && (NumbersWritten::of(response.extensions()).is_none() || self.is_told_anew());
        let numbers = self.numbers.filter(|_| are_numbers_due);
        self.write(response.headers_mut(), numbers);
        if are_numbers_due && let Some(more) = &mut self.more {
            for (name, value) in more.headers.drain(..) {
                set_header(response.headers_mut(), name, value);
            }
        }
        if self.are_numbers_merged {
            let told = self.more.as_mut().and_then(|more| more.told.take()).map(Arc::new);
            response.extensions_mut().insert(NumbersWritten(told));
        }
    }

    fn is_told_anew(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.is_told_anew)
    }

    /// Charges what the response's head tells. What that changes is told by the stamp, at once or when the limiters have
    /// answered: see [`take_up`](Self::take_up).
    #[inline]
    pub(super) fn settle(&mut self, response: ResponseHead<'_>) -> Option<Settling> {
        if self.more.is_some() { self.settle_more(response) } else { None }
    }

    #[cold]
    fn settle_more(&mut self, response: ResponseHead<'_>) -> Option<Settling> {
        // A limit further in has told of this one as well, and of itself.
        if let Some(NumbersWritten(Some(told))) = NumbersWritten::of(response.extensions) {
            self.more_mut().told = Some(Told::clone(told));
        }
        let (mut settled, mut pending) = (Vec::new(), Vec::new());
        for settlement in &self.more_mut().settlements {
            match settlement.settle_head(response) {
                None => {}
                Some(Answer::Now(answer)) => settled.push(answer),
                Some(Answer::Later(answer)) => pending.push(answer),
            }
        }
        self.take_up(settled);
        if pending.is_empty() {
            return None;
        }
        Some(Box::pin(async {
            let mut settled = Vec::new();
            for answer in pending {
                settled.push(answer.await);
            }
            settled
        }))
    }

    /// Tells what has changed since the admission.
    pub(super) fn take_up(&mut self, settled: Vec<Result<Option<Decision>, Unavailable>>) {
        for answer in settled {
            match answer {
                Ok(None) => {}
                Ok(Some(newer)) => self.tell_anew(&newer),
                Err(error) => settlement::report(&error),
            }
        }
    }

    fn tell_anew(&mut self, newer: &Decision) {
        let Some((decision, headers)) = self.more_mut().told.take() else { return };
        let decision = decision.refreshed_by(newer);
        headers.tell(&decision, self);
        let more = self.more_mut();
        more.told = Some((decision, headers));
        more.is_told_anew = true;
    }

    /// What is to be charged when the body has ended.
    #[inline]
    pub(super) fn settlements(&mut self) -> Option<Vec<DeferredCharge>> {
        let more = self.more.take()?;
        let settlements: Vec<_> =
            more.settlements.into_iter().filter(DeferredCharge::waits_for_body).collect();
        (!settlements.is_empty()).then_some(settlements)
    }

    fn write(&mut self, headers: &mut HeaderMap, numbers: Option<Numbers>) {
        let (request_id, other_header) = (self.request_id.take(), self.other_header.take());
        match (request_id, numbers, &*ALL) {
            // The usual stack, before a service that leaves the headers to others.
            (Some(request_id), Some(numbers), Some(all)) if headers.is_empty() && other_header.is_none() => {
                let mut names = all.clone();
                let mut blanks = Blanks::of(&mut names);
                numbers.tell(|_, number| blanks.fill(number));
                blanks.fill(request_id);
                *headers = names;
            }
            (request_id, numbers, _) => {
                if let Some(numbers) = numbers {
                    numbers.tell(|name, number| set_header(headers, name.clone(), number));
                }
                if let Some(request_id) = request_id {
                    let name = other_header.map_or_else(|| X_REQUEST_ID.clone(), Arc::unwrap_or_clone);
                    set_header(headers, name, request_id);
                }
            }
        }
    }
}

/// In a response's extensions: a limit further in has written the numbers of all. What it told is there if one further out may have
/// to tell it anew.
#[derive(Clone)]
struct NumbersWritten(Option<Arc<Told>>);

impl NumbersWritten {
    fn of(extensions: &Extensions) -> Option<&Self> {
        if extensions.is_empty() { None } else { extensions.get() }
    }
}

static ALL: LazyLock<Option<HeaderMap>> =
    LazyLock::new(|| names([&LIMIT, &REMAINING, &RESET, &X_REQUEST_ID]));

/// Names without values yet: to copy such a map costs less than to insert the names one by one. `None` if the map lists them in
/// another order, which it is free to do, but does not.
pub(super) fn names<'n>(names: impl IntoIterator<Item = &'n HeaderName> + Clone) -> Option<HeaderMap> {
    let empty = HeaderValue::from_static("");
    let map: HeaderMap = names.clone().into_iter().map(|name| (name.clone(), empty.clone())).collect();
    map.keys().eq(names).then_some(map)
}

/// The places of values where there are only names. They are filled in their order, one at a time: values are large, and a list of
/// them would be copied several times.
pub(super) struct Blanks<'m>(ValuesMut<'m, HeaderValue>);

impl<'m> Blanks<'m> {
    #[inline]
    pub(super) fn of(names: &'m mut HeaderMap) -> Self {
        Self(names.values_mut())
    }

    #[inline(always)]
    pub(super) fn fill(&mut self, value: HeaderValue) {
        if let Some(place) = self.0.next() {
            // What stood there owns nothing, and dropping it would be a call by pointer.
            std::mem::forget(std::mem::replace(place, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but speed hangs on it.
    #[test]
    fn a_map_lists_its_names_in_the_order_of_their_insertion() {
        assert!(ALL.is_some());
    }
}
