//! Origin of the page that made a request, which protects browser sessions from requests of other sites.

use axum::http::{HeaderMap, header};
use std::fmt;
use std::net::Ipv6Addr;

/// Host name and port of a URL or of the `Host` header, normalized for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Lower-case name or address; IPv6 addresses are in brackets.
    pub host: String,
    /// Port, if the text contains one.
    pub port: Option<u16>,
}

impl HostPort {
    /// Parses `watch.example`, `watch.example:8443`, `192.0.2.1:80` or `[2001:db8::1]:443`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let split = text.rfind(':').filter(|at| !text[*at..].contains(']'));
        let (host, port) = match split {
            Some(at) => (&text[..at], Some(parse_port(&text[at + 1..])?)),
            None => (text, None),
        };
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return Some(Self { host: format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port });
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        (!host.is_empty() && host.chars().all(is_name)).then_some(Self { host, port })
    }

    /// Port, or the default port of the scheme.
    fn effective_port(&self, scheme: &str) -> u16 {
        self.port.unwrap_or(default_port(scheme))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Parses digits only, where `str::parse` accepts a sign too.
fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn default_port(scheme: &str) -> u16 {
    if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 }
}

/// Scheme, host and port of a web page (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOrigin {
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port of the page.
    pub host: HostPort,
}

impl PageOrigin {
    /// Parses the beginning of a URL up to the path; `None` for `null` and for other schemes.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let host = HostPort::parse(rest.split(['/', '?', '#']).next()?)?;
        matches!(&*scheme, "http" | "https").then_some(Self { scheme, host })
    }

    /// Whether a host names this origin. A host without a port means the default port of the scheme.
    pub fn has_host(&self, host: &HostPort) -> bool {
        self.host.host == host.host && self.port() == host.effective_port(&self.scheme)
    }

    /// Port, which may be the default port of the scheme.
    pub fn port(&self) -> u16 {
        self.host.effective_port(&self.scheme)
    }

    /// Whether scheme, host and port are equal.
    pub fn is_same(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.has_host(&other.host)
    }
}

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)
    }
}

/// Relation of the page that made a request to the hub. Pages cannot forge the `Origin` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Page of this hub.
    Same,
    /// Not a browser, or a browser that sends no origin.
    Unknown,
    /// Page of another site.
    Cross,
}

impl Origin {
    /// Compares the `Origin` header with the addresses by which the hub is known: that of the request, those that
    /// trusted proxies forward, and the public URL. The scheme counts: a page over plain HTTP can be forged by
    /// anyone on the way, whatever its host.
    pub fn from_headers(headers: &HeaderMap, hub: &[PageOrigin]) -> Self {
        // Fetch metadata: the browser's own comparison of page and URL. Pages cannot set the header, and
        // proxies that change the host do not affect it.
        if headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin") {
            return Self::Same;
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Self::Unknown;
        };
        let origin = origin.to_str().ok().and_then(PageOrigin::parse);
        if origin.is_some_and(|origin| hub.iter().any(|address| origin.is_same(address))) {
            Self::Same
        } else {
            Self::Cross
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(scheme: &str, host: &str, origin: Option<&str>) -> Origin {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let request = HostPort::parse(host).map(|host| PageOrigin { scheme: scheme.to_owned(), host });
        let public_url = PageOrigin::parse("https://watch.example");
        let hub: Vec<PageOrigin> = request.into_iter().chain(public_url).collect();
        Origin::from_headers(&headers, &hub)
    }

    #[test]
    fn origin_is_compared_with_default_ports() {
        for (host, origin) in [
            ("[::1]:8000", "http://[::1]:8000"),
            ("[0:0:0:0:0:0:0:1]:8000", "http://[::1]:8000"),
            ("[2001:DB8::1]", "https://[2001:db8::1]"),
            ("[2001:db8::1]:443", "https://[2001:db8::1]"),
            ("LOCALHOST:8000", "http://localhost:8000"),
            ("hub.example", "https://hub.example"),
            ("hub.example.", "https://hub.example"),
            ("hub.example:443", "https://hub.example"),
            ("hub.example", "https://HUB.example:443"),
            ("hub.example:80", "http://hub.example"),
            ("hub.example", "http://hub.example:80"),
            ("hub.example:8443", "https://hub.example:8443"),
            ("10.0.0.9:8000", "https://watch.example"),
            ("10.0.0.9:8000", "https://watch.example:443"),
        ] {
            let (scheme, _) = origin.split_once("://").unwrap();
            assert_eq!(relation(scheme, host, Some(origin)), Origin::Same, "{host} {origin}");
        }
    }

    #[test]
    fn malformed_hosts_are_rejected() {
        for text in
            ["", "[", "[  .", "[::1", "[]", "[::1]x", "a b", "a:+80", "a:65536", "a:x", "a/b", "..", "ü"]
        {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }

    #[test]
    fn cross_origin_requests_are_rejected() {
        for (host, origin) in [
            ("127.0.0.1:8000", "http://127.0.0.1:9000"),
            ("127.0.0.1:8000", "https://evil.example"),
            ("127.0.0.1:8000", "null"),
            ("127.0.0.1:8000", ""),
            ("hub.example", "https://hub.example.evil.example"),
            ("hub.example", "https://hub.example:8443"),
            ("hub.example:443", "http://hub.example"),
            ("hub.example:80", "https://hub.example"),
            ("hub.example", "ftp://hub.example"),
            ("hub.example", "https://hub.example:"),
            ("hub.example", "https://user@hub.example"),
            ("[::1]:8000", "http://[::2]:8000"),
            ("", "https://evil.example"),
        ] {
            for scheme in ["http", "https"] {
                assert_eq!(relation(scheme, host, Some(origin)), Origin::Cross, "{scheme} {host} {origin}");
            }
        }
        assert_eq!(relation("http", "127.0.0.1:8000", None), Origin::Unknown);
    }

    /// L10: the scheme of the page counts, not only its host and port.
    #[test]
    fn pages_with_another_scheme_are_of_another_origin() {
        for (scheme, host, origin) in [
            ("https", "hub.example:8443", "http://hub.example:8443"),
            ("https", "hub.example", "http://hub.example"),
            ("https", "hub.example:443", "http://hub.example:443"),
            ("https", "[::1]:8000", "http://[::1]:8000"),
            ("http", "hub.example:8000", "https://hub.example:8000"),
            ("http", "hub.example", "https://hub.example"),
            ("http", "10.0.0.9:8000", "http://watch.example"),
            ("http", "10.0.0.9:8000", "http://watch.example:443"),
        ] {
            assert_eq!(relation(scheme, host, Some(origin)), Origin::Cross, "{scheme} {host} {origin}");
        }
    }

    #[test]
    fn fetch_metadata_overrides_a_changed_host() {
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
        assert_eq!(Origin::from_headers(&headers, &[]), Origin::Same);
        headers.insert(header::ORIGIN, "https://watch.example:8443".parse().unwrap());
        assert_eq!(Origin::from_headers(&headers, &[]), Origin::Same);
        headers.insert("sec-fetch-site", "same-site".parse().unwrap());
        assert_eq!(Origin::from_headers(&headers, &[]), Origin::Cross);
    }
}
