//! Who a caller is: credentials, the backend trait that verifies them, and principals with their plans.

mod credential;
mod entitlements;
mod principal;
mod refusal_text;
mod verify_fn;

use std::{sync::Arc, time::SystemTime};

use crate::{answer::Answer, denial::Denial, request::RequestHead};

pub use credential::{Credential, CredentialSource};
pub use entitlements::{
    Entitlements, EntitlementsFn, EntitlementsSyncFn, entitlements_fn, entitlements_sync_fn,
};
pub use principal::{Plan, Principal};
pub use refusal_text::RefusalText;
pub use verify_fn::{VerifyFn, VerifySyncFn, verify_fn, verify_sync_fn};

/// Finds the principal that a credential belongs to. [`verify_fn`] makes one from a closure.
///
/// Tollgate does not limit how long a request waits for its answer: give remote calls a deadline, or put a `CachedVerifier` in front.
///
/// A verifier need not check whether the principal has ended or expired: the engine does, after the answer is ready.
pub trait Verify: Send + Sync + 'static {
    /// The principal, or why there is none: usually [`DenialKind::KeyUnknown`](crate::denial::DenialKind::KeyUnknown), or
    /// [`Denial::unavailable`] if a backend does not answer.
    ///
    /// # Errors
    /// The denial that the request is refused with.
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>>;

    /// The words in which refusals of this credential with 401 are written. They hold for every layer that refuses it, so that a key
    /// that has expired is refused in the same words as an unknown one. Default: `None`, which are the words of the denial's kind.
    ///
    /// A verifier that asks another one returns that one's words.
    fn refusal_text(&self, credential: &Credential) -> Option<Arc<RefusalText>> {
        let _ = credential;
        None
    }
}

impl<V: Verify + ?Sized> Verify for Arc<V> {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        (**self).verify(request)
    }

    fn refusal_text(&self, credential: &Credential) -> Option<Arc<RefusalText>> {
        (**self).refusal_text(credential)
    }
}

/// A credential to verify, and the request that it came with. An [`Answer::Later`] clones what it needs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VerifyRequest<'r> {
    /// The credential.
    pub credential: &'r Credential,
    /// The head of the request, for credentials that are bound to it. The credential's own header may have been removed.
    pub head: RequestHead<'r>,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> VerifyRequest<'r> {
    /// A credential, the head of its request, and the request's instant.
    pub fn new(credential: &'r Credential, head: RequestHead<'r>, now: SystemTime) -> Self {
        Self { credential, head, now }
    }
}
