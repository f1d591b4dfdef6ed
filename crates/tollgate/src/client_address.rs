//! The address that a request comes from.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use http::HeaderName;
use ipnet::IpNet;
use tollgate_core::request::RequestHead;

use crate::ConfigurationError;

mod entry;
mod proxies;
mod subject;

use entry::{forwarded, forwarded_for};
use proxies::network;

/// Finds the address that a request comes from: its *client's*.
///
/// That is the other end of the connection, the *peer*, unless the peer is a proxy that the service trusts: then it is whom that
/// proxy names in a header, and so on, from right to left, past all proxies that are trusted. What a client writes into the
/// header itself stands left of what the first trusted proxy adds, and is never looked at.
///
/// ```
/// use std::net::{IpAddr, SocketAddr};
///
/// use http::Request;
/// use tollgate::{ClientAddress, request::RequestHead};
///
/// /// What a server of one's own attaches to each request.
/// #[derive(Clone)]
/// struct Peer(SocketAddr);
///
/// let address = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0.ip()))
///     .behind(["10.0.0.0/8", "2001:db8:1::7"])?;
///
/// let mut request = Request::get("/").header("x-forwarded-for", "made-up, 198.51.100.4, 10.2.3.4").body(())?;
/// request.extensions_mut().insert(Peer("10.0.0.1:4711".parse()?));
/// assert_eq!(address.find(RequestHead::of(&request)), Some("198.51.100.4".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With axum it is `ClientAddress::of_peer(tollgate_axum::peer_address)` (feature `connect-info`), for a router that is served by
/// `into_make_service_with_connect_info::<SocketAddr>()`. tonic attaches a `TcpConnectInfo`.
#[derive(Clone)]
pub struct ClientAddress {
    peer: Arc<Peer>,
    proxies: Arc<[IpNet]>,
    header: Header,
    ipv6_prefix: u8,
}

type Peer = dyn for<'r> Fn(RequestHead<'r>) -> Option<IpAddr> + Send + Sync;

/// Where trusted proxies name whom they serve.
#[derive(Clone, Copy, Debug)]
enum Header {
    XForwardedFor,
    Forwarded,
}

impl ClientAddress {
    /// The address of the connection's other end, as `peer` reads it from what the server has attached to the request; `None` if it
    /// has attached nothing.
    pub fn of_peer(peer: impl for<'r> Fn(RequestHead<'r>) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self { peer: Arc::new(peer), proxies: Arc::new([]), header: Header::XForwardedFor, ipv6_prefix: 64 }
    }

    /// Trusts these proxies, single addresses or networks, and reads `X-Forwarded-For`. Each proxy must add the address that it
    /// serves at the header's right end, or in a line of its own after the others. What was named before is trusted no more.
    ///
    /// A header that holds one address and no list (`X-Real-IP`, `CF-Connecting-IP`) is for [`of_peer`](Self::of_peer) to read, where
    /// nobody but the proxy that sets it can reach the service.
    ///
    /// # Errors
    /// If one of them is not an address or a network.
    pub fn behind(
        mut self,
        proxies: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, ConfigurationError> {
        self.proxies = proxies.into_iter().map(|text| network(text.as_ref())).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Reads `Forwarded` (RFC 7239), which the trusted proxies write in place of `X-Forwarded-For`. Of the two only one is ever
    /// read, since proxies that write the one pass the other on.
    pub fn with_forwarded(mut self) -> Self {
        self.header = Header::Forwarded;
        self
    }

    /// Takes IPv6 addresses for one client if so many of their first bits agree, 128 at most. Default: 64, which is what one customer
    /// of a provider has at least; many have 56.
    pub fn with_ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_prefix = bits;
        self
    }

    /// The client's address; of IPv6 the first one of its network. `None` if the peer's is not known.
    ///
    /// If a proxy names nobody who can be found (`unknown`, a made-up name, nothing at all), the client is that proxy.
    pub fn find(&self, head: RequestHead<'_>) -> Option<IpAddr> {
        let mut client = (self.peer)(head)?.to_canonical();
        match self.header {
            Header::XForwardedFor => self.walk(&mut client, head, &X_FORWARDED_FOR, forwarded_for),
            Header::Forwarded => self.walk(&mut client, head, &http::header::FORWARDED, forwarded),
        }
        Some(self.masked(client))
    }

    /// From one trusted proxy to whom it names, for as long as that is one, too.
    fn walk(
        &self,
        client: &mut IpAddr,
        head: RequestHead<'_>,
        header: &HeaderName,
        address: fn(&[u8]) -> Option<IpAddr>,
    ) {
        let lines = head.headers.get_all(header).iter().rev();
        let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        while self.trusts(*client)
            && let Some(named) = entries.next().and_then(address)
        {
            *client = named.to_canonical();
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(address) = address else { return address };
        let host_bits = 128 - u32::from(self.ipv6_prefix.min(128));
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Ipv6Addr::from_bits(address.to_bits() & mask).into()
    }
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
