//! Subjects: what a policy counts by.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::{request::RequestHead, verify::Principal};

use crate::{ClientAddress, RequestContext};

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
pub struct CustomSubject(Arc<Namer>);

/// The subject of all requests whose address is not known.
const UNKNOWN_ADDRESS: &str = "unknown";

type Namer = dyn for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> Option<Cow<'r, str>> + Send + Sync;

impl Subject {
    /// A subject of your own, read from the request's head and its principal, if there is one. `None`: the policy does not apply to
    /// this request. Each caller that is counted under it sees in rate-limit headers what remains, even before authentication.
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

    /// Whether it is the principal's key or tenant. An anonymous request has neither.
    #[inline]
    pub(crate) fn is_of_principal(&self) -> bool {
        matches!(self, Self::Key | Self::Tenant)
    }

    /// The name of a request's subject, for a limit of `layer`; `None` if the limit does not apply to the request.
    #[inline]
    pub(crate) fn name<'r>(
        &self,
        head: RequestHead<'r>,
        context: &'r RequestContext,
        layer: &'static str,
    ) -> Option<Cow<'r, str>> {
        let principal = context.principal().map(Arc::as_ref);
        match self {
            Self::Key | Self::Tenant => self.name_of(principal?),
            Self::Address(address) => Some(match address.subject(head, layer) {
                Some(address) => Cow::Owned(address),
                None => Cow::Borrowed(UNKNOWN_ADDRESS),
            }),
            Self::Custom(CustomSubject(name)) => name(head, principal),
        }
    }

    /// The name of a principal's subject; `None` if it depends on the request.
    #[inline]
    pub(super) fn name_of<'r>(&self, principal: &'r Principal) -> Option<Cow<'r, str>> {
        match (self, principal.tenant()) {
            (Self::Key, _) => Some(Cow::Borrowed(principal.id())),
            (Self::Tenant, Some(tenant)) if !tenant.starts_with('\0') => Some(Cow::Borrowed(tenant)),
            // A key without a tenant counts alone. Of two subjects that begin with NUL, the next letter says which kind it is.
            (Self::Tenant, Some(tenant)) => Some(Cow::Owned(format!("\0t{tenant}"))),
            (Self::Tenant, None) => Some(Cow::Owned(format!("\0k{}", principal.id()))),
            (Self::Address(_) | Self::Custom(_), _) => None,
        }
    }

    /// The group of the subject with this name.
    #[inline]
    pub(crate) fn group<'c>(&self, name: &'c str, context: &'c RequestContext) -> &'c str {
        match self {
            // A tenant's counter and those of its keys are decided together.
            Self::Key | Self::Tenant => {
                context.principal().and_then(|principal| principal.tenant()).unwrap_or(name)
            }
            // Tenants may share another subject, which has one counter all the same.
            Self::Address(_) | Self::Custom(_) => name,
        }
    }
}

impl fmt::Debug for CustomSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomSubject(..)")
    }
}
