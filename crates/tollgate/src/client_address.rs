//! The address of the client of a request.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use http::{HeaderName, header::FORWARDED};
use tollgate_core::{
    network::{InvalidNetworks, Network},
    request::RequestHead,
};

use crate::ConfigurationError;

mod entry;
mod subject;

use entry::{forwarded, forwarded_for};

/// Finds the *client's* address of a request.
///
/// This is the address of the *peer*, the other end of the connection. If the peer is a proxy that the service trusts, it is the
/// address that the proxy reports in a header, and so on, from right to left, through all trusted proxies. A client can write
/// into the header only to the left of what the first trusted proxy adds, and that part is never read.
///
/// ```
/// use std::net::{IpAddr, SocketAddr};
///
/// use http::Request;
/// use tollgate::{ClientAddress, request::RequestHead};
///
/// /// What your server attaches to each request.
/// #[derive(Clone)]
/// struct Peer(SocketAddr);
///
/// let address = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0.ip()))
///     .with_trusted_proxies(["10.0.0.0/8", "2001:db8:1::7"])?;
///
/// let mut request = Request::get("/").header("x-forwarded-for", "spoofed, 198.51.100.4, 10.2.3.4").body(())?;
/// request.extensions_mut().insert(Peer("10.0.0.1:4711".parse()?));
/// assert_eq!(address.find(RequestHead::of(&request)), Some("198.51.100.4".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With axum, use `ClientAddress::of_peer(tollgate_axum::peer_address)` (feature `connect-info`) and serve the router with
/// `into_make_service_with_connect_info::<SocketAddr>()`. tonic attaches a `TcpConnectInfo`.
#[derive(Clone)]
pub struct ClientAddress {
    peer: Arc<Peer>,
    proxies: Arc<[Network]>,
    header: Header,
    ipv6_prefix: u8,
}

type Peer = dyn for<'r> Fn(RequestHead<'r>) -> Option<IpAddr> + Send + Sync;

/// The header in which trusted proxies report the client.
#[derive(Clone, Copy, Debug)]
enum Header {
    XForwardedFor,
    Forwarded,
}

impl ClientAddress {
    /// Creates a finder from a function that returns the address of the connection's other end. `peer` reads it from what the
    /// server has attached to the request. It returns `None` if nothing is attached.
    pub fn of_peer(peer: impl for<'r> Fn(RequestHead<'r>) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self { peer: Arc::new(peer), proxies: Arc::new([]), header: Header::XForwardedFor, ipv6_prefix: 64 }
    }

    /// Trusts these proxies, given as addresses or networks, and reads `X-Forwarded-For`. Each proxy must append the address of
    /// its peer to the header, at the right end or in a new line. Replaces the proxies trusted before.
    ///
    /// For a header with a single address (`X-Real-IP`, `CF-Connecting-IP`), read it in [`of_peer`](Self::of_peer) instead. This is
    /// safe only if the service can be reached only through the proxy that sets the header.
    ///
    /// # Errors
    /// [`ConfigurationError`] if one of them is not an address or a network.
    pub fn with_trusted_proxies(
        mut self,
        proxies: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, ConfigurationError> {
        let proxies = proxies.into_iter().map(|proxy| proxy.as_ref().parse());
        self.proxies = proxies.collect::<Result<_, InvalidNetworks>>().map_err(|error| {
            ConfigurationError::new(format!("ClientAddress: invalid trusted proxy: {error}"))
        })?;
        Ok(self)
    }

    /// Reads `Forwarded` (RFC 7239) instead of `X-Forwarded-For`. Only one of the two is read, because a proxy that writes one
    /// passes the other through unchecked.
    pub fn with_forwarded(mut self) -> Self {
        self.header = Header::Forwarded;
        self
    }

    /// Treats IPv6 addresses with the same first `bits` bits as one client. Default: 64, the smallest network that providers
    /// usually assign to a customer; many assign 56. Maximum: 128.
    pub fn with_ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits;
        self
    }

    /// The client's address; for IPv6, the first address of its network. `None` if the peer's address is not known.
    ///
    /// If a trusted proxy reports no usable address (`unknown`, an obfuscated name, nothing), the client is that proxy.
    pub fn find(&self, head: RequestHead<'_>) -> Option<IpAddr> {
        self.find_exact(head).map(|address| self.masked(address))
    }

    /// The client's address with all its bits.
    pub(crate) fn find_exact(&self, head: RequestHead<'_>) -> Option<IpAddr> {
        let mut client = (self.peer)(head)?.to_canonical();
        match self.header {
            Header::XForwardedFor => {
                let entries = entries(head, &X_FORWARDED_FOR);
                self.walk(&mut client, entries.map(forwarded_for));
            }
            Header::Forwarded => {
                let entries = entries(head, &FORWARDED).filter(|entry| !entry.is_empty());
                self.walk(&mut client, entries.map(forwarded));
            }
        }
        Some(client)
    }

    /// Moves from a trusted proxy to the address it reports, while that is a trusted proxy too. `reported`: from right to left.
    fn walk(&self, client: &mut IpAddr, mut reported: impl Iterator<Item = Option<IpAddr>>) {
        while self.trusts(*client)
            && let Some(Some(named)) = reported.next()
        {
            *client = named.to_canonical();
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(address) = address else { return address };
        let host_bits = 128 - u32::from(self.ipv6_prefix.min(128));
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Ipv6Addr::from_bits(address.to_bits() & mask).into()
    }
}

/// The entries of a header, from right to left.
fn entries<'h>(head: RequestHead<'h>, header: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = head.headers.get_all(header).iter().rev();
    lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAddress")
            .field("proxies", &self.proxies)
            .field("header", &self.header)
            .field("ipv6_prefix", &self.ipv6_prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
