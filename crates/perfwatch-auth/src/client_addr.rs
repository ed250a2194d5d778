//! Client address of a request: the peer, or the address that a trusted proxy forwards. Headers of
//! other peers are ignored, so that a client cannot bypass rate limits with invented addresses.

use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Address of the client, and whether its connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr {
    /// IP address of the client.
    pub address: IpAddr,
    /// TLS up to the hub or to a trusted proxy.
    pub is_tls: bool,
}

/// Returns whether the forwarding headers of an address are trusted.
pub fn is_trusted_proxy(proxies: &[IpNet], address: IpAddr) -> bool {
    // Dual-stack sockets report IPv4 peers as IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2).
    let address = address.to_canonical();
    proxies.iter().any(|net| net.contains(&address))
}

/// Proxy headers of a request, unverified.
#[derive(Debug, Clone, Default)]
pub struct ForwardedHeaders<'a> {
    /// Lines of `X-Forwarded-For`, in the order of the request; `?` for a line that is not text.
    pub forwarded_for: Vec<&'a str>,
    /// Value of the header `X-Forwarded-Proto`.
    pub forwarded_proto: Option<&'a str>,
}

impl ClientAddr {
    /// Address of the client: the peer, or the last address in `X-Forwarded-For` that is not a
    /// trusted proxy. Headers of untrusted peers are ignored.
    pub fn from_request(
        peer: SocketAddr,
        is_tls: bool,
        headers: &ForwardedHeaders<'_>,
        proxies: &[IpNet],
    ) -> Self {
        let peer = peer.ip().to_canonical();
        if !is_trusted_proxy(proxies, peer) {
            return Self { address: peer, is_tls };
        }
        // Each proxy appends its peer: the last address that is not a trusted proxy is the client.
        // Some proxies add a line instead of extending one; the last line is the newest.
        let hops = headers.forwarded_for.iter().rev().flat_map(|line| line.rsplit(','));
        let mut client = None;
        for hop in hops.map_while(|hop| hop.trim().parse::<IpAddr>().ok()) {
            client = Some(hop.to_canonical());
            if !is_trusted_proxy(proxies, hop) {
                break;
            }
        }
        let is_tls =
            is_tls || headers.forwarded_proto.is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        Self { address: client.unwrap_or(peer), is_tls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_address_requires_trusted_proxy() {
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        for (peer, forwarded, want) in [
            ("192.0.2.1:1", None, "192.0.2.1"),
            ("192.0.2.1:1", Some("203.0.113.9"), "192.0.2.1"),
            ("10.0.0.1:1", Some("203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("1.1.1.1, 203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("1.1.1.1, 203.0.113.9, 10.0.0.2"), "203.0.113.9"),
            ("10.0.0.1:1", Some("nonsense, 203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("203.0.113.9, nonsense"), "10.0.0.1"),
            ("10.0.0.1:1", Some("1.1.1.1|203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("203.0.113.9|10.0.0.3, 10.0.0.2"), "203.0.113.9"),
            ("10.0.0.1:1", None, "10.0.0.1"),
            ("[::ffff:10.0.0.1]:1", Some("2001:db8::7"), "2001:db8::7"),
        ] {
            let forwarded_for = forwarded.into_iter().flat_map(|lines: &str| lines.split('|')).collect();
            let headers = ForwardedHeaders { forwarded_for, forwarded_proto: None };
            let client = ClientAddr::from_request(peer.parse().unwrap(), false, &headers, &proxies);
            assert_eq!(client.address, want.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn https_requires_trusted_proxy() {
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let headers = ForwardedHeaders { forwarded_proto: Some("HTTPS"), ..ForwardedHeaders::default() };
        assert!(ClientAddr::from_request("10.0.0.1:1".parse().unwrap(), false, &headers, &proxies).is_tls);
        assert!(!ClientAddr::from_request("192.0.2.1:1".parse().unwrap(), false, &headers, &proxies).is_tls);
        assert!(ClientAddr::from_request("192.0.2.1:1".parse().unwrap(), true, &headers, &proxies).is_tls);
    }
}
