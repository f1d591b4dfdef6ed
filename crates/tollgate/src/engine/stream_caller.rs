//! Who has opened a stream, for what outlasts the request that opened it.

use std::{sync::Arc, time::SystemTime};

use http::Method;
use tollgate_core::{
    denial::Denial,
    request::RequestHead,
    verify::{Principal, RefusalText},
};

use super::{
    RequestContext,
    context::denial_of,
    refusal::{Event, Logged},
    settings::RequestClock,
};
use crate::request_id::RequestId;

/// Who has opened a stream. It holds no credential, and nothing that the request gives back at its end.
pub(crate) struct StreamCaller {
    clock: RequestClock,
    principal: Option<Arc<Principal>>,
    // The words in which the refusal of an ended principal is written, if the verifier has its own.
    refusal_text: Option<Arc<RefusalText>>,
    request_id: Option<RequestId>,
    method: Method,
    path: Box<str>,
}

impl StreamCaller {
    pub(crate) fn new(head: RequestHead<'_>, context: &RequestContext) -> Self {
        Self {
            clock: context.clock(),
            principal: context.principal().cloned(),
            refusal_text: context.refusal_text.clone(),
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
        let Some(reason) = self.principal.as_ref().and_then(|principal| principal.ended(now)) else {
            return Ok(());
        };
        let denial = denial_of(reason);
        Err(match &self.refusal_text {
            Some(text) => text.apply(denial),
            None => denial,
        })
    }

    /// Logs a refusal like those of the layers.
    #[cold]
    pub(crate) fn log(&self, layer: &'static str, denial: &Denial, report_only: bool) {
        let status = denial.status();
        let event = Event { message: "refused", layer, denial, status, report_only };
        event.log_of(Logged {
            method: &self.method,
            path: &self.path,
            request_id: self.request_id.as_ref(),
            principal: self.principal.as_deref(),
        });
    }
}
