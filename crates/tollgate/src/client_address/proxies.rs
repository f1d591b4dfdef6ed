//! Which proxies are trusted.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::ConfigurationError;

/// A network, or an address as a network of one. One that is IPv4's within IPv6 is IPv4's, as all addresses are.
pub(super) fn network(text: &str) -> Result<IpNet, ConfigurationError> {
    let trimmed = text.trim();
    let network = match trimmed.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => trimmed.parse::<IpNet>().ok().and_then(canonical),
    };
    network.ok_or_else(|| {
        ConfigurationError::new(format!(
            "ClientAddress cannot trust \"{text}\": name an address such as 10.0.0.7 or 2001:db8::7, or a network such as \
             10.0.0.0/8 or 2001:db8::/32"
        ))
    })
}

/// `None` for a network that is written as IPv4's within IPv6 and is larger than all of IPv4.
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
