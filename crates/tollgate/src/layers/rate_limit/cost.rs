//! What a request costs: known from the request, or only from its response.

use std::{fmt, sync::Arc};

use tollgate_core::{request::RequestHead, verify::Principal};

use crate::{engine::DeferredCost, respond::ResponseHead};

/// What a request takes from its quotas. Default: 1.
///
/// A cost by response is charged when the response is there, even if less is left. Admission requires one remaining unit, so the
/// last request may take more than was left.
///
/// ```
/// use tollgate::{
///     PerWindow, Policy, RateLimitLayer,
///     limit::{Cost, Subject},
/// };
///
/// let layer = RateLimitLayer::from_policies([
///     // A search costs ten times as much as other requests, and reading one's own usage costs nothing.
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
///         .with_subject(Subject::Tenant)
///         .with_cost(Cost::by_body(|bytes| bytes.div_ceil(1024))),
/// ])?;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone)]
pub struct Cost(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Units(u64),
    Request(Arc<OfRequest>),
    Deferred(DeferredCost),
}

pub(super) type OfRequest = dyn for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> u64 + Send + Sync;

impl Cost {
    /// The same for each request.
    pub const fn units(units: u64) -> Self {
        Self(Kind::Units(units))
    }

    /// What a function returns for the request's head and its principal, if there is one: by route, by method, by a parameter. A
    /// request with a cost of 0 is not counted and never refused.
    pub fn by_request(
        cost: impl for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Request(Arc::new(cost)))
    }

    /// What a function returns for the response's head, refusals by inner layers included. Charged before the response is given
    /// out, so that its headers show it. A request whose caller hangs up before the response is there costs nothing.
    pub fn by_response(cost: impl for<'r> Fn(ResponseHead<'r>) -> u64 + Send + Sync + 'static) -> Self {
        Self(Kind::Deferred(DeferredCost::Response(Arc::new(cost))))
    }

    /// What a function returns for the number of bytes in the response's body. Charged when the body has ended, or is dropped:
    /// then for the bytes that were sent. The response's own headers cannot show it, the next response's do.
    ///
    /// Bodies in flight are not counted yet. To bound how many a caller holds open at once, and for how long, use `tower`'s limits
    /// and a server's timeouts.
    pub fn by_body(cost: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        Self(Kind::Deferred(DeferredCost::Body(Arc::new(cost))))
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
            Kind::Deferred(DeferredCost::Body(_)) => f.write_str("Cost(by body)"),
            Kind::Deferred(_) => f.write_str("Cost(by response)"),
        }
    }
}
