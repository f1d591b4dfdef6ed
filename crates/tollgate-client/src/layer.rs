//! The layer, and its settings.

use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue, Request, Uri, header::AUTHORIZATION};
use http_body::Body;
use tollgate_core::clock::{Clock, SystemClock};
use tower_layer::Layer;
use zeroize::Zeroizing;

use crate::{
    Client, ClientKey, ConfigurationError, Origin, Retries, client_key::sensitive, request_id::new_request_id,
};

/// Adds a key and a request ID to the requests of a client. With [`Retries`], it also waits as the server says.
///
/// | request | key | request ID | sent again |
/// |---|---|---|---|
/// | to the origin | added, unless the request has the header | added, unless the request has one | if [enabled](Self::with_retries) |
/// | to another scheme, host or port, or with another `Host` | not added | not added | never |
/// | without scheme and authority | with [`for_channel`](Self::for_channel), as to the origin; otherwise not added, and the log has a `WARN` | | |
///
/// A request to another origin passes unchanged: that is not an error, and the log has a `DEBUG` event. A layer *outside* that follows
/// redirects therefore reaches other origins without the key. A client that follows redirects is *inside*, and has the key: turn its
/// redirects off. reqwest, for example, removes `authorization` when a redirect leaves the origin, but not `x-api-key`.
///
/// For several origins, use one layer for each.
///
/// ```
/// use hyper_util::{client::legacy, rt::TokioExecutor};
/// use tollgate_client::ClientLayer;
/// use tower::ServiceBuilder;
/// # use http_body_util::Full;
/// # use bytes::Bytes;
///
/// let hyper = legacy::Client::builder(TokioExecutor::new()).build_http(); // in production: a connector with TLS
/// # let hyper: legacy::Client<_, Full<Bytes>> = hyper;
/// let client = ServiceBuilder::new()
///     .layer(ClientLayer::new("sk_live_a1B2c3D4", "https://api.example.com")?)
///     .service(hyper);
/// # drop(client);
/// # Ok::<(), tollgate_client::ConfigurationError>(())
/// ```
///
/// With another header for the key and for the request ID, and with retries:
///
/// ```
/// use std::time::Duration;
///
/// use http::HeaderName;
/// use tollgate_client::{ClientLayer, Retries};
///
/// let layer = ClientLayer::new("sk_live_a1B2c3D4", "https://api.example.com")?
///     .with_header(HeaderName::from_static("x-api-key"))
///     .with_request_id_header(HeaderName::from_static("x-correlation-id"))
///     .with_retries(Retries::new(axum::body::Body::new).with_max_wait(Duration::from_secs(10)));
/// # drop(layer);
/// # Ok::<(), tollgate_client::ConfigurationError>(())
/// ```
///
/// # Security
///
/// The key is a sensitive header value: `Debug` of a request does not show it, and HPACK does not index it. All requests share its
/// memory, which is wiped when the layer, its services and their requests have been dropped. The buffers of connections are not wiped.
///
/// If a request has a `Host` header that does not name the origin, it gets no key: proxies may pass it to another host.
#[derive(Clone, Debug)]
pub struct ClientLayer<R = NoRetries> {
    settings: Arc<Settings>,
    retries: R,
}

/// A [`ClientLayer`] without [`Retries`]: each request is sent once.
#[derive(Clone, Copy, Debug)]
pub struct NoRetries;

impl ClientLayer {
    /// Sends the key to `origin`, as `authorization: Bearer <key>`. The origin is an `https` URI, or an [`Origin`].
    ///
    /// # Errors
    /// [`ConfigurationError`] if the key is empty or not visible ASCII, or if the origin is invalid or [not encrypted](Origin::new).
    pub fn new<O>(key: impl Into<ClientKey>, origin: O) -> Result<Self, ConfigurationError>
    where
        O: TryInto<Origin>,
        ConfigurationError: From<O::Error>,
    {
        Self::build(key.into(), origin.try_into()?, false)
    }

    /// As [`new`](Self::new), for an inner service that sends all its requests to `origin`, such as tonic's `Channel` or one connection
    /// of hyper: requests without scheme and authority get the key, too.
    ///
    /// The origin is the URI that the channel connects to. The layer cannot check it. Each endpoint of a channel that balances gets the
    /// key.
    ///
    /// ```
    /// use tollgate_client::ClientLayer;
    /// use tonic::transport::Endpoint;
    /// use tower::ServiceBuilder;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let endpoint = Endpoint::from_static("https://api.example.com");
    /// let channel = ServiceBuilder::new()
    ///     .layer(ClientLayer::for_channel("sk_live_a1B2c3D4", endpoint.uri())?)
    ///     .service(endpoint.connect_lazy());
    /// // let client = MarketClient::new(channel);
    /// # drop(channel);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_channel<O>(key: impl Into<ClientKey>, origin: O) -> Result<Self, ConfigurationError>
    where
        O: TryInto<Origin>,
        ConfigurationError: From<O::Error>,
    {
        Self::build(key.into(), origin.try_into()?, true)
    }

    fn build(key: ClientKey, origin: Origin, is_fixed: bool) -> Result<Self, ConfigurationError> {
        let settings = Settings {
            origin,
            is_fixed,
            key: key.into_header_value()?,
            header: AUTHORIZATION,
            credential: HeaderValue::from_static(""),
            request_id_header: X_REQUEST_ID,
            clock: Arc::new(SystemClock),
        };
        Self { settings: Arc::new(settings), retries: NoRetries }.with_scheme("Bearer")
    }
}

impl<R> ClientLayer<R> {
    /// Sends the key alone, in this header. Default: `authorization`, with the scheme `Bearer`.
    pub fn with_header(self, header: HeaderName) -> Self {
        self.set(|settings| {
            settings.header = header;
            settings.credential = settings.key.clone();
        })
    }

    /// Sends the key as `authorization: <scheme> <key>`. Default: `Bearer`.
    ///
    /// ```
    /// use tollgate_client::ClientLayer;
    ///
    /// let layer = ClientLayer::new("sk_live_a1B2c3D4", "https://api.example.com")?.with_scheme("ApiKey")?;
    /// # Ok::<(), tollgate_client::ConfigurationError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigurationError`] if the scheme is not a token (RFC 9110 section 11.1).
    pub fn with_scheme(self, scheme: &str) -> Result<Self, ConfigurationError> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_token) {
            // Does not show it: it may be a whole header value, with the key.
            return Err(ConfigurationError::new(
                "the authentication scheme is empty or contains a space or a separator: give its name only, such as Bearer",
            ));
        }
        let key = self.settings.key.to_str().unwrap_or_default();
        let mut text = Zeroizing::new(String::with_capacity(scheme.len() + 1 + key.len()));
        text.push_str(scheme);
        text.push(' ');
        text.push_str(key);
        let credential = sensitive(text)?;
        Ok(self.set(|settings| {
            settings.header = AUTHORIZATION;
            settings.credential = credential;
        }))
    }

    /// The header of the request ID. Default: `x-request-id`.
    pub fn with_request_id_header(self, header: HeaderName) -> Self {
        self.set(|settings| settings.request_id_header = header)
    }

    /// The clock for new request IDs, and for a `Retry-After` with a date. Default: the machine's.
    pub fn with_clock(self, clock: impl Clock) -> Self {
        self.set(|settings| settings.clock = Arc::new(clock))
    }

    /// Sends a request again if the server refuses it and says how long to wait: see [`Retries`]. The inner service must be `Clone`.
    /// Default: each request is sent once.
    pub fn with_retries<B: Body>(self, retries: Retries<B>) -> ClientLayer<Retries<B>> {
        ClientLayer { settings: self.settings, retries }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S, R: Clone> Layer<S> for ClientLayer<R> {
    type Service = Client<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Client { inner, settings: self.settings.clone(), retries: self.retries.clone() }
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone)]
pub(crate) struct Settings {
    origin: Origin,
    // Whether the inner service sends all requests to the origin.
    is_fixed: bool,
    key: HeaderValue,
    header: HeaderName,
    // The value of `header`.
    credential: HeaderValue,
    request_id_header: HeaderName,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Settings {
    /// Adds the key and the request ID, if `request` is to the origin: returns whether it is.
    pub(crate) fn prepare<B>(&self, request: &mut Request<B>) -> bool {
        if !self.origin.receives(request.uri(), request.headers(), self.is_fixed) {
            self.log_without_key(request.uri());
            return false;
        }
        let headers = request.headers_mut();
        if !headers.contains_key(&self.header) {
            headers.insert(self.header.clone(), self.credential.clone());
        }
        if !headers.contains_key(&self.request_id_header) {
            headers.insert(self.request_id_header.clone(), new_request_id(self.clock.now()));
        }
        true
    }

    #[cold]
    fn log_without_key(&self, uri: &Uri) {
        if uri.scheme().is_none() && uri.authority().is_none() && !self.is_fixed {
            tracing::warn!(
                target: "tollgate",
                origin = %self.origin,
                "request without scheme and authority, sent without the key: use ClientLayer::for_channel for a channel"
            );
            return;
        }
        // Not the whole URI: path, query and user information may contain secrets.
        tracing::debug!(
            target: "tollgate",
            origin = %self.origin,
            scheme = uri.scheme_str(),
            host = uri.host(),
            port = uri.port_u16(),
            "request to another origin, sent without the key"
        );
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("origin", &self.origin)
            .field("header", &self.header)
            .field("request_id_header", &self.request_id_header)
            .finish_non_exhaustive()
    }
}
