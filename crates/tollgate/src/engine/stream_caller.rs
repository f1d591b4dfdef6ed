//! Who has opened a stream, for what outlasts the request that opened it.

use std::time::SystemTime;

use http::Method;
use tollgate_core::{denial::Denial, request::RequestHead};

use super::{
    KnownCaller, RequestContext,
    refusal::{Event, Logged},
    settings::RequestClock,
};
use crate::request_id::RequestId;

/// Who has opened a stream. It holds no credential, and nothing that the request gives back at its end.
pub(crate) struct StreamCaller {
    clock: RequestClock,
    // Absent for an anonymous caller.
    known: Option<KnownCaller>,
    request_id: Option<RequestId>,
    method: Method,
    path: Box<str>,
}

impl StreamCaller {
    pub(crate) fn new(head: RequestHead<'_>, context: &RequestContext) -> Self {
        Self {
            clock: context.clock(),
            known: KnownCaller::of(context),
            request_id: context.request_id().cloned(),
            method: head.method.clone(),
            path: head.uri.path().into(),
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Refuses a principal that has ended or expired at `now`.
    pub(crate) fn check_not_ended(&self, now: SystemTime) -> Result<(), Denial> {
        self.known.as_ref().and_then(|known| known.end_at(now)).map_or(Ok(()), Err)
    }

    /// Logs a refusal like those of the layers.
    #[cold]
    pub(crate) fn log(&self, layer: &'static str, denial: &Denial, report_only: bool) {
        let status = denial.status();
        let event = Event { message: "refused", layer, denial, status, report_only };
        event.log_of(&Logged {
            method: &self.method,
            path: &self.path,
            request_id: self.request_id.as_ref(),
            principal: self.known.as_ref().map(KnownCaller::principal),
        });
    }
}
