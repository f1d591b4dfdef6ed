//! Parses trusted proxies.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::ConfigurationError;

/// Parses a network, or an address as a network of one. Converts IPv4-mapped IPv6 to IPv4, as for all addresses.
pub(super) fn network(text: &str) -> Result<IpNet, ConfigurationError> {
    let trimmed = text.trim();
    let network = match trimmed.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => trimmed.parse::<IpNet>().ok().and_then(canonical),
    };
    network.ok_or_else(|| {
        ConfigurationError::new(format!(
            "ClientAddress: invalid trusted proxy \"{text}\": use an address such as 10.0.0.7 or 2001:db8::7, or a network such as \
             10.0.0.0/8 or 2001:db8::/32"
        ))
    })
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
