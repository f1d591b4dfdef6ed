//! The port that proves credentials.

use std::{sync::Arc, time::SystemTime};

use crate::{Answer, Credential, Denial, Principal};

/// Proves who a credential belongs to.
///
/// The principal's end and expiry are checked by whoever asked, after the answer is there; a verifier need not.
pub trait Verify: Send + Sync + 'static {
    /// The principal, or why there is none: [`DenialKind::KeyUnknown`](crate::DenialKind::KeyUnknown) and its
    /// neighbours, or [`Denial::unavailable`] if it cannot be told. `now` is the request's instant.
    ///
    /// # Errors
    /// The denial that the caller is refused with.
    fn verify(&self, credential: &Credential, now: SystemTime) -> Answer<Result<Arc<Principal>, Denial>>;
}

impl<V: Verify + ?Sized> Verify for Arc<V> {
    fn verify(&self, credential: &Credential, now: SystemTime) -> Answer<Result<Arc<Principal>, Denial>> {
        (**self).verify(credential, now)
    }
}
