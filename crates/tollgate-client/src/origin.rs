//! Which origin may receive a key.

use std::{fmt, net::Ipv6Addr};

use http::{
    HeaderMap, Uri,
    header::HOST,
    uri::{Authority, Scheme},
};

use crate::ConfigurationError;

/// The scheme, host and port that receive a key (RFC 6454 section 4).
///
/// Case does not matter. IPv6 addresses are compared by value. A missing port is the default port of the scheme. Path and query are ignored.
///
/// ```
/// use tollgate_client::Origin;
///
/// let origin = Origin::new("https://API.example.com:443/v1")?;
/// assert_eq!(origin.to_string(), "https://api.example.com");
///
/// assert!(Origin::new("http://api.example.com").is_err()); // not encrypted
/// # Ok::<(), tollgate_client::ConfigurationError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    is_https: bool,
    // In lower case; an IPv6 address in brackets, in its shortest form.
    host: Box<str>,
    port: u16,
}

impl Origin {
    /// The origin of an `https` URI.
    ///
    /// # Errors
    /// [`ConfigurationError`] if the URI has no host, has another scheme, or contains a user name or a password.
    pub fn new(uri: impl TryInto<Uri>) -> Result<Self, ConfigurationError> {
        let origin = Self::parse(uri)?;
        if origin.is_https {
            return Ok(origin);
        }
        Err(ConfigurationError::new(format!(
            "{origin} is not encrypted: others on the network could read the key. Use https, or \
             Origin::dangerous_allow_plaintext if the network is your own"
        )))
    }

    /// The origin of an `https` or `http` URI. With `http`, others on the network can read the key. Loopback addresses need this, too: any
    /// local user may listen there.
    ///
    /// ```
    /// use tollgate_client::{ClientLayer, Origin};
    ///
    /// let local = Origin::dangerous_allow_plaintext("http://localhost:8080")?;
    /// let layer = ClientLayer::new("sk_test_a1B2c3D4", local)?;
    /// # Ok::<(), tollgate_client::ConfigurationError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigurationError`] if the URI has no host, has another scheme, or contains a user name or a password.
    pub fn dangerous_allow_plaintext(uri: impl TryInto<Uri>) -> Result<Self, ConfigurationError> {
        Self::parse(uri)
    }

    fn parse(uri: impl TryInto<Uri>) -> Result<Self, ConfigurationError> {
        let invalid = || {
            ConfigurationError::new(
                "the origin of a key is an absolute URI with a host, such as https://api.example.com",
            )
        };
        let uri = uri.try_into().map_err(|_| invalid())?;
        let authority = uri.authority().ok_or_else(invalid)?;
        if authority.as_str().contains('@') {
            return Err(ConfigurationError::new(
                "the origin of a key contains a user name: remove the part before the @",
            ));
        }
        let target = Target::of(uri.scheme(), authority).ok_or_else(invalid)?;
        let host = match ipv6(target.host) {
            Some(address) => format!("[{address}]"),
            None => target.host.to_ascii_lowercase(),
        };
        Ok(Self { is_https: target.is_https, host: host.into(), port: target.port })
    }

    /// Whether a request with this target and these headers reaches this origin. If `is_fixed`, the inner service sends requests without
    /// scheme and authority there.
    pub(crate) fn receives(&self, uri: &Uri, headers: &HeaderMap, is_fixed: bool) -> bool {
        let is_to_this = match (uri.scheme(), uri.authority()) {
            (None, None) => is_fixed,
            (scheme, Some(authority)) => self.is(scheme, authority),
            (Some(_), None) => false,
        };
        // A proxy may choose the backend by `Host`, not by the host that the connection was made to.
        is_to_this && headers.get_all(HOST).iter().all(|host| self.is_named_by(host.as_bytes()))
    }

    fn is_named_by(&self, host: &[u8]) -> bool {
        let scheme = if self.is_https { Scheme::HTTPS } else { Scheme::HTTP };
        Authority::try_from(host)
            .is_ok_and(|authority| !authority.as_str().contains('@') && self.is(Some(&scheme), &authority))
    }

    fn is(&self, scheme: Option<&Scheme>, authority: &Authority) -> bool {
        Target::of(scheme, authority).is_some_and(|target| {
            let is_same_host = || match ipv6(target.host) {
                Some(address) => ipv6(&self.host) == Some(address),
                None => self.host.eq_ignore_ascii_case(target.host),
            };
            self.is_https == target.is_https && self.port == target.port && is_same_host()
        })
    }
}

/// What a URI names, as it is written.
struct Target<'u> {
    is_https: bool,
    host: &'u str,
    port: u16,
}

impl<'u> Target<'u> {
    /// `None` if the scheme is not one of HTTP, or the port is not a number.
    fn of(scheme: Option<&Scheme>, authority: &'u Authority) -> Option<Self> {
        let is_https = match scheme? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let host = authority.host();
        // Not `Authority::port_u16`: a port that is out of range must not pass for the default one.
        let after_user = authority.as_str().rsplit('@').next()?;
        let port = match after_user.strip_prefix(host)? {
            "" => default_port(is_https),
            port => parse_port(port.strip_prefix(':')?)?,
        };
        (!host.is_empty()).then_some(Self { is_https, host, port })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

const fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// The address of a host in brackets.
fn ipv6(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

macro_rules! try_from {
    ($($uri:ty),*) => { $(
        impl TryFrom<$uri> for Origin {
            type Error = ConfigurationError;

            /// As [`Origin::new`].
            fn try_from(uri: $uri) -> Result<Self, ConfigurationError> {
                Self::new(uri)
            }
        }
    )* };
}
try_from!(&str, String, &String, Uri, &Uri);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_https { "https" } else { "http" }, self.host)?;
        if self.port == default_port(self.is_https) {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

#[cfg(test)]
mod tests;
