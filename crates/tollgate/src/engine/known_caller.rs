//! The principal of a request and its end, for what outlasts the request.

use std::{sync::Arc, time::SystemTime};

use tollgate_core::{
    denial::{Denial, DenialKind},
    store::EndReason,
    verify::{Principal, RefusalText},
};

use super::{RequestContext, settings::RequestClock};

/// The principal of a request, and by what its end is known.
#[derive(Clone)]
pub(crate) struct KnownCaller {
    principal: Arc<Principal>,
    clock: RequestClock,
    // The words of the verifier, if it has its own.
    refusal_text: Option<Arc<RefusalText>>,
}

impl KnownCaller {
    /// `None` if no layer has authenticated the caller.
    pub(crate) fn of(context: &RequestContext) -> Option<Self> {
        Some(Self {
            principal: Arc::clone(context.principal()?),
            clock: context.clock(),
            refusal_text: context.refusal_text.clone(),
        })
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// What refuses the principal if it has ended or expired at `now`.
    pub(crate) fn end_at(&self, now: SystemTime) -> Option<Denial> {
        self.principal.ended(now).map(|reason| self.denial(reason))
    }

    /// What refuses the principal if it has ended by now. The clock is read only for a principal that expires.
    #[inline]
    pub(crate) fn end(&self) -> Option<Denial> {
        let reason = match self.principal.expires_at() {
            None => self.principal.end_signal().reason(),
            Some(_) => self.principal.ended(self.now()),
        };
        reason.map(|reason| self.denial(reason))
    }

    #[cold]
    fn denial(&self, reason: EndReason) -> Denial {
        in_words(self.refusal_text.as_deref(), denial_of(reason))
    }
}

/// The denial of a principal that has ended.
#[cold]
pub(super) fn denial_of(reason: EndReason) -> Denial {
    Denial::new(match reason {
        EndReason::Expired => DenialKind::KeyExpired,
        EndReason::TenantSuspended => DenialKind::TenantSuspended,
        _ => DenialKind::KeyRevoked,
    })
}

/// A denial in the words of the verifier, if it has its own and the denial refuses the credential.
pub(super) fn in_words(text: Option<&RefusalText>, denial: Denial) -> Denial {
    match text {
        Some(text) => text.apply(denial),
        None => denial,
    }
}
