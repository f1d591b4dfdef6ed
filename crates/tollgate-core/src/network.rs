//! Networks of addresses: `10.0.0.0/8`, `2001:db8::/32`.

use std::{error::Error, fmt, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

use crate::bounds::MAX_NETWORKS;

/// A network of IPv4 or IPv6 addresses, in CIDR notation. A single address is a network of one.
///
/// An IPv4-mapped IPv6 address counts as its IPv4 address, both in networks and in the addresses that are compared with them: servers
/// that accept both kinds of connections on one socket report IPv4 clients in that form.
///
/// ```
/// use tollgate_core::network::Network;
///
/// let office: Network = "198.51.100.0/24".parse()?;
/// assert!(office.contains("198.51.100.7".parse()?));
/// assert!(office.contains("::ffff:198.51.100.7".parse()?));
/// assert!(!office.contains("198.51.101.7".parse()?));
/// assert_eq!("198.51.100.7/24".parse::<Network>()?, office, "bits beyond the prefix are cleared");
/// assert_eq!("2001:db8::7".parse::<Network>()?.to_string(), "2001:db8::7/128");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetworks;

    fn from_str(text: &str) -> Result<Self, InvalidNetworks> {
        let trimmed = text.trim();
        let network = match trimmed.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address.to_canonical())),
            Err(_) => trimmed.parse::<IpNet>().ok().and_then(canonical),
        };
        match network {
            Some(network) => Ok(Self(network.trunc())),
            None => Err(InvalidNetworks::NotANetwork(text.chars().take(LONGEST_SHOWN).collect())),
        }
    }
}

/// `None` for an IPv4-mapped network that is larger than the IPv4 address space.
fn canonical(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(within) = network else { return Some(network) };
    match within.addr().to_ipv4_mapped() {
        None => Some(network),
        Some(address) => {
            let length = within.prefix_len().checked_sub(96)?;
            Ipv4Net::new(address, length).ok().map(IpNet::V4)
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The networks from which a key may be used: at most [100](crate::bounds::MAX_NETWORKS). Without any, it may be used from anywhere.
///
/// ```
/// use tollgate_core::network::Networks;
///
/// let networks = Networks::new(["198.51.100.0/24", "2001:db8::/32"])?;
/// assert!(networks.allows("2001:db8::7".parse().unwrap()));
/// assert!(!networks.allows("192.0.2.1".parse().unwrap()));
/// assert_eq!(networks.to_string(), "198.51.100.0/24 2001:db8::/32");
/// assert!(Networks::anywhere().allows("192.0.2.1".parse().unwrap()));
/// # Ok::<(), tollgate_core::network::InvalidNetworks>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Networks(Box<[Network]>);

impl Networks {
    /// No restriction.
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// These networks, sorted and each once. None at all is [`anywhere`](Self::anywhere).
    ///
    /// # Errors
    /// [`InvalidNetworks`] if one of them is not an address or a network, or if there are more than [`MAX_NETWORKS`].
    pub fn new(networks: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, InvalidNetworks> {
        let networks = networks.into_iter().map(|network| network.as_ref().parse());
        // One more than is allowed is enough to know.
        let mut networks = networks.take(MAX_NETWORKS + 1).collect::<Result<Vec<Network>, _>>()?;
        if networks.len() > MAX_NETWORKS {
            return Err(InvalidNetworks::TooMany);
        }
        networks.sort_unstable();
        networks.dedup();
        Ok(Self(networks.into()))
    }

    /// Whether there is no restriction.
    #[inline]
    pub fn is_anywhere(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a client with this address may use the key.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.is_anywhere() || self.iter().any(|network| network.contains(address))
    }

    /// The networks, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.iter()
    }
}

impl fmt::Display for Networks {
    /// Separated by spaces; `anywhere` for no restriction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_anywhere() {
            return f.write_str("anywhere");
        }
        for (number, network) in self.iter().enumerate() {
            let separator = if number == 0 { "" } else { " " };
            write!(f, "{separator}{network}")?;
        }
        Ok(())
    }
}

/// The longest network has 43 characters: an IPv6 address of 39 and its prefix. Of a longer text only the beginning is shown.
const LONGEST_SHOWN: usize = 50;

/// Why a text is no network, or a list of networks is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidNetworks {
    /// This text, of which the beginning is kept, is not an address or a network.
    NotANetwork(Box<str>),
    /// There are more than [`MAX_NETWORKS`] networks.
    TooMany,
}

impl fmt::Display for InvalidNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANetwork(text) => write!(
                f,
                "{text:?} is not a network: use an address such as 10.0.0.7 or 2001:db8::7, or a network such as 10.0.0.0/8 or \
                 2001:db8::/32"
            ),
            Self::TooMany => write!(f, "more than {MAX_NETWORKS} networks: combine them into larger ones"),
        }
    }
}

impl Error for InvalidNetworks {}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(list).unwrap()
    }

    fn allow(list: &[&str], address: &str) -> bool {
        networks(list).allows(address.parse().unwrap())
    }

    #[test]
    fn allows_the_addresses_of_its_networks_only() {
        let list = ["198.51.100.0/24", "192.0.2.7", "2001:db8:1::/48"];
        for address in ["198.51.100.0", "198.51.100.255", "192.0.2.7", "2001:db8:1::1", "2001:db8:1:ffff::"] {
            assert!(allow(&list, address), "{address}");
        }
        for address in ["198.51.99.255", "198.51.101.0", "192.0.2.6", "2001:db8:2::", "::1", "0.0.0.0"] {
            assert!(!allow(&list, address), "{address}");
        }
        assert!(allow(&["0.0.0.0/0"], "203.0.113.9") && !allow(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(allow(&["::/0"], "2001:db8::1") && !allow(&["::/0"], "203.0.113.9"));
        assert!(allow(&[], "203.0.113.9") && allow(&[], "2001:db8::1"));
    }

    #[test]
    fn an_ipv4_mapped_address_is_its_ipv4_address() {
        assert!(allow(&["198.51.100.0/24"], "::ffff:198.51.100.7"));
        assert!(allow(&["::ffff:198.51.100.0/120"], "198.51.100.7"));
        assert_eq!(networks(&["::ffff:198.51.100.7"]), networks(&["198.51.100.7"]));
        assert!(!allow(&["::/0"], "::ffff:198.51.100.7"), "the address is not an IPv6 address");
    }

    #[test]
    fn lists_with_the_same_networks_are_equal() {
        let list = networks(&["2001:db8::/32", "10.1.2.3/8", " 10.0.0.0/8 ", "192.0.2.1"]);
        assert_eq!(list, networks(&["192.0.2.1/32", "10.0.0.0/8", "2001:db8::/32"]));
        assert_eq!(list.to_string(), "10.0.0.0/8 192.0.2.1/32 2001:db8::/32");
        assert_eq!(Networks::new(list.to_string().split(' ')), Ok(list));
    }

    #[test]
    fn refuses_what_is_not_a_network() {
        for text in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0/8",
            "2001:db8::/129",
            "10.0.0.1:80",
            "::ffff:0:0/8",
        ] {
            let error = Networks::new([text]).unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?} is not a network")), "{error}");
        }
        let error = Networks::new(["\u{1b}[31m".repeat(1_000)]).unwrap_err().to_string();
        assert!(error.len() < 400 && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn the_number_of_networks_is_bounded() {
        let list = |count: usize| Networks::new((0..count).map(|number| format!("10.0.0.{number}")));
        assert_eq!(list(MAX_NETWORKS).unwrap().iter().count(), MAX_NETWORKS);
        assert_eq!(list(MAX_NETWORKS + 1), Err(InvalidNetworks::TooMany));
    }
}
