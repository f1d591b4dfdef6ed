//! A gate: one decision about a request.

use std::{fmt, sync::Arc};

use http::{request, response};
use tollgate_core::{Answer, Credential, Decision, Denial, Plan, Principal};

use super::Passage;
use crate::{ConfigurationError, RequestId};

/// One decision about a request: two moments before the inner service, one after it.
///
/// A gate keeps nothing about a request: what it learns the engine writes into the [`Passage`], and whatever comes later,
/// this gate's own judgement included, reads it there.
pub(crate) trait Gate: fmt::Debug + Send + Sync + 'static {
    /// The name of its layer, for logs and errors.
    fn layer(&self) -> &'static str;

    /// Why the gate cannot work as it was built: an error at start-up in a built stack, a 500 at every request in a layer that
    /// stands alone.
    fn flaw(&self) -> Option<ConfigurationError> {
        None
    }

    /// Whether this gate finds out who is calling. Refused by one, a request in report-only mode goes on as nobody.
    fn identifies(&self) -> bool {
        false
    }

    /// Finds out what there is to know. This is the only moment that may take a wait.
    fn ask(&self, head: &mut request::Parts, passage: &Passage) -> Answer<Result<Learned, Denial>>;

    /// Judges the request by what the passage now holds. After a wait the passage's instant is a new one.
    fn judge(&self, _head: &request::Parts, _passage: &Passage) -> Result<(), Denial> {
        Ok(())
    }

    /// The span in which the inner service shall run.
    fn span(&self, _passage: &Passage) -> Option<tracing::Span> {
        None
    }

    /// Completes the response, whether it came from inside or is a refusal of this gate or of a later one.
    fn finish(&self, _passage: &Passage, _response: &mut response::Parts) {}
}

/// What a gate found out.
pub(crate) enum Learned {
    /// There was nothing to find out.
    Nothing,
    /// The request's identifier.
    RequestId(RequestId),
    /// The caller presented a credential.
    Credential(Credential),
    /// The caller presented none, and need not.
    Anonymous,
    /// The request is a CORS preflight, which cannot carry a credential.
    Preflight,
    /// The credential proved who the caller is.
    Principal(Arc<Principal>),
    /// What the caller has bought.
    Plan(Option<Arc<Plan>>),
    /// Where the caller's limits stand.
    Decision(Decision),
}
