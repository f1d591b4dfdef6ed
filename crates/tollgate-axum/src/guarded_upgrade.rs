//! A WebSocket that is closed when its caller's key ends: the extractor.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use axum::extract::ws::{
    DefaultOnFailedUpgrade, OnFailedUpgrade, WebSocketUpgrade, rejection::WebSocketUpgradeRejection,
};
use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, request::Parts};
use tollgate::{
    Denial, Ended, Principal, RequestContext, layers::ReportOnly, request::RequestId, respond::CloseCodes,
};

use crate::{
    GuardedSocket, Rejection,
    guarded_socket::{Closing, supervise},
};

/// Opens a WebSocket that is closed when the key of its caller is revoked or expires, or its tenant is suspended. In place of axum's
/// [`WebSocketUpgrade`]:
///
/// ```
/// use axum::{Router, response::Response, routing::any};
/// use tollgate_axum::{GuardedSocket, GuardedUpgrade};
///
/// async fn live(upgrade: GuardedUpgrade) -> Response {
///     upgrade.on_upgrade(serve)
/// }
///
/// async fn serve(mut socket: GuardedSocket) {
///     while let Some(Ok(message)) = socket.recv().await {
///         if socket.send(message).await.is_err() {
///             return;
///         }
///     }
/// }
///
/// let app: Router = Router::new().route("/live", any(live)); // .layer(tollgate)
/// ```
///
/// With axum's own settings, codes of your own, and a shorter deadline:
///
/// ```
/// use std::time::Duration;
///
/// use axum::response::Response;
/// use tollgate_axum::GuardedUpgrade;
///
/// async fn chat(upgrade: GuardedUpgrade) -> Response {
///     upgrade
///         .map(|upgrade| upgrade.protocols(["chat"]).max_message_size(64 * 1024))
///         .with_codes(|denial| (4001, denial.code().to_owned().into()))
///         .with_deadline(Duration::from_secs(1))
///         .on_upgrade(async |mut socket| {
///             let _ = socket.send("hello".into()).await;
///         })
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::any(chat));
/// ```
///
/// # How it is closed
///
/// | end of the caller | close code | reason |
/// |---|---|---|
/// | the key was revoked or has expired | 4401 | the denial's code: `invalid_credential` |
/// | the tenant was suspended | 4403 | the denial's code: `tenant_suspended` |
///
/// These are the codes of [`WebSocketClose`](crate::WebSocketClose). The socket is closed also if the handler neither reads nor writes, and
/// if its halves are in other tasks. What the handler has sent before is sent; then the close frame. The connection ends with the close of
/// the caller. A caller that does not answer it, or does not read at all, is dropped at the deadline.
///
/// From then on the handler reads `None`, and its sends are errors. It has until the deadline to finish, and is dropped then. Each
/// close is one event `stream ended` in the log, with the target and the fields of a refusal.
///
/// A handler that returns while other tasks hold the socket does not close it, as with axum. If it panics, the socket is dropped, and these
/// tasks read `None`. A handler that has dropped the socket, and works on, is not ended: there is nothing to close or to log. An anonymous
/// caller has no end.
///
/// An open socket takes at most 2.4 kB more memory than axum's own: no task of its own, and a timer only if the key expires.
///
/// The report-only mode of a stack does not hold for this extractor, which is no layer. While you try a stack out, give it the same count by
/// [`with_report_only`](Self::with_report_only).
///
/// | condition | status |
/// |---|---|
/// | the request is no handshake | as `WebSocketUpgrade` |
/// | no outer `VerifyLayer` | 500 |
///
/// Over HTTP/2, a WebSocket begins with CONNECT: route it with `any`. If a handler refuses with another extractor, put that extractor
/// *before* this one, which takes the upgrade.
#[must_use = "a WebSocket is opened by `on_upgrade`"]
pub struct GuardedUpgrade<F = DefaultOnFailedUpgrade> {
    upgrade: WebSocketUpgrade<F>,
    // `None` for an anonymous caller.
    caller: Option<CallerOf>,
    codes: CloseCodes,
    deadline: Duration,
}

/// The caller of a WebSocket, and what the log needs.
struct CallerOf {
    ended: Ended,
    principal: Arc<Principal>,
    request_id: Option<RequestId>,
    method: Method,
    path: Box<str>,
    report_only: Option<ReportOnly>,
}

/// Default: as long as [`WebSocketClose`](crate::WebSocketClose) waits.
const DEADLINE: Duration = Duration::from_secs(5);

impl<F> GuardedUpgrade<F> {
    /// Changes axum's own upgrade: its subprotocols, its bounds, what happens if it fails.
    pub fn map<G>(
        self,
        change: impl FnOnce(WebSocketUpgrade<F>) -> WebSocketUpgrade<G>,
    ) -> GuardedUpgrade<G> {
        let Self { upgrade, caller, codes, deadline } = self;
        GuardedUpgrade { upgrade: change(upgrade), caller, codes, deadline }
    }

    /// Sets the code and the reason for each end. Codes from 4000 to 4999 are for private use. A code that must not be sent is replaced by
    /// 1008, and a reason longer than 123 bytes is truncated.
    pub fn with_codes(
        mut self,
        code: impl Fn(&Denial) -> (u16, Cow<'static, str>) + Send + Sync + 'static,
    ) -> Self {
        self.codes = CloseCodes::new(code);
        self
    }

    /// Drops the connection, and the handler, if the close and the caller's answer take longer than this. Default: 5 seconds.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Closes nothing: logs and counts the end of the caller, and the socket goes on.
    ///
    /// ```
    /// use axum::{extract::State, response::Response};
    /// use tollgate::layers::ReportOnly;
    /// use tollgate_axum::GuardedUpgrade;
    ///
    /// // The state is the count that the stack has: Tollgate::builder().report_only(&report)
    /// async fn live(State(report): State<ReportOnly>, upgrade: GuardedUpgrade) -> Response {
    ///     upgrade.with_report_only(&report).on_upgrade(async |mut socket| while socket.recv().await.is_some() {})
    /// }
    /// # let _: axum::Router<ReportOnly> = axum::Router::new().route("/", axum::routing::any(live));
    /// ```
    pub fn with_report_only(mut self, report: &ReportOnly) -> Self {
        if let Some(caller) = &mut self.caller {
            caller.report_only = Some(report.clone());
        }
        self
    }

    /// Opens the WebSocket, and serves it by `serve` until that returns or the caller ends. Return the response from the handler.
    #[must_use = "the WebSocket is opened when this response is returned"]
    pub fn on_upgrade<C, Fut>(self, serve: C) -> Response
    where
        C: FnOnce(GuardedSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
        F: OnFailedUpgrade,
    {
        let Self { upgrade, caller, codes, deadline } = self;
        let ended = ended(caller, codes, deadline);
        upgrade.on_upgrade(move |socket| supervise(socket, serve, ended))
    }
}

/// Waits for the end of the caller. Gives how its socket is then closed. In report-only mode, the end is logged and counted, and the wait
/// goes on.
async fn ended(
    caller: Option<CallerOf>,
    codes: CloseCodes,
    deadline: Duration,
) -> impl FnOnce() -> Closing + Send {
    let Some(mut caller) = caller else { return std::future::pending().await };
    let denial = (&mut caller.ended).await;
    if let Some(report) = &caller.report_only {
        report.count();
        caller.log("refused", &denial, denial.status(), true);
        return std::future::pending().await;
    }
    move || caller.close(&denial, &codes, deadline)
}

impl CallerOf {
    /// The caller of a request; `None` if it is anonymous.
    fn of(head: &Parts) -> Result<Option<Self>, Denial> {
        let Some(context) = RequestContext::of(&head.extensions).filter(|context| context.is_identified())
        else {
            return Err(Denial::misconfigured(
                "the GuardedUpgrade extractor requires a VerifyLayer: \
                 put a CredentialLayer and a VerifyLayer, or a Tollgate, around the route",
            ));
        };
        let Some((principal, ended)) = context.principal().zip(Ended::of(&head.extensions)) else {
            return Ok(None);
        };
        Ok(Some(Self {
            ended,
            principal: Arc::clone(principal),
            request_id: context.request_id().cloned(),
            method: head.method.clone(),
            path: head.uri.path().into(),
            report_only: None,
        }))
    }

    /// How the socket of a caller that has ended is closed. Logs it.
    fn close(self, denial: &Denial, codes: &CloseCodes, deadline: Duration) -> Closing {
        // An HTTP/2 handshake is a CONNECT, which is answered with 200.
        let status =
            if self.method == Method::CONNECT { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
        self.log("stream ended", denial, status, false);
        let (code, reason) = codes.of(denial);
        Closing { code, reason: reason.into_owned(), deadline }
    }

    fn log(&self, message: &'static str, denial: &Denial, status: StatusCode, report_only: bool) {
        tracing::info!(
            target: "tollgate",
            layer = EXTRACTOR,
            reason = denial.kind().reason(),
            code = denial.code(),
            status = status.as_u16(),
            method = self.method.as_str(),
            path = &*self.path,
            detail = denial.log_detail(),
            request_id = self.request_id.as_ref().map(tracing::field::display),
            principal = self.principal.id(),
            tenant = self.principal.tenant(),
            report_only,
            "{message}"
        );
    }
}

const EXTRACTOR: &str = "GuardedUpgrade";

impl<S: Send + Sync> FromRequestParts<S> for GuardedUpgrade {
    type Rejection = GuardedUpgradeRejection;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, GuardedUpgradeRejection> {
        let caller = CallerOf::of(head)
            .map_err(|denial| GuardedUpgradeRejection::Unguarded(Rejection::new(EXTRACTOR, denial, head)))?;
        let upgrade = WebSocketUpgrade::from_request_parts(head, state).await;
        let upgrade = upgrade.map_err(GuardedUpgradeRejection::Upgrade)?;
        Ok(Self { upgrade, caller, codes: CloseCodes::default(), deadline: DEADLINE })
    }
}

impl<F> fmt::Debug for GuardedUpgrade<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedUpgrade")
            .field("principal", &self.caller.as_ref().map(|caller| caller.principal.id()))
            .field("codes", &self.codes)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Why a [`GuardedUpgrade`] opens no WebSocket.
#[derive(Debug)]
#[non_exhaustive]
pub enum GuardedUpgradeRejection {
    /// The request is no handshake that axum accepts.
    Upgrade(WebSocketUpgradeRejection),
    /// No layer has decided who the caller is: 500.
    Unguarded(Rejection),
}

impl IntoResponse for GuardedUpgradeRejection {
    fn into_response(self) -> Response {
        match self {
            Self::Upgrade(rejection) => rejection.into_response(),
            Self::Unguarded(rejection) => rejection.into_response(),
        }
    }
}

impl fmt::Display for GuardedUpgradeRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upgrade(rejection) => rejection.fmt(f),
            Self::Unguarded(rejection) => rejection.fmt(f),
        }
    }
}

impl Error for GuardedUpgradeRejection {}

#[cfg(test)]
mod tests {
    use axum::extract::ws::WebSocket;

    use super::*;
    use crate::guarded_socket::SHARED;

    #[test]
    fn a_guarded_socket_takes_no_more_memory_than_the_documentation_says() {
        fn of_task<E, F>(_: &impl FnOnce(WebSocket, E) -> F, _: &E) -> usize {
            size_of::<F>()
        }
        let ended = ended(None, CloseCodes::default(), DEADLINE);
        let guarded = |socket, ended| {
            supervise(socket, async |mut socket: GuardedSocket| while socket.recv().await.is_some() {}, ended)
        };
        let echo = async |mut socket: WebSocket| while socket.recv().await.is_some() {};
        let plain = |socket, ()| async move { echo(socket).await };
        let task = of_task(&guarded, &ended) - of_task(&plain, &());
        // After its first poll, and with a timer.
        let waiting = 192 + 112;
        let sum = task + SHARED + waiting;
        assert!(sum <= 2_400, "{task} + {SHARED} + {waiting}");
    }
}
