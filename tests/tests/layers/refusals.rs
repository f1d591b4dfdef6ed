//! The responses to refused requests: status, headers and body, and the secrets that neither they nor the log may contain.

mod headers;
mod responders;
mod secrecy;

use std::sync::Arc;

use tests::suite::{Inner, Stack, erase};
use tollgate::{
    Answer, CredentialLayer, Denial, DenialKind, PerWindow as _, Principal, VerifyLayer,
    limit::{Charge, Counter, Decision, WindowCheck},
    respond::Respond,
    verify::{Verify, VerifyRequest},
};
use tower::ServiceBuilder;

/// Refuses every request with the same denial.
pub(crate) struct Refuse(pub(crate) Denial);

impl Verify for Refuse {
    fn verify(&self, _presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        Answer::Now(Err(self.0.clone()))
    }
}

/// A stack that refuses every request with `denial`, answered by `responder`.
fn refusing(denial: Denial, responder: Option<Arc<dyn Respond>>) -> Stack {
    let credential = match responder {
        Some(responder) => CredentialLayer::new().with_responder(responder),
        None => CredentialLayer::new(),
    };
    let builder = ServiceBuilder::new().layer(credential).layer(VerifyLayer::new(Refuse(denial)));
    erase(builder.service(Inner::new()))
}

/// One denial of every kind.
fn every_denial() -> Vec<Denial> {
    use DenialKind::*;
    let kinds = [
        CredentialMissing,
        CredentialEmpty,
        CredentialMalformed,
        CredentialRepeated,
        CredentialConflicting,
        KeyUnknown,
        KeyRevoked,
        KeyExpired,
        WrongEnvironment,
        NetworkNotAllowed,
        TenantSuspended,
        EntitlementInactive,
        TierTooLow,
        RouteUnlisted,
        CreditsExhausted,
        Forbidden,
        Unavailable,
        Misconfigured,
    ];
    let limited = Denial::rate_limited(used_up());
    kinds
        .into_iter()
        .map(Denial::new)
        .chain([Denial::scope_missing("jobs:read jobs:list"), limited])
        .collect()
}

/// A used-up limit of 60 requests per minute, 20.5 seconds before its reset.
fn used_up() -> Decision {
    let now = tests::suite::at(39) + std::time::Duration::from_millis(500);
    let quota = 60.per_minute();
    let limit = quota.limits().first().unwrap();
    let counter = Counter::new(limit.algorithm).at(limit, now).counting(limit, 60);
    Decision::evaluate(
        now,
        [WindowCheck::new(&Charge::new("key", "ada", "ada", &quota), limit, counter, now)],
    )
}
