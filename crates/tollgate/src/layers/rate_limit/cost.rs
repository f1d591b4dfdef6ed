//! What a request costs: known from the request, or only from its response.

use std::{fmt, sync::Arc};

use tollgate_core::{request::RequestHead, verify::Principal};

use crate::{engine::DeferredCost, respond::ResponseHead};

/// What a request takes from its quotas. By default 1.
///
/// A cost that only the response tells is charged when it is there, whether there is room for it or not; what is asked for
/// beforehand is that there is anything left at all. So the last request may take more than was left.
///
/// ```
/// use tollgate::{
///     PerWindow, Policy, RateLimitLayer,
///     limit::{Cost, Subject},
/// };
///
/// let layer = RateLimitLayer::from_policies([
///     // A search costs ten times as much as anything else, and asking for one's own usage nothing.
///     Policy::new("requests", 600.per_minute()).with_cost(Cost::by_request(|head, _principal| {
///         match head.uri.path() {
///             "/search" => 10,
///             "/usage" => 0,
///             _ => 1,
///         }
///     })),
///     // Only failures count.
///     Policy::new("failures", 20.per_minute())
///         .with_cost(Cost::by_response(|response| u64::from(response.status.is_client_error()))),
///     // A gibibyte a day, in kibibytes.
///     Policy::new("traffic", 1_048_576.per_day())
///         .by(Subject::Tenant)
///         .with_cost(Cost::by_body(|bytes| bytes.div_ceil(1024))),
/// ]);
/// ```
#[derive(Clone)]
pub struct Cost(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Units(u64),
    Request(Arc<OfRequest>),
    Later(DeferredCost),
}

pub(super) type OfRequest = dyn for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> u64 + Send + Sync;

impl Cost {
    /// So much for each request.
    pub const fn units(units: u64) -> Self {
        Self(Kind::Units(units))
    }

    /// What a function says of the request's head and its principal, if it has one: by route, by method, by a parameter. A
    /// cost of 0 is not counted, and never refused.
    pub fn by_request(
        cost: impl for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Request(Arc::new(cost)))
    }

    /// What a function says of the response's head, refusals by layers further in included. Charged before the response is
    /// given out, so that its numbers tell of it. A request whose response is no longer waited for costs nothing.
    pub fn by_response(cost: impl for<'r> Fn(ResponseHead<'r>) -> u64 + Send + Sync + 'static) -> Self {
        Self(Kind::Later(DeferredCost::Response(Arc::new(cost))))
    }

    /// What a function says of the number of bytes in the response's body. Charged when the body has ended, or is dropped:
    /// then for what was sent of it. The response's own numbers cannot tell of it, the next one's do.
    ///
    /// Bodies under way are not counted yet, and a caller may hold as many of them open as it likes: where that matters, bound
    /// how many there may be at once and how long one may take, as `tower`'s limits and a server's timeouts do.
    pub fn by_body(cost: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        Self(Kind::Later(DeferredCost::Body(Arc::new(cost))))
    }
}

impl Default for Cost {
    /// 1.
    fn default() -> Self {
        Self::units(1)
    }
}

impl From<u64> for Cost {
    fn from(units: u64) -> Self {
        Self::units(units)
    }
}

impl fmt::Debug for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Units(units) => write!(f, "Cost({units})"),
            Kind::Request(_) => f.write_str("Cost(by request)"),
            Kind::Later(DeferredCost::Body(_)) => f.write_str("Cost(by body)"),
            Kind::Later(_) => f.write_str("Cost(by response)"),
        }
    }
}
