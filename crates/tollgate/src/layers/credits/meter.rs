//! By what a handler reports what its request has cost.

use std::sync::{Arc, Mutex};

use tollgate_core::credits::{ReservationId, Settlement};

use crate::memory::lock;

/// Reports to a [`CreditsLayer`](crate::CreditsLayer) what a request has cost. Handlers find it with
/// [`RequestContext::credits`](crate::RequestContext::credits), or by the extractor `Credits` of `tollgate-axum`.
///
/// Without a report, a request that succeeds costs its estimate. Reports count until the body of the response has ended or was dropped:
/// give a clone to the stream that is the body. A handler whose work is done before the body begins reports before it returns; then the
/// cost is charged also if the caller hangs up.
///
/// ```
/// use tollgate::RequestContext;
///
/// fn handle(request: http::Request<()>) -> String {
///     let rows = ["one", "two"];
///     if let Some(credits) = RequestContext::of(request.extensions()).and_then(RequestContext::credits) {
///         credits.set(rows.len() as u64);
///     }
///     rows.concat()
/// }
/// # assert_eq!(handle(http::Request::new(())), "onetwo");
/// ```
///
/// Clones report about the same request. So does the meter of a [copied](crate::RequestContext::copy) context.
#[derive(Clone, Debug)]
pub struct CreditMeter(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Uncharged,
    Reserved(Arc<Estimated>),
    Repeated(Arc<Settlement>),
}

#[derive(Debug)]
struct Estimated {
    id: ReservationId,
    reserved: u64,
    reported: Mutex<Option<u64>>,
}

impl CreditMeter {
    /// For a request that is free, or that a layer in report-only mode would have refused.
    pub(super) const UNCHARGED: Self = Self(Kind::Uncharged);

    pub(super) fn new(id: ReservationId, reserved: u64) -> Self {
        Self(Kind::Reserved(Arc::new(Estimated { id, reserved, reported: Mutex::default() })))
    }

    pub(super) fn repeated(settlement: Settlement) -> Self {
        Self(Kind::Repeated(Arc::new(settlement)))
    }

    /// How many credits are reserved for the request: its estimate. 0 if it is not charged.
    pub fn reserved(&self) -> u64 {
        self.estimated().map_or(0, |estimated| estimated.reserved)
    }

    /// The reservation. `None` if the request is not charged.
    pub fn reservation(&self) -> Option<ReservationId> {
        self.estimated().map(|estimated| estimated.id)
    }

    /// Adds to the actual cost, which begins at 0: for each token, row or page. The first report replaces the estimate. If the request is
    /// not charged, nothing happens.
    pub fn add(&self, credits: u64) {
        self.report(|reported| reported.unwrap_or(0).saturating_add(credits));
    }

    /// Sets the actual cost: all that was reported before is replaced. If the request is not charged, nothing happens.
    pub fn set(&self, total: u64) {
        self.report(|_| total);
    }

    /// The actual cost that was reported so far. `None` without a report.
    pub fn reported(&self) -> Option<u64> {
        *lock(&self.estimated()?.reported)
    }

    /// Whether a request with the same `Idempotency-Key` was charged before. This one is not charged: answer it with the stored response
    /// of the earlier one, and do not repeat the work.
    pub fn is_repeated(&self) -> bool {
        self.settlement().is_some()
    }

    /// How the earlier request with the same `Idempotency-Key` was settled; `None` if this is the first one.
    pub fn settlement(&self) -> Option<Settlement> {
        match &self.0 {
            Kind::Repeated(settlement) => Some(**settlement),
            Kind::Uncharged | Kind::Reserved(_) => None,
        }
    }

    fn estimated(&self) -> Option<&Estimated> {
        match &self.0 {
            Kind::Reserved(estimated) => Some(estimated),
            Kind::Uncharged | Kind::Repeated(_) => None,
        }
    }

    fn report(&self, total: impl FnOnce(Option<u64>) -> u64) {
        if let Some(estimated) = self.estimated() {
            let mut reported = lock(&estimated.reported);
            *reported = Some(total(*reported));
        }
    }
}
