//! Addresses by which browsers and proxies reach the hub: public URL, base path, cookies, and the address of
//! each request.

use crate::cookies::HubCookies;
use crate::first_seen::{FirstSeen, printable};
use crate::origin::{HostPort, PageOrigin};
use crate::ui::PageBase;
use axum::http::header::AsHeaderName;
use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use perfwatch_auth::ClientAddr;
use perfwatch_auth::client_addr::{ForwardedHeaders, is_trusted_proxy};
use perfwatch_auth::forwarded::forwarded_elements;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

/// Headers that only proxies send.
const FORWARDING_HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    header::FORWARDED,
];

/// URL of the hub as the caller reaches it, for links and commands.
#[derive(Debug, Clone)]
pub struct BaseUrl(pub String);

/// Parts of the public URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// Scheme, host and port.
    pub origin: PageOrigin,
    /// Path without a slash at its end; empty for the root.
    pub base_path: String,
}

impl PublicUrl {
    /// Parses an HTTP URL with an optional path of plain segments.
    pub fn parse(url: &str) -> Option<Self> {
        let origin = PageOrigin::parse(url)?;
        let (_, rest) = url.split_once("://")?;
        let base_path = rest.find('/').map_or("", |at| rest[at..].trim_end_matches('/')).to_owned();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_segment =
            |text: &str| !text.is_empty() && text != "." && text != ".." && text.chars().all(is_plain);
        let is_valid = base_path.is_empty() || base_path[1..].split('/').all(is_segment);
        (is_valid && !rest.contains(['?', '#'])).then_some(Self { origin, base_path })
    }
}

impl std::fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.origin, self.base_path)
    }
}

/// Addresses of the hub, and conditions of requests that are logged once.
pub struct PublicAddress {
    /// Parts of `hub.public_url`.
    pub public_url: Option<PublicUrl>,
    /// Base of the dashboard's URLs.
    pub page_base: PageBase,
    /// Names and path of the cookies.
    pub cookies: HubCookies,
    /// Base URL of links in notifications.
    pub notification_base_url: String,
    /// Origins of rejected requests.
    rejected_origins: FirstSeen,
    malformed_nodes: FirstSeen,
    untrusted_proxies: FirstSeen,
    /// Whether the newest WebSocket handshake arrived without its `Upgrade` header.
    is_upgrade_missing: AtomicBool,
}

/// Address of one request as the hub sees it.
#[derive(Debug, Clone)]
pub struct RequestAddress {
    /// Address of the client, and whether its connection is encrypted. It counts as encrypted if the public URL
    /// is `https`: the hub is reached only through it, whatever a proxy forwards.
    pub client_addr: ClientAddr,
    /// Addresses of pages of the hub for this client.
    pub origins: Vec<PageOrigin>,
    /// Hosts by which the request names the hub, the most specific first; the public URL is the last.
    pub hosts: Vec<HostPort>,
    /// Peer that sends forwarding headers without being trusted.
    pub untrusted_proxy: Option<IpAddr>,
    /// Whether the browser itself reports that page and hub have one origin.
    pub has_fetch_metadata: bool,
}

impl RequestAddress {
    /// Returns whether the connection of the client itself is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.origins.first().is_some_and(|origin| origin.scheme == "https")
    }
}

impl PublicAddress {
    /// Addresses of a hub with this URL and port of its listener.
    pub fn new(public_url: Option<PublicUrl>, local_url: &str, local_port: u16) -> Self {
        let base_path = public_url.as_ref().map(|url| url.base_path.clone());
        let public_port = public_url.as_ref().map(|url| url.origin.port());
        Self {
            cookies: HubCookies::new(public_port, local_port, base_path.as_deref().unwrap_or_default()),
            page_base: PageBase(base_path),
            notification_base_url: public_url
                .as_ref()
                .map_or_else(|| local_url.to_owned(), ToString::to_string),
            public_url,
            rejected_origins: FirstSeen::default(),
            malformed_nodes: FirstSeen::default(),
            untrusted_proxies: FirstSeen::default(),
            is_upgrade_missing: AtomicBool::new(false),
        }
    }

    /// Path of the public URL without a slash at its end; empty for the root.
    pub fn base_path(&self) -> &str {
        self.page_base.0.as_deref().unwrap_or_default()
    }

    /// URL of the hub for the sender of a request.
    pub fn base_url(&self, request: &RequestAddress) -> String {
        if let Some(public_url) = &self.public_url {
            return public_url.to_string();
        }
        let scheme = if request.client_addr.is_tls { "https" } else { "http" };
        match request.hosts.first() {
            Some(host) => format!("{scheme}://{host}"),
            None => self.notification_base_url.clone(),
        }
    }

    /// Reads the address of a request. Forwarding headers count only from trusted proxies.
    pub fn read_request(
        &self,
        (peer, is_tls): (SocketAddr, bool),
        headers: &HeaderMap,
        authority: Option<&str>,
        proxies: &[IpNet],
    ) -> RequestAddress {
        let is_trusted = is_trusted_proxy(proxies, peer.ip());
        let forwarded = forwarded_headers(headers);
        let resolved = ClientAddr::from_request(peer, is_tls, &forwarded, proxies);
        if let Some(node) = resolved.malformed_node
            && self.malformed_nodes.is_first(node)
        {
            tracing::warn!(proxy = %peer.ip(), value = printable(node), "ignored a malformed forwarded address");
        }
        let has_forwarding_headers = FORWARDING_HEADERS.iter().any(|name| headers.contains_key(name));
        let untrusted_proxy = (has_forwarding_headers && !is_trusted).then(|| peer.ip().to_canonical());
        if let Some(address) = untrusted_proxy
            && self.untrusted_proxies.is_first(&address.to_string())
        {
            tracing::warn!(
                proxy = %address,
                "ignored forwarding headers; add the proxy to hub.trusted_proxies if it is yours"
            );
        }
        let mut hosts = if is_trusted { forwarded_hosts(headers) } else { Vec::new() };
        let host = text(headers, header::HOST).or(authority);
        hosts.extend(host.and_then(HostPort::parse));
        if is_trusted {
            apply_forwarded_port(headers, &mut hosts, resolved.client_addr.is_tls);
        }
        let public = self.public_url.as_ref().map(|url| url.origin.clone());
        let (is_encrypted, https) = (
            resolved.client_addr.is_tls,
            public.as_ref().filter(|public| public.scheme == "https").map(|public| public.host.host.clone()),
        );
        // A page over plain HTTP of a host that is reached by HTTPS can be forged by anyone on the way.
        let page_of = |host: &HostPort| {
            let is_https = is_encrypted || host.port == Some(443) || https.as_ref() == Some(&host.host);
            let scheme = if is_https { "https" } else { "http" };
            PageOrigin { scheme: scheme.to_owned(), host: host.clone() }
        };
        let origins = hosts.iter().map(page_of).chain(public.clone()).collect();
        let is_tls = is_encrypted || https.is_some();
        hosts.extend(public.map(|public| public.host));
        let client_addr = ClientAddr { is_tls, ..resolved.client_addr };
        let has_fetch_metadata = headers.contains_key("sec-fetch-site");
        RequestAddress { client_addr, origins, hosts, untrusted_proxy, has_fetch_metadata }
    }

    /// Logs a request of a page with another origin, once per origin. Behind a proxy that changes the host, the
    /// page may be the dashboard itself: the returned message names both addresses and the fix.
    pub fn reject_origin(&self, headers: &HeaderMap, request: &RequestAddress) -> String {
        let origin = printable(text(headers, header::ORIGIN).unwrap_or("?"));
        let expected: Vec<String> = request.origins.iter().map(ToString::to_string).collect();
        let expected = if expected.is_empty() { "no host".to_owned() } else { expected.join(" or ") };
        if self.rejected_origins.is_first(&origin) {
            tracing::warn!(
                origin,
                expected,
                "rejected a cross-origin request; if the origin is the address of this hub, set hub.public_url, or \
                 trust the proxy and its X-Forwarded-Proto and X-Forwarded-Host"
            );
        }
        let ignored = match request.untrusted_proxy {
            Some(_) => " (X-Forwarded headers are ignored: the proxy is not in hub.trusted_proxies)",
            None => "",
        };
        format!(
            "cross-origin request from {origin}; expected {expected}{ignored}. If {origin} is the address of \
             this hub, set hub.public_url, or pass X-Forwarded-Proto and X-Forwarded-Host from a proxy in \
             hub.trusted_proxies"
        )
    }

    /// Notes whether a WebSocket handshake kept its `Upgrade` header on the way through proxies.
    pub fn record_handshake(&self, headers: &HeaderMap) {
        // Proxies remove `Upgrade`, which is a header of one hop, but pass the other headers.
        if headers.contains_key(header::SEC_WEBSOCKET_KEY) {
            let is_missing = !headers.contains_key(header::UPGRADE);
            self.is_upgrade_missing.store(is_missing, Ordering::Relaxed);
        }
    }

    /// Whether a proxy removed the `Upgrade` header of the newest WebSocket handshake.
    pub fn is_upgrade_missing(&self) -> bool {
        self.is_upgrade_missing.load(Ordering::Relaxed)
    }
}

/// Value of a header, if it is text.
pub fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn forwarded_headers(headers: &HeaderMap) -> ForwardedHeaders<'_> {
    let lines =
        |name: HeaderName| headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?")).collect();
    ForwardedHeaders {
        forwarded_for: lines(FORWARDING_HEADERS[0].clone()),
        forwarded_proto: text(headers, "x-forwarded-proto"),
        forwarded: lines(header::FORWARDED),
    }
}

/// Hosts of the headers `X-Forwarded-Host` and `Forwarded`; the first proxy is the nearest to the browser.
fn forwarded_hosts(headers: &HeaderMap) -> Vec<HostPort> {
    let lines = |name: HeaderName| headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    let names = lines(FORWARDING_HEADERS[2].clone()).flat_map(|line| line.split(','));
    let elements = lines(header::FORWARDED).flat_map(forwarded_elements);
    names.chain(elements.filter_map(|element| element.host)).filter_map(HostPort::parse).collect()
}

/// Adds `X-Forwarded-Port` to the first host, if that has no port and the port is not the default.
fn apply_forwarded_port(headers: &HeaderMap, hosts: &mut Vec<HostPort>, is_tls: bool) {
    let port =
        text(headers, "x-forwarded-port").and_then(|ports| ports.split(',').next()?.trim().parse().ok());
    let default_port = if is_tls { 443 } else { 80 };
    if let (Some(port), Some(first)) = (port.filter(|port| *port != default_port), hosts.first())
        && first.port.is_none()
    {
        let with_port = HostPort { port: Some(port), ..first.clone() };
        hosts.insert(0, with_port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_url(public_url: Option<&str>, peer: &str, headers: &[(&'static str, &str)]) -> String {
        let public_url = public_url.and_then(PublicUrl::parse);
        let address = PublicAddress::new(public_url, "http://127.0.0.1:8000", 8000);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let peer = (peer.parse().unwrap(), false);
        let request = address.read_request(peer, &map, None, &["10.0.0.0/8".parse().unwrap()]);
        address.base_url(&request)
    }

    #[test]
    fn base_url_follows_trusted_proxies() {
        let proxied =
            [("host", "hub:8000"), ("x-forwarded-host", "x.example"), ("x-forwarded-proto", "https")];
        let port = [&proxied[..], &[("x-forwarded-port", "8443")]].concat();
        let default_port = [&proxied[..], &[("x-forwarded-port", "443")]].concat();
        let chain = [("host", "hub:8000"), ("x-forwarded-host", "x.example:8443, inner")];
        let rfc = [("host", "hub:8000"), ("forwarded", "for=1.2.3.4;host=\"x.example:81\";proto=https")];
        for (peer, headers, want) in [
            ("10.0.0.1:1", &proxied[..], "https://x.example"),
            ("10.0.0.1:1", &port, "https://x.example:8443"),
            ("10.0.0.1:1", &default_port, "https://x.example"),
            ("10.0.0.1:1", &chain, "http://x.example:8443"),
            ("10.0.0.1:1", &rfc, "https://x.example:81"),
            ("192.0.2.1:1", &proxied, "http://hub:8000"),
            ("192.0.2.1:1", &rfc, "http://hub:8000"),
            ("192.0.2.1:1", &[("host", "a b")], "http://127.0.0.1:8000"),
            ("192.0.2.1:1", &[], "http://127.0.0.1:8000"),
        ] {
            assert_eq!(base_url(None, peer, headers), want, "{peer} {headers:?}");
            let public_url = base_url(Some("https://watch.example/perfwatch/"), peer, headers);
            assert_eq!(public_url, "https://watch.example/perfwatch");
        }
    }

    #[test]
    fn public_url_may_have_a_path() {
        for (url, want) in [
            ("https://watch.example", Some(("https://watch.example", ""))),
            ("https://Watch.Example/", Some(("https://watch.example", ""))),
            ("https://x/perfwatch", Some(("https://x", "/perfwatch"))),
            ("https://x:8443/perfwatch/", Some(("https://x:8443", "/perfwatch"))),
            ("http://[2001:db8::1]:8000/a/b-c/", Some(("http://[2001:db8::1]:8000", "/a/b-c"))),
            ("watch.example", None),
            ("ftp://watch.example", None),
            ("https://", None),
            ("https://x/a//b", None),
            ("https://x/../b", None),
            ("https://x/a b", None),
            ("https://x/a\"b", None),
            ("https://x/?a", None),
            ("https://x?a", None),
            ("https://user:secret@x", None),
        ] {
            let parsed = PublicUrl::parse(url).map(|url| (url.origin.to_string(), url.base_path));
            assert_eq!(parsed, want.map(|(origin, path)| (origin.to_owned(), path.to_owned())), "{url}");
        }
    }

    /// M10: with an `https` public URL alone, requests count as encrypted whatever a proxy forwards.
    #[test]
    fn https_public_url_makes_every_request_secure() {
        for (public_url, is_tls) in
            [(Some("https://watch.example"), true), (Some("http://watch.example"), false), (None, false)]
        {
            let public_url = public_url.and_then(PublicUrl::parse);
            let address = PublicAddress::new(public_url, "http://127.0.0.1:8000", 8000);
            let headers: HeaderMap =
                [(header::HOST, "127.0.0.1:8000".parse().unwrap())].into_iter().collect();
            let request = address.read_request(("127.0.0.1:1".parse().unwrap(), false), &headers, None, &[]);
            assert_eq!(request.client_addr.is_tls, is_tls);
            let page = |origin: &str| PageOrigin::parse(origin).unwrap();
            let accepts = |origin: &str| request.origins.iter().any(|own| own.is_same(&page(origin)));
            assert!(accepts("http://127.0.0.1:8000"), "the address of this hub without its proxy");
            assert!(!accepts("https://127.0.0.1:8000") && !accepts("http://watch.example:443"));
            let headers: HeaderMap = [(header::HOST, "watch.example".parse().unwrap())].into_iter().collect();
            let request = address.read_request(("127.0.0.1:1".parse().unwrap(), false), &headers, None, &[]);
            let accepts = |origin: &str| request.origins.iter().any(|own| own.is_same(&page(origin)));
            assert_eq!(
                (accepts("http://watch.example"), accepts("https://watch.example")),
                (!is_tls, is_tls)
            );
        }
    }
}
