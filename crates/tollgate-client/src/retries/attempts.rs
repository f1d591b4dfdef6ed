//! How often a request is sent again, and when.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header::CONTENT_TYPE, request::Parts};
use tollgate_core::clock::Clock;

use super::{deadline::Deadline, requested_wait::requested_wait};

/// The tries of one request.
pub(super) struct Attempts {
    // How often the request has been sent.
    made: u32,
    max: u32,
    wait_left: Duration,
    is_idempotent: bool,
    // gRPC-Web is another protocol: it has a deadline, but does not count tries.
    counts_tries: bool,
    deadline: Option<Deadline>,
}

impl Attempts {
    /// The first try is made.
    pub(super) fn new(head: &Parts, max: u32, max_wait: Duration) -> Self {
        let is_type = |prefix: &[u8]| {
            head.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(prefix))
        };
        let is_grpc = is_type(b"application/grpc");
        Self {
            made: 1,
            max,
            wait_left: max_wait,
            is_idempotent: is_idempotent(&head.method),
            counts_tries: is_grpc && !is_type(b"application/grpc-web"),
            deadline: if is_grpc { Deadline::of(&head.headers) } else { None },
        }
    }

    /// How long to wait before the next try. `None` if `response` is the last one.
    pub(super) fn next_after<B>(&mut self, response: &Response<B>, clock: &dyn Clock) -> Option<Duration> {
        if self.made >= self.max {
            return None;
        }
        let requested =
            requested_wait(response.status(), response.headers(), self.is_idempotent, || clock.now())?;
        let spread = self.spread(requested)?;
        let wait = requested.saturating_add(spread);
        self.made += 1;
        self.wait_left = self.wait_left.saturating_sub(wait);
        tracing::debug!(
            target: "tollgate",
            status = response.status().as_u16(),
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            next_try = self.made,
            "request refused, will be sent again"
        );
        Some(wait)
    }

    /// What is added to the wait, at random. `None` if there is not enough time for the wait itself.
    fn spread(&self, requested: Duration) -> Option<Duration> {
        let left = self.wait_left.checked_sub(requested)?;
        let left = match self.deadline {
            // A try needs time, too: the server gets at least half of what is left.
            Some(deadline) => {
                left.min(deadline.left().checked_sub(requested).filter(|left| !left.is_zero())? / 2)
            }
            None => left,
        };
        Some(spread_of(requested, random()).min(left))
    }

    /// Marks the headers of a next try.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        if self.counts_tries {
            headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(self.made.saturating_sub(1)));
        }
        if let Some(deadline) = self.deadline {
            deadline.write(headers);
        }
    }
}

// gRPC proposal A6, "Exposed Retry Metadata".
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

/// At most a tenth of the wait, but at least 100 ms and at most 1 s, times `fraction / 65,536`.
fn spread_of(requested: Duration, fraction: u16) -> Duration {
    let most = (requested / 10).clamp(Duration::from_millis(100), Duration::from_secs(1));
    most * u32::from(fraction) / (u32::from(u16::MAX) + 1)
}

/// Two random bytes. Nothing secret depends on them.
fn random() -> u16 {
    let [first, second, ..] = RandomState::new().hash_one(0_u8).to_ne_bytes();
    u16::from_ne_bytes([first, second])
}

#[cfg(test)]
mod tests;
