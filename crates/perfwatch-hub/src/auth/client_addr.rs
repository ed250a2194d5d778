//! Where a request comes from: its peer, or what a proxy says that the configuration trusts.
//! Nobody else is believed, or one address could try passwords under many.

use axum::http::{HeaderMap, header};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddr {
    pub(crate) address: IpAddr,
    /// Over TLS all the way to us or to a proxy that we trust.
    pub(crate) is_tls: bool,
}

/// Whose word counts.
pub(crate) fn is_trusted_proxy(proxies: &[IpNet], address: IpAddr) -> bool {
    // IPv4 in IPv6 clothes, as a socket of both families gives it.
    let address = address.to_canonical();
    proxies.iter().any(|net| net.contains(&address))
}

impl ClientAddr {
    pub(crate) fn from_request(peer: SocketAddr, tls: bool, headers: &HeaderMap, proxies: &[IpNet]) -> Self {
        let peer = peer.ip().to_canonical();
        if !is_trusted_proxy(proxies, peer) {
            return Self { address: peer, is_tls: tls };
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // Each proxy adds who asked it at the end: the last one that is none of ours is who asked.
        // Some write a line of their own: the last line is the latest.
        let lines: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or("?")).collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        let mut asked = None;
        for hop in hops.map_while(|hop| hop.trim().parse::<IpAddr>().ok()) {
            asked = Some(hop.to_canonical());
            if !is_trusted_proxy(proxies, hop) {
                break;
            }
        }
        let secure =
            tls || text("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        Self { address: asked.unwrap_or(peer), is_tls: secure }
    }
}

/// The name by which a browser knows us: the host of the request, or what a proxy that we trust
/// says it was.
pub(crate) fn request_host<'a>(
    headers: &'a HeaderMap,
    authority: Option<&'a str>,
    behind_proxy: bool,
) -> Option<&'a str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = text(header::HeaderName::from_static("x-forwarded-host")).filter(|_| behind_proxy);
    forwarded.or_else(|| text(header::HOST)).or(authority)
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
            let mut headers = HeaderMap::new();
            for line in forwarded.into_iter().flat_map(|forwarded: &str| forwarded.split('|')) {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            let client = ClientAddr::from_request(peer.parse().unwrap(), false, &headers, &proxies);
            assert_eq!(client.address, want.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn https_requires_trusted_proxy() {
        let proxies: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", "HTTPS".parse().unwrap());
        assert!(ClientAddr::from_request("10.0.0.1:1".parse().unwrap(), false, &headers, &proxies).is_tls);
        assert!(!ClientAddr::from_request("192.0.2.1:1".parse().unwrap(), false, &headers, &proxies).is_tls);
        assert!(ClientAddr::from_request("192.0.2.1:1".parse().unwrap(), true, &headers, &proxies).is_tls);
    }
}
