//! Addresses that requests on behalf of administrators must not reach: the hub's own machine, and the
//! metadata services of clouds, which hand out credentials without authentication.

use crate::limit_table;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Setting that allows refused addresses, named by errors.
pub const ALLOWED_TARGETS_SETTING: &str = "hub.allowed_targets";

/// Network of addresses: `127.0.0.0/8` or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AddressRange {
    network: u128,
    prefix: u8,
}

/// Address as 128 bits; IPv4 addresses are mapped (RFC 4291, 2.5.5.2).
fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl AddressRange {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) =
            text.trim().split_once('/').map_or((text.trim(), None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().ok()?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix =
            prefix.map_or(Some(max), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= max))?;
        Some(Self { network: to_bits(address), prefix: 128 - max + prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        let shift = 128 - u32::from(self.prefix);
        (to_bits(address) ^ self.network).checked_shr(shift).unwrap_or_default() == 0
    }
}

/// Address that a request must not reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} is refused: connections to a {kind} address must be permitted by {ALLOWED_TARGETS_SETTING}"
)]
pub struct RefusedAddress {
    address: IpAddr,
    kind: &'static str,
}

/// Addresses that requests on behalf of administrators may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboundPolicy {
    allowed: Vec<AddressRange>,
}

impl OutboundPolicy {
    /// Policy that allows addresses or CIDR ranges in addition to those that are never refused.
    ///
    /// # Errors
    /// Returns the first text that is neither an address nor a range.
    pub fn new<'a>(allowed: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let allowed = allowed.into_iter().map(|text| AddressRange::parse(text).ok_or(text));
        Ok(Self { allowed: allowed.collect::<Result<_, _>>()? })
    }

    /// Policy that allows the loopback addresses, too.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.allowed.extend(["127.0.0.0/8", "::1"].iter().filter_map(|text| AddressRange::parse(text)));
        self
    }

    /// Policy that refuses no address.
    pub fn unrestricted() -> Self {
        Self { allowed: vec![AddressRange { network: 0, prefix: 0 }] }
    }

    /// Checks an address after its name was resolved, before the connection.
    ///
    /// # Errors
    /// Returns [`RefusedAddress`] for loopback, link-local, unspecified and multicast addresses and for the
    /// metadata services of clouds, unless they are allowed.
    pub fn check(&self, address: IpAddr) -> Result<(), RefusedAddress> {
        let embedded = embedded_ipv4(address).map_or(address, IpAddr::V4);
        let is_allowed = |address| self.allowed.iter().any(|range| range.contains(address));
        match kind(embedded).or_else(|| kind(address)) {
            Some(kind) if !is_allowed(address) && !is_allowed(embedded) => {
                limit_table::REFUSED_TARGETS.refuse();
                Err(RefusedAddress { address, kind })
            }
            _ => Ok(()),
        }
    }

    /// Addresses of a name that may be reached.
    ///
    /// # Errors
    /// Returns the first [`RefusedAddress`] if none remains.
    pub fn filter(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, RefusedAddress> {
        let (mut permitted, mut refused) = (Vec::new(), None);
        for address in addresses {
            match self.check(address.ip()) {
                Ok(()) => permitted.push(address),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) if permitted.is_empty() => Err(error),
            _ => Ok(permitted),
        }
    }
}

/// IPv4 address that a gateway or the kernel reaches for an IPv6 address: mapped and compatible (RFC 4291,
/// 2.5.5), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let segments = address.segments();
    let ipv4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(ipv4(high, low))
        }
        [0x2002, high, low, ..] => Some(ipv4(high, low)),
        _ => None,
    }
}

/// Reason why an address is refused; `None` for all others.
fn kind(address: IpAddr) -> Option<&'static str> {
    const METADATA_V4: [Ipv4Addr; 4] = [
        Ipv4Addr::new(169, 254, 169, 254),
        // Alibaba Cloud, Oracle Cloud, Azure.
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(192, 0, 0, 192),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    /// Amazon EC2.
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(address) if METADATA_V4.contains(&address) => Some("metadata"),
        IpAddr::V6(address) if address == METADATA_V6 => Some("metadata"),
        _ if address.is_loopback() => Some("loopback"),
        _ if address.is_multicast() => Some("multicast"),
        _ if address.is_unspecified() => Some("unspecified"),
        // RFC 1122, 3.2.1.3: this network.
        IpAddr::V4(address) if address.octets()[0] == 0 => Some("unspecified"),
        IpAddr::V4(address) if address.is_broadcast() => Some("broadcast"),
        IpAddr::V4(address) if address.is_link_local() => Some("link-local"),
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("link-local"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding L7: webhooks and the issuer of single sign-on reached the hub's own services and the metadata
    /// service.
    #[test]
    fn loopback_link_local_and_metadata_addresses_are_refused() {
        let strict = OutboundPolicy::new([]).unwrap();
        for (address, kind) in [
            ("127.0.0.1", "loopback"),
            ("127.8.9.10", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("64:ff9b::7f00:1", "loopback"),
            ("2002:7f00:1::", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("169.254.169.254", "metadata"),
            ("::ffff:169.254.169.254", "metadata"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("fd00:ec2::254", "metadata"),
            ("100.100.100.200", "metadata"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
        ] {
            let error = strict.check(address.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(kind) && error.ends_with("hub.allowed_targets"), "{address}: {error}");
            assert!(OutboundPolicy::unrestricted().check(address.parse().unwrap()).is_ok());
        }
        for address in ["192.0.2.1", "10.0.0.1", "192.168.1.1", "2001:db8::1", "fd00::1", "100.64.0.1"] {
            assert_eq!(strict.check(address.parse().unwrap()), Ok(()), "{address}");
        }
    }

    /// Second review: SSH collection reached the metadata service. It may collect the machine of the hub.
    #[test]
    fn ssh_reaches_the_hub_itself_but_no_metadata_service() {
        let policy = OutboundPolicy::default().with_loopback();
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.1"] {
            assert_eq!(policy.check(address.parse().unwrap()), Ok(()), "{address}");
        }
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "0.0.0.0", "fe80::1", "fd00:ec2::254"] {
            assert!(policy.check(address.parse().unwrap()).is_err(), "{address}");
        }
    }

    #[test]
    fn configured_addresses_are_allowed() {
        let policy = OutboundPolicy::new(["127.0.0.0/8", " ::1 ", "fe80::/10"]).unwrap();
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.255.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("fe80::5", true),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(policy.check(address.parse().unwrap()).is_ok(), expected, "{address}");
        }
        for invalid in ["localhost", "127.0.0.1/33", "::1/129", "1.2.3/8", ""] {
            assert_eq!(OutboundPolicy::new([invalid]), Err(invalid));
        }
        let addresses: Vec<SocketAddr> =
            ["169.254.1.1:80", "192.0.2.1:80"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(policy.filter(addresses.clone()), Ok(addresses[1..].to_vec()));
        assert!(policy.filter(addresses[..1].to_vec()).is_err());
    }
}
