//! Key sets over HTTPS.

use std::{fmt, sync::Arc};

use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tollgate_core::{answer::Answer, denial::Unavailable};

use crate::{fetch_keys::FetchKeys, key_set::KeySet};

/// Fetches a key set from a URL: one `GET` on a connection of its own, verified by the root certificates of the operating system.
///
/// ```
/// use tollgate_jwt::{HttpKeys, Issuer};
///
/// let keys = HttpKeys::new("https://login.example.com/.well-known/jwks.json")?;
/// let issuer = Issuer::from_source("https://login.example.com/", "https://api.example.com", keys);
/// # Ok::<(), tollgate_jwt::InvalidKeysUrl>(())
/// ```
///
/// An answer other than 200, or of more than 256 KiB, is an error. Redirects are not followed, since they could lead to another host: give the
/// final URL. Proxies are not used: see [`fetch_keys_fn`](crate::fetch_keys_fn) for a client of your own.
#[derive(Clone)]
pub struct HttpKeys {
    uri: Uri,
    host: Box<str>,
    port: u16,
    // `None`: plain HTTP.
    tls: Option<TlsConnector>,
}

impl HttpKeys {
    /// Fetches keys from an `https` URL, or from an `http` URL on this machine (`localhost`, `127.0.0.0/8`, `[::1]`).
    ///
    /// # Errors
    /// [`InvalidKeysUrl`] for any other text, and if the operating system has no root certificates.
    pub fn new(url: impl AsRef<str>) -> Result<Self, InvalidKeysUrl> {
        let keys = Self::parse(url.as_ref())?;
        if keys.tls.is_none() && !is_loopback(&keys.host) {
            return Err(InvalidKeysUrl(
                "plain http is allowed on this machine only: use https, or HttpKeys::dangerous_over_http",
            ));
        }
        Ok(keys)
    }

    /// Fetches keys from an `http` URL on any host.
    ///
    /// # Security
    /// Everyone on the network between can replace the keys, and then issue tokens. Use it only where the network itself is
    /// encrypted, for example by a service mesh.
    ///
    /// # Errors
    /// [`InvalidKeysUrl`] if the text is not a URL, and if the operating system has no root certificates.
    pub fn dangerous_over_http(url: impl AsRef<str>) -> Result<Self, InvalidKeysUrl> {
        Self::parse(url.as_ref())
    }

    fn parse(url: &str) -> Result<Self, InvalidKeysUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidKeysUrl("this is no URL"))?;
        let authority = uri.authority().ok_or(InvalidKeysUrl("the URL has no host: begin with https://"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidKeysUrl("the URL must not have a user name or password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let (tls, port) = match uri.scheme_str() {
            Some("https") => (Some(tls(host)?), 443),
            Some("http") => (None, 80),
            _ => return Err(InvalidKeysUrl("the URL must begin with https://")),
        };
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { host: host.into(), port, tls, uri })
    }

    async fn get(self) -> Result<Vec<u8>, Failure> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        match &self.tls {
            None => self.get_over(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.to_string())?;
                self.get_over(tls.connect(name, stream).await?).await
            }
        }
    }

    async fn get_over(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Vec<u8>, Failure> {
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = Request::get(target)
            .header(header::HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("tollgate-jwt/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<&[u8]>::new())?;
        let exchange = async {
            let response = client.send_request(request).await?;
            if response.status() != http::StatusCode::OK {
                return Err(format!("the answer has the status {}", response.status()).into());
            }
            let body = Limited::new(response.into_body(), KeySet::MAX_BYTES).collect().await;
            Ok(body
                .map_err(|error| format!("the answer was cut off or is longer than 256 KiB: {error}"))?
                .to_bytes()
                .to_vec())
        };
        // The connection lives as long as the exchange: nothing is spawned, and a dropped fetch closes it.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            biased;
            result = &mut exchange => result,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl FetchKeys for HttpKeys {
    fn fetch(&self) -> Answer<Result<Vec<u8>, Unavailable>> {
        let keys = self.clone();
        Answer::later(async move {
            let url = keys.uri.clone();
            keys.get().await.map_err(|error| Unavailable::new(format!("GET {url} failed")).with_source(error))
        })
    }
}

/// The backend is named here: the process-wide one may be missing, or may be replaced by another crate.
fn tls(host: &str) -> Result<TlsConnector, InvalidKeysUrl> {
    ServerName::try_from(host).map_err(|_| InvalidKeysUrl("the URL's host is no host name"))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(InvalidKeysUrl(
            "the operating system has no root certificates: install the package ca-certificates",
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| InvalidKeysUrl("TLS is not available"))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for HttpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpKeys").field(&self.uri).finish()
    }
}

/// A URL cannot be used to fetch keys. The message says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKeysUrl(&'static str);

impl fmt::Display for InvalidKeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid URL of a key set: {}", self.0)
    }
}

impl std::error::Error for InvalidKeysUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for url in ["http://127.0.0.1:1/jwks", "http://localhost/jwks", "http://[::1]:8080/"] {
            assert!(HttpKeys::new(url).is_ok(), "{url}");
        }
        for url in [
            "http://example.com/jwks",
            "http://localhost.example.com/",
            "http://127.0.0.1@example.com/",
            "ftp://example.com/",
            "/jwks",
            "example.com",
            "",
            "https://",
        ] {
            assert!(HttpKeys::new(url).is_err(), "{url}");
        }
        assert!(HttpKeys::dangerous_over_http("http://issuer.mesh.local/jwks").is_ok());
    }
}
