//! The backend trait that knows what a tenant has bought.

use std::sync::Arc;

use crate::{
    answer::Answer,
    denial::Unavailable,
    verify::{Plan, Principal},
};

/// Knows which plan a principal is on at the moment, where the verifier does not.
pub trait Entitlements: Send + Sync + 'static {
    /// The principal's plan; `None` if it has none.
    ///
    /// # Errors
    /// [`Unavailable`] if it cannot be told.
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>>;
}

impl<E: Entitlements + ?Sized> Entitlements for Arc<E> {
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>> {
        (**self).plan(principal)
    }
}
