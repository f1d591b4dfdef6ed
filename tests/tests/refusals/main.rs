//! One refusal, many faces: what callers see of it, what the log says, and what neither of them may tell.
#![expect(clippy::unwrap_used, reason = "whatever goes wrong in a test fails it")]

mod headers;
mod memory_keys;
mod request_id;
mod responders;
mod secrecy;

use std::sync::Arc;

use tests::suite::{Inner, Stack, erase};
use tollgate::{
    Answer, CredentialLayer, Decision, Denial, DenialKind, Presented, Principal, Respond, Verify,
    VerifyLayer, Window, WindowState,
};
use tower::ServiceBuilder;

/// Refuses everybody for the same reason.
struct Refuse(Denial);

impl Verify for Refuse {
    fn verify(&self, _presented: &Presented<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        Answer::Now(Err(self.0.clone()))
    }
}

/// A stack that refuses everybody for this reason, in the words of this responder.
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

/// A minute of 60 requests that is used up, 20.5 seconds before its end.
fn used_up() -> Decision {
    let now = tests::suite::at(39) + std::time::Duration::from_millis(500);
    let second = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let counter = tollgate::Counter { ends_at: Window::MINUTE.end_after(second), used: 60 };
    Decision::weigh(now, 1, [WindowState::new("key", Window::MINUTE, 60, counter)])
}
