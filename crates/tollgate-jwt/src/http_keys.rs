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
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
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
///
/// A private certificate authority is trusted [in addition](Self::with_root_certificate). Errors and logs show the URL without its query,
/// which may hold an API key.
#[derive(Clone)]
pub struct HttpKeys {
    uri: Uri,
    host: Box<str>,
    port: u16,
    // `None`: plain HTTP.
    roots: Option<Arc<RootCertStore>>,
}

impl HttpKeys {
    /// Fetches keys from an `https` URL, or from an `http` URL on this machine (`localhost`, `127.0.0.0/8`, `[::1]`).
    ///
    /// # Errors
    /// [`InvalidKeysUrl`] for any other text, and if the operating system has no root certificates.
    pub fn new(url: impl AsRef<str>) -> Result<Self, InvalidKeysUrl> {
        let keys = Self::parse(url.as_ref())?;
        if keys.roots.is_none() && !is_loopback(&keys.host) {
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

    /// Trusts this root certificate as well, in PEM: that of a private certificate authority. Has no effect on plain HTTP.
    ///
    /// # Errors
    /// [`InvalidRootCertificate`] if the text has no certificate in PEM, or one that cannot be read. Only the first one is used.
    pub fn with_root_certificate(mut self, pem: impl AsRef<[u8]>) -> Result<Self, InvalidRootCertificate> {
        let certificate =
            CertificateDer::from_pem_slice(pem.as_ref()).map_err(|_| InvalidRootCertificate(()))?;
        if let Some(roots) = &mut self.roots {
            Arc::make_mut(roots).add(certificate).map_err(|_| InvalidRootCertificate(()))?;
        }
        Ok(self)
    }

    fn parse(url: &str) -> Result<Self, InvalidKeysUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidKeysUrl("this is no URL"))?;
        let authority = uri.authority().ok_or(InvalidKeysUrl("the URL has no host: begin with https://"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidKeysUrl("the URL must not have a user name or password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let (roots, port) = match uri.scheme_str() {
            Some("https") => (Some(Arc::new(roots(host)?)), 443),
            Some("http") => (None, 80),
            _ => return Err(InvalidKeysUrl("the URL must begin with https://")),
        };
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { host: host.into(), port, roots, uri })
    }

    /// The URL without its query.
    fn shown(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{}", self.uri.path())
    }

    async fn get(self) -> Result<Vec<u8>, Failure> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        match &self.roots {
            None => self.get_over(stream).await,
            Some(roots) => {
                let name = ServerName::try_from(self.host.to_string())?;
                self.get_over(tls(roots)?.connect(name, stream).await?).await
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
            let failed = format!("GET {} failed", keys.shown());
            keys.get().await.map_err(|error| Unavailable::new(failed).with_source(error))
        })
    }
}

/// The root certificates of the operating system.
fn roots(host: &str) -> Result<RootCertStore, InvalidKeysUrl> {
    ServerName::try_from(host).map_err(|_| InvalidKeysUrl("the URL's host is no host name"))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(InvalidKeysUrl(
            "the operating system has no root certificates: install the package ca-certificates",
        ));
    }
    Ok(roots)
}

/// The backend is named here: the process-wide one may be missing, or may be replaced by another crate.
fn tls(roots: &Arc<RootCertStore>) -> Result<TlsConnector, Failure> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(Arc::clone(roots)).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for HttpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpKeys").field(&self.shown()).finish()
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

/// A text has no root certificate: returned by [`HttpKeys::with_root_certificate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRootCertificate(());

impl fmt::Display for InvalidRootCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no root certificate in PEM: expected -----BEGIN CERTIFICATE-----")
    }
}

impl std::error::Error for InvalidRootCertificate {}

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
