//! Who a caller is: credentials, the backend trait that verifies them, and principals with their plans.

mod credential;
mod entitlements;
mod principal;

use std::{sync::Arc, time::SystemTime};

use crate::{answer::Answer, denial::Denial, request::RequestHead};

pub use credential::{Credential, CredentialSource};
pub use entitlements::Entitlements;
pub use principal::{Plan, Principal};

/// Proves who a credential belongs to.
///
/// The principal's end and expiry are checked by whoever asked, after the answer is there; a verifier need not.
pub trait Verify: Send + Sync + 'static {
    /// The principal, or why there is none: [`DenialKind::KeyUnknown`](crate::denial::DenialKind::KeyUnknown) and its
    /// neighbours, or [`Denial::unavailable`] if it cannot be told.
    ///
    /// # Errors
    /// The denial that the caller is refused with.
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>>;
}

impl<V: Verify + ?Sized> Verify for Arc<V> {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        (**self).verify(presented)
    }
}

/// A credential as it was presented. An answer that comes later clones what it needs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VerifyRequest<'r> {
    /// The credential.
    pub credential: &'r Credential,
    /// The head of the request, for credentials that are bound to it. It may not hold the credential any more.
    pub head: RequestHead<'r>,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> VerifyRequest<'r> {
    /// A credential with the request that it came in, and that request's instant.
    pub fn new(credential: &'r Credential, head: RequestHead<'r>, now: SystemTime) -> Self {
        Self { credential, head, now }
    }
}
