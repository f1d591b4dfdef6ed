//! Refuses a WebSocket by closing it immediately.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header::SEC_WEBSOCKET_PROTOCOL, request};
use hyper::upgrade::OnUpgrade;
use tokio::{runtime::Handle, sync::Semaphore};
use tollgate_core::{denial::Denial, respond::Respond};

use super::Problem;

mod close;
mod codes;
mod handshake;

use close::{CloseFrame, close};
pub use codes::CloseCodes;
use handshake::{Handshake, listed};

/// Accepts a refused WebSocket and closes it before any message, with a code that shows the reason.
///
/// Browsers do not show the response to a refused handshake to a page: it gets a close event with code 1006, for any error.
/// With this responder it gets one of these codes, with the denial's [`code`](Denial::code) as the reason:
///
/// | denial | close code |
/// |---|---|
/// | 401; 400 for a repeated or conflicting credential | 4401 |
/// | any other 4xx, such as 402, 403, 429 | 4000 + the status: 4402, 4403, 4429 |
/// | 503 | 1013, try again later |
/// | any other 5xx | 1011, internal error |
/// | anything else | 1008, policy violation |
///
/// Both forms of the handshake are supported: an HTTP/1.1 Upgrade (RFC 6455), answered with 101, and an HTTP/2 extended CONNECT
/// (RFC 8441), answered with 200. All other requests, and invalid handshakes, are refused by the responder given to
/// [`otherwise`](Self::otherwise).
///
/// ```
/// use tollgate::{CredentialLayer, respond::WebSocketClose, verify::CredentialSource};
///
/// // In the browser: `new WebSocket(url, ["chat", "key." + key])`
/// let layer = CredentialLayer::from_sources([CredentialSource::WebSocketProtocol("key.")])?
///     .with_responder(WebSocketClose::new().with_subprotocols(["chat"]));
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
///
/// With your own codes, a JSON format for all other requests, and a shorter deadline:
///
/// ```
/// use std::time::Duration;
///
/// use tollgate::respond::{Json, WebSocketClose};
///
/// let responder = WebSocketClose::otherwise(Json::new(|denial| serde_json::json!({ "error": denial.code() })))
///     .with_codes(|denial| match denial.status().as_u16() {
///         401 | 403 => (4001, "unauthorized".into()),
///         _ => (1013, "later".into()),
///     })
///     .with_deadline(Duration::from_secs(1));
/// ```
///
/// # Subprotocols
///
/// If a browser has offered subprotocols, it fails the handshake with code 1006 unless one of them is selected. RFC 6455 does not
/// require this, but the [WHATWG standard](https://websockets.spec.whatwg.org/) does. List the subprotocols of your service
/// with [`with_subprotocols`](Self::with_subprotocols). If browsers send their key as a subprotocol, let them offer another
/// one as well. A subprotocol that is not listed is never sent back, so a key is not.
///
/// # Where it works
///
/// On hyper servers that run on tokio with timers enabled (as `#[tokio::main]` does) and serve connections with
/// upgrades. Extended CONNECT must be enabled too (`enable_connect_protocol`). `axum::serve` does both. Without a
/// tokio runtime, or without an upgrade in the request's extensions, the other responder refuses the request.
///
/// # Security
///
/// An accepted handshake occupies a connection until the caller answers the close. A
/// [deadline](Self::with_deadline) limits its duration, and a [maximum](Self::with_max_open) limits the number. Each takes about
/// 1 KiB in addition to the server's memory for a connection; data from the caller is skipped. The number of attempts
/// is not limited here: limit failed attempts by address.
#[derive(Clone)]
pub struct WebSocketClose {
    codes: CloseCodes,
    subprotocols: Arc<[Box<str>]>,
    deadline: Duration,
    places: Arc<Semaphore>,
    otherwise: Arc<dyn Respond>,
}

impl WebSocketClose {
    /// Refuses requests that are not WebSocket handshakes with the default responder, a problem.
    pub fn new() -> Self {
        Self::otherwise(Problem::new())
    }

    /// Refuses requests that are not WebSocket handshakes with `responder`.
    pub fn otherwise(responder: impl Respond) -> Self {
        Self {
            codes: CloseCodes::default(),
            subprotocols: Arc::new([]),
            deadline: Duration::from_secs(5),
            places: Arc::new(Semaphore::new(1024)),
            otherwise: Arc::new(responder),
        }
    }

    /// Sets the code and the reason for each denial.
    ///
    /// The range 4000 to 4999 is for private use (RFC 6455 section 7.4.2). A code that must not be sent is replaced by 1008.
    /// A reason longer than 123 bytes is truncated.
    pub fn with_codes(
        mut self,
        code: impl Fn(&Denial) -> (u16, Cow<'static, str>) + Send + Sync + 'static,
    ) -> Self {
        self.codes = CloseCodes::new(code);
        self
    }

    /// Selects the first of the caller's offers that is listed here. Default: none.
    pub fn with_subprotocols<P: Into<Box<str>>>(mut self, names: impl IntoIterator<Item = P>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Drops the connection if the upgrade, the close and the caller's answer together take longer than this.
    /// Default: 5 seconds.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Limits the number of refused connections that are open at a time, for this responder and its clones together. The
    /// other responder refuses further requests. Default: 1024.
    pub fn with_max_open(mut self, connections: usize) -> Self {
        self.places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        self
    }

    /// The response to a handshake. Spawns a task that closes the connection. `None` if that is not possible.
    fn accept(&self, denial: &Denial, request: &mut request::Parts) -> Option<Response<Bytes>> {
        let mut response = Handshake::of(request)?.accept();
        if let Some(name) = self.subprotocol(&request.headers) {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
        }
        let runtime = Handle::try_current().ok()?;
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let upgrade = request.extensions.remove::<OnUpgrade>()?;
        let (code, reason) = self.codes.of(denial);
        let closed = close(upgrade, CloseFrame::new(code, &reason));
        let deadline = self.deadline;
        runtime.spawn(async move {
            // The result does not matter: the connection is dropped in any case.
            let _ = tokio::time::timeout(deadline, closed).await;
            drop(place);
        });
        Some(response)
    }

    fn subprotocol(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut offered = listed(headers, &SEC_WEBSOCKET_PROTOCOL);
        let name = offered.find(|offer| self.subprotocols.iter().any(|name| name.as_bytes() == *offer))?;
        HeaderValue::from_bytes(name).ok()
    }
}

impl Default for WebSocketClose {
    fn default() -> Self {
        Self::new()
    }
}

impl Respond for WebSocketClose {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        self.accept(denial, request).unwrap_or_else(|| self.otherwise.respond(denial, request))
    }
}

impl fmt::Debug for WebSocketClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketClose")
            .field("subprotocols", &self.subprotocols)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Whether a request is a valid handshake that opens a WebSocket: an HTTP/1.1 Upgrade (RFC 6455 section 4.2.1) or an HTTP/2
/// extended CONNECT (RFC 8441 section 5).
///
/// ```
/// use tollgate::respond::{ByRequest, Problem, WebSocketClose, is_websocket};
///
/// let responder = ByRequest::otherwise(Problem::new()).when(
///     |request| is_websocket(request) && request.uri.path() == "/chat",
///     WebSocketClose::new(),
/// );
/// ```
pub fn is_websocket(request: &request::Parts) -> bool {
    Handshake::of(request).is_some()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tollgate_core::denial::DenialKind;

    use super::*;

    #[test]
    fn selects_the_first_offer_that_is_listed() {
        let responder = WebSocketClose::new().with_subprotocols(["graphql", "chat", "not a token, nor\none"]);
        for (offers, selected) in [
            (vec!["key.sk_live_1, chat, graphql"], Some("chat")),
            (vec!["key.sk_live_1", "graphql"], Some("graphql")),
            (vec!["key.sk_live_1"], None),
            (vec!["Chat"], None),
            (vec![""], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for offer in &offers {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            let value = responder.subprotocol(&headers);
            assert_eq!(value.as_ref().map(HeaderValue::as_bytes), selected.map(str::as_bytes), "{offers:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"));
        assert_eq!(WebSocketClose::new().subprotocol(&headers), None, "none by default");
    }

    #[test]
    fn a_handshake_without_a_runtime_or_an_upgrade_is_refused_by_the_other_responder() {
        let denial = Denial::new(DenialKind::KeyUnknown);
        let mut request = handshake::tests::upgrade_request();
        assert_eq!(WebSocketClose::new().respond(&denial, &mut request).status(), 401, "no runtime");

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let mut request = handshake::tests::upgrade_request();
        assert_eq!(WebSocketClose::new().respond(&denial, &mut request).status(), 401, "no upgrade");
    }

    #[tokio::test]
    async fn the_other_responder_refuses_beyond_the_maximum() {
        let denial = Denial::new(DenialKind::KeyUnknown);
        let responder = WebSocketClose::new().with_max_open(1);
        let statuses = [(); 2].map(|()| {
            let mut request = handshake::tests::upgrade_request();
            let on_upgrade = hyper::upgrade::on(Request::new(()));
            request.extensions.insert(on_upgrade);
            responder.clone().respond(&denial, &mut request).status().as_u16()
        });
        assert_eq!(statuses, [101, 401]);

        // The upgrade fails because there is no connection. Then the place is free again.
        while responder.places.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
    }
}
