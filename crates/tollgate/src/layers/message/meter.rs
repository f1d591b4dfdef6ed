//! By what a handler charges the messages of a stream.

use std::{fmt, sync::Arc, time::SystemTime};

use tollgate_core::{answer::Answer, denial::Denial};

use super::LAYER;
use crate::{
    engine::{ReportOnly, StreamCaller},
    layers::{credits::MessageCredits, rate_limit::MessageLimits},
};

/// Charges the messages of a stream to the limits and the credits of a [`MessageLayer`](crate::MessageLayer). Handlers find it with
/// [`RequestContext::messages`](crate::RequestContext::messages), or by the extractor `Messages` of `tollgate-axum`, and keep it as long as
/// the stream is open.
///
/// ```
/// use tokio::sync::mpsc::{Receiver, Sender};
/// use tollgate::{Denial, request::MessageMeter};
///
/// /// Answers each message, and ends the stream at the first one that is refused.
/// async fn chat(meter: MessageMeter, mut messages: Receiver<String>, answers: Sender<Result<String, Denial>>) {
///     while let Some(message) = messages.recv().await {
///         let answer = meter.charge(1).await.map(|()| format!("You said: {message}"));
///         let is_refused = answer.is_err();
///         if answers.send(answer).await.is_err() || is_refused {
///             break;
///         }
///     }
/// }
/// ```
///
/// Clones charge the same stream. So does the meter of a [copied](crate::RequestContext::copy) context.
#[derive(Clone)]
pub struct MessageMeter(Arc<Charges>);

/// What each message of a stream is charged to.
pub(super) struct Charges {
    pub(super) caller: StreamCaller,
    pub(super) limits: Option<Part<MessageLimits>>,
    pub(super) credits: Option<Part<MessageCredits>>,
    // Where a principal that has ended is reported, if it is not refused.
    pub(super) ended_report: Option<ReportOnly>,
}

/// The limits, or the credits, and where their refusals are reported in report-only mode.
#[derive(Clone, Debug)]
pub(super) struct Part<T> {
    pub(super) of: T,
    report_only: Option<ReportOnly>,
}

impl<T> Part<T> {
    pub(super) fn new(of: T, report_only: Option<ReportOnly>) -> Self {
        Self { of, report_only }
    }

    /// The same part of one stream. Its own report-only mode comes before that of the whole layer.
    pub(super) fn with<U>(&self, of: U, report_only: Option<&ReportOnly>) -> Part<U> {
        Part { of, report_only: self.report_only.as_ref().or(report_only).cloned() }
    }
}

impl MessageMeter {
    pub(super) fn new(charges: Charges) -> Self {
        Self(Arc::new(charges))
    }

    /// Charges so many messages: all limits in one step, then the credits. Nothing happens before the future is polled. The future may
    /// outlive the meter. A charge of 0 only finds out whether the caller's key still holds.
    ///
    /// In report-only mode of the layer, what would be refused is logged and counted, and the result is `Ok`.
    ///
    /// # Errors
    /// The messages are refused, for one of the reasons in the [table](crate::layers::message#what-is-refused). The limits do not count
    /// them, except where the credits refuse, or the key ends while the charge waits for a backend. More messages at once than a limit
    /// admits are refused without a time to wait.
    pub fn charge(&self, count: u64) -> impl Future<Output = Result<(), Denial>> + Send + use<> {
        let charges = Arc::clone(&self.0);
        async move { charges.charge(count).await }
    }
}

impl Charges {
    async fn charge(&self, count: u64) -> Result<(), Denial> {
        let mut attempt =
            Attempt { caller: &self.caller, ended_report: self.ended_report.as_ref(), is_reported: false };
        let now = attempt.instant()?;
        if count == 0 {
            return Ok(());
        }
        if let Some(Part { of: limits, report_only }) = &self.limits {
            let decided = match attempt.answered(limits.acquire(count, now)).await? {
                Ok(decision) if decision.is_allowed() => Ok(()),
                Ok(decision) => Err(Denial::rate_limited(decision)),
                Err(unavailable) => Err(unavailable.into()),
            };
            decided.or_else(|denial| attempt.refuse(denial, report_only.as_ref()))?;
        }
        if let Some(Part { of: credits, report_only }) = &self.credits {
            let now = attempt.instant()?;
            match attempt.answered(credits.reserve(count, now)).await? {
                Ok(reservation) => {
                    // From here on the charge is made, also if its caller no longer waits.
                    if let Some(first_try) = reservation.charge() {
                        first_try.await;
                    }
                }
                Err(denial) => attempt.refuse(denial, report_only.as_ref())?,
            }
        }
        Ok(())
    }
}

/// One charge, as it goes on.
struct Attempt<'c> {
    caller: &'c StreamCaller,
    ended_report: Option<&'c ReportOnly>,
    // Whether its refusal was reported. What is refused in several ways is reported once.
    is_reported: bool,
}

impl Attempt<'_> {
    /// The present instant, at which the principal has not ended.
    fn instant(&mut self) -> Result<SystemTime, Denial> {
        let now = self.caller.now();
        match self.caller.check_not_ended(now) {
            Ok(()) => {}
            Err(denial) => self.refuse(denial, self.ended_report)?,
        }
        Ok(now)
    }

    /// A backend's answer. After a wait, a principal that has ended meanwhile is refused whatever the backend says.
    async fn answered<T>(&mut self, answer: Answer<T>) -> Result<T, Denial> {
        match answer {
            Answer::Now(value) => Ok(value),
            Answer::Later(pending) => {
                let value = pending.await;
                self.instant().map(|_| value)
            }
        }
    }

    /// Refuses the messages, or reports that they would be refused.
    #[cold]
    fn refuse(&mut self, denial: Denial, report_only: Option<&ReportOnly>) -> Result<(), Denial> {
        let Some(report) = report_only else {
            self.caller.log(LAYER, &denial, false);
            return Err(denial);
        };
        if !self.is_reported {
            self.is_reported = true;
            report.count();
            self.caller.log(LAYER, &denial, true);
        }
        Ok(())
    }
}

impl fmt::Debug for MessageMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageMeter")
            .field("has_limits", &self.0.limits.is_some())
            .field("has_credits", &self.0.credits.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_takes_no_more_memory_than_the_documentation_says() {
        // Its texts, such as the path and the account, come on top.
        let of_policy = MessageLimits::SIZE_FOR_EACH_POLICY;
        assert_eq!((size_of::<Charges>() <= 240, of_policy <= 310), (true, true), "{of_policy}");
    }
}
