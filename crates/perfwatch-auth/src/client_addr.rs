//! Client address of a request: the peer, or the address that a trusted proxy forwards. Headers of
//! other peers are ignored, so that a client cannot bypass rate limits with invented addresses.

use crate::forwarded::{ForwardedElement, ForwardedNode, forwarded_elements};
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
    /// Lines of `Forwarded` (RFC 7239), in the order of the request; `?` for a line that is not text.
    pub forwarded: Vec<&'a str>,
}

impl<'a> ForwardedHeaders<'a> {
    /// Nodes of the proxy chain, the newest first. `Forwarded` counts only without `X-Forwarded-For`: most
    /// proxies set the latter and pass the former unchanged from the client.
    fn nodes(&self) -> Vec<&'a str> {
        if self.forwarded_for.is_empty() {
            let elements = self.forwarded.iter().map(|line| forwarded_elements(line));
            let mut nodes: Vec<&str> = elements
                .flatten()
                .map(|element: ForwardedElement<'a>| element.client.unwrap_or("?"))
                .collect();
            nodes.reverse();
            return nodes;
        }
        // Some proxies add a line instead of extending one; the last line is the newest.
        let nodes = self.forwarded_for.iter().rev().flat_map(|line| line.rsplit(','));
        nodes.map(str::trim).filter(|node| !node.is_empty()).collect()
    }

    /// Scheme of the client's request: that of the first proxy.
    fn proto(&self) -> Option<&'a str> {
        let forwarded = || self.forwarded.iter().find_map(|line| forwarded_elements(line).first()?.proto);
        self.forwarded_proto.and_then(|proto| proto.split(',').next()).map(str::trim).or_else(forwarded)
    }
}

/// Client of a request, and the part of the forwarding headers that could not be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedClient<'a> {
    /// Address of the client, or of the proxy that does not name the client.
    pub client_addr: ClientAddr,
    /// Node that is neither an address nor hidden; a trusted proxy sent it.
    pub malformed_node: Option<&'a str>,
}

impl ClientAddr {
    /// Address of the client: the peer, or the last forwarded address that is not a trusted proxy. Headers
    /// of untrusted peers are ignored.
    pub fn from_request<'a>(
        peer: SocketAddr,
        is_tls: bool,
        headers: &ForwardedHeaders<'a>,
        proxies: &[IpNet],
    ) -> ResolvedClient<'a> {
        let mut address = peer.ip().to_canonical();
        let mut malformed_node = None;
        if !is_trusted_proxy(proxies, address) {
            return ResolvedClient { client_addr: Self { address, is_tls }, malformed_node };
        }
        // Each proxy appends its peer: the last address that is not a trusted proxy is the client.
        for node in headers.nodes() {
            match ForwardedNode::parse(node) {
                ForwardedNode::Address(client) => address = client,
                ForwardedNode::Hidden => break,
                ForwardedNode::Malformed => {
                    malformed_node = Some(node);
                    break;
                }
            }
            if !is_trusted_proxy(proxies, address) {
                break;
            }
        }
        let is_https = |proto: &str| ["https", "wss"].iter().any(|tls| proto.eq_ignore_ascii_case(tls));
        let is_tls = is_tls || headers.proto().is_some_and(is_https);
        ResolvedClient { client_addr: Self { address, is_tls }, malformed_node }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Vec<IpNet> {
        vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
    }

    #[test]
    fn client_address_requires_trusted_proxy() {
        for (peer, forwarded, want) in [
            ("192.0.2.1:1", None, "192.0.2.1"),
            ("192.0.2.1:1", Some("203.0.113.9"), "192.0.2.1"),
            ("192.0.2.1:1", Some("nonsense"), "192.0.2.1"),
            ("10.0.0.1:1", Some("203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("203.0.113.7:51234"), "203.0.113.7"),
            ("10.0.0.1:1", Some("[2001:db8::1]:443"), "2001:db8::1"),
            ("10.0.0.1:1", Some("\"[2001:db8::1]\""), "2001:db8::1"),
            ("10.0.0.1:1", Some("1.1.1.1, 203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("1.1.1.1 ,\t203.0.113.9:80 , 10.0.0.2:8080"), "203.0.113.9"),
            ("10.0.0.1:1", Some("203.0.113.9, [::1]:1"), "203.0.113.9"),
            ("10.0.0.1:1", Some("nonsense, 203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("203.0.113.9, nonsense"), "10.0.0.1"),
            ("10.0.0.1:1", Some("nonsense, 10.0.0.2"), "10.0.0.2"),
            ("10.0.0.1:1", Some("203.0.113.9, unknown"), "10.0.0.1"),
            ("10.0.0.1:1", Some("203.0.113.9, , 10.0.0.2,"), "203.0.113.9"),
            ("10.0.0.1:1", Some(""), "10.0.0.1"),
            ("10.0.0.1:1", Some("1.1.1.1|203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1:1", Some("203.0.113.9|10.0.0.3, 10.0.0.2"), "203.0.113.9"),
            ("10.0.0.1:1", None, "10.0.0.1"),
            ("[::ffff:10.0.0.1]:1", Some("2001:db8::7"), "2001:db8::7"),
        ] {
            let forwarded_for = forwarded.into_iter().flat_map(|lines: &str| lines.split('|')).collect();
            let headers = ForwardedHeaders { forwarded_for, ..ForwardedHeaders::default() };
            let client = ClientAddr::from_request(peer.parse().unwrap(), false, &headers, &proxies());
            assert_eq!(client.client_addr.address, want.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
            let is_malformed = peer.contains("10.0.0.1:1")
                && forwarded
                    .is_some_and(|text| text == "203.0.113.9, nonsense" || text == "nonsense, 10.0.0.2");
            assert_eq!(client.malformed_node, is_malformed.then_some("nonsense"), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn forwarded_header_counts_without_x_forwarded_for() {
        let peer = "10.0.0.1:1".parse().unwrap();
        for (forwarded, want, is_tls) in [
            ("for=203.0.113.7", "203.0.113.7", false),
            ("for=\"203.0.113.7:51234\";proto=https", "203.0.113.7", true),
            ("For=\"[2001:db8:cafe::17]:4711\";Proto=HTTPS;by=10.0.0.1", "2001:db8:cafe::17", true),
            ("for=1.1.1.1, for=203.0.113.7;proto=https, for=10.0.0.2;proto=http", "203.0.113.7", false),
            ("for=203.0.113.7;proto=https|for=10.0.0.2;proto=http", "203.0.113.7", true),
            ("for=_hidden", "10.0.0.1", false),
            ("for=unknown, for=10.0.0.2", "10.0.0.2", false),
            ("proto=https", "10.0.0.1", true),
            ("nonsense", "10.0.0.1", false),
        ] {
            let forwarded = forwarded.split('|').collect();
            let mut headers = ForwardedHeaders { forwarded, ..ForwardedHeaders::default() };
            let client = ClientAddr::from_request(peer, false, &headers, &proxies()).client_addr;
            assert_eq!((client.address, client.is_tls), (want.parse().unwrap(), is_tls), "{headers:?}");
            let untrusted =
                ClientAddr::from_request("192.0.2.1:1".parse().unwrap(), false, &headers, &proxies())
                    .client_addr;
            assert_eq!((untrusted.address, untrusted.is_tls), ("192.0.2.1".parse().unwrap(), false));
            headers.forwarded_for = vec!["198.51.100.1"];
            let client = ClientAddr::from_request(peer, false, &headers, &proxies()).client_addr;
            assert_eq!(client.address, "198.51.100.1".parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn https_requires_trusted_proxy() {
        for (peer, is_tls, proto, want) in [
            ("10.0.0.1:1", false, Some("HTTPS"), true),
            ("10.0.0.1:1", false, Some("https, http"), true),
            ("10.0.0.1:1", false, Some("wss"), true),
            ("10.0.0.1:1", false, Some("http"), false),
            ("10.0.0.1:1", false, None, false),
            ("192.0.2.1:1", false, Some("https"), false),
            ("192.0.2.1:1", true, Some("https"), true),
        ] {
            let headers = ForwardedHeaders { forwarded_proto: proto, ..ForwardedHeaders::default() };
            let client = ClientAddr::from_request(peer.parse().unwrap(), is_tls, &headers, &proxies());
            assert_eq!(client.client_addr.is_tls, want, "{peer} {proto:?}");
        }
    }
}
