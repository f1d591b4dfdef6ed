//! The port that proves credentials.

use std::{sync::Arc, time::SystemTime};

use crate::{Answer, Credential, Denial, Head, Principal};

/// Proves who a credential belongs to.
///
/// The principal's end and expiry are checked by whoever asked, after the answer is there; a verifier need not.
pub trait Verify: Send + Sync + 'static {
    /// The principal, or why there is none: [`DenialKind::KeyUnknown`](crate::DenialKind::KeyUnknown) and its
    /// neighbours, or [`Denial::unavailable`] if it cannot be told.
    ///
    /// # Errors
    /// The denial that the caller is refused with.
    fn verify(&self, presented: &Presented<'_>) -> Answer<Result<Arc<Principal>, Denial>>;
}

impl<V: Verify + ?Sized> Verify for Arc<V> {
    fn verify(&self, presented: &Presented<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        (**self).verify(presented)
    }
}

/// A credential as it was presented. An answer that comes later clones what it needs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Presented<'r> {
    /// The credential.
    pub credential: &'r Credential,
    /// The head of the request, for credentials that are bound to it. It may not hold the credential any more.
    pub head: Head<'r>,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> Presented<'r> {
    /// A credential with the request that it came in, and that request's instant.
    pub fn new(credential: &'r Credential, head: Head<'r>, now: SystemTime) -> Self {
        Self { credential, head, now }
    }
}
