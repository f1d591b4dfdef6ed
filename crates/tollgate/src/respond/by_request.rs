//! Chooses a responder by the request.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Response, request};
use tollgate_core::{denial::Denial, respond::Respond};

/// Uses the first responder whose condition matches the request. Otherwise uses the default responder.
///
/// A handler that refuses by `RequestExt::refuse` of `tollgate-tonic` has no path, because tonic does not give it one: a condition sees `/`
/// there. The other fields are those of a gRPC request, so that a condition by [`GrpcKind`](super::GrpcKind) matches.
///
/// ```
/// use tollgate::respond::{ByRequest, Json, Problem};
///
/// let responder = ByRequest::otherwise(Problem::new()).when(
///     |request| request.uri.path().starts_with("/v1/"),
///     Json::new(|denial| serde_json::json!({ "error": denial.code() })),
/// );
/// ```
#[derive(Clone)]
pub struct ByRequest {
    cases: Vec<(Condition, Arc<dyn Respond>)>,
    otherwise: Arc<dyn Respond>,
}

type Condition = Arc<dyn Fn(&request::Parts) -> bool + Send + Sync>;

impl ByRequest {
    /// Sets the default responder, for requests that match no condition.
    pub fn otherwise(responder: impl Respond) -> Self {
        Self { cases: Vec::new(), otherwise: Arc::new(responder) }
    }

    /// Adds `responder` for requests that match `condition` and no earlier condition.
    pub fn when(
        mut self,
        condition: impl Fn(&request::Parts) -> bool + Send + Sync + 'static,
        responder: impl Respond,
    ) -> Self {
        self.cases.push((Arc::new(condition), Arc::new(responder)));
        self
    }
}

impl Respond for ByRequest {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        let case = self.cases.iter().find(|(condition, _)| condition(request));
        case.map_or(&self.otherwise, |(_, responder)| responder).respond(denial, request)
    }
}

impl fmt::Debug for ByRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByRequest").field("cases", &self.cases.len()).finish_non_exhaustive()
    }
}
