//! Subjects: what a policy counts by.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::{request::RequestHead, verify::Principal};

use crate::ClientAddress;

/// What a policy counts by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Subject {
    /// The principal's key (or subject).
    Key,
    /// The principal's tenant: all its keys share the counter.
    Tenant,
    /// The client's address. Requests whose address is not known share one counter, and the log says what to do. No header shows
    /// where the limit of an address stands; a refusal has `Retry-After`.
    Address(ClientAddress),
    /// A text that a function reads from the request: see [`Subject::custom`].
    Custom(CustomSubject),
}

/// A function that names a subject: see [`Subject::custom`].
#[derive(Clone)]
pub struct CustomSubject(pub(super) Arc<Namer>);

type Namer = dyn for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> Option<Cow<'r, str>> + Send + Sync;

impl Subject {
    /// A subject of your own, read from the request's head and its principal, if there is one. `None`: the policy does not
    /// apply to this request.
    ///
    /// A subject that callers can choose, such as the value of a header, limits nothing: callers invent a new one.
    ///
    /// ```
    /// use tollgate::{PerWindow, Policy, limit::Subject};
    ///
    /// let exports = Policy::new("exports", 5.per_hour()).with_subject(Subject::custom(|head, principal| {
    ///     let is_export = head.uri.path().ends_with("/export");
    ///     principal.filter(|_| is_export).map(|principal| principal.id().into())
    /// }));
    /// ```
    pub fn custom(
        name: impl for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> Option<Cow<'r, str>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::Custom(CustomSubject(Arc::new(name)))
    }
}

impl fmt::Debug for CustomSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomSubject(..)")
    }
}
