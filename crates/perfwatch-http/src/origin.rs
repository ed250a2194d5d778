//! Origin of the page that made a request, which protects browser sessions from requests of other sites.

use axum::http::{HeaderMap, header};

/// Origin of the page that made the request. Pages cannot forge the `Origin` header (RFC 6454).
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
    /// Compares the `Origin` header with the host of the request and with the host of the public URL.
    pub fn from_headers(headers: &HeaderMap, host: Option<&str>, public: Option<&str>) -> Self {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let Some(origin) = text(header::ORIGIN) else {
            // Fetch metadata, which pages cannot forge.
            return match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
                Some(b"same-origin") => Self::Same,
                _ => Self::Unknown,
            };
        };
        // Either name of the hub matches: the host of the request or the public URL.
        let is_same = origin.split_once("://").is_some_and(|(_, from)| {
            [host, public].into_iter().flatten().any(|name| from.eq_ignore_ascii_case(name))
        });
        if is_same { Self::Same } else { Self::Cross }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_origin_requests_are_rejected() {
        for (host, origin, want) in [
            ("127.0.0.1:8000", None, Origin::Unknown),
            ("[::1]:8000", Some("http://[::1]:8000"), Origin::Same),
            ("LOCALHOST:8000", Some("http://localhost:8000"), Origin::Same),
            ("hub.example", Some("https://hub.example"), Origin::Same),
            ("10.0.0.9:8000", Some("https://watch.example"), Origin::Same),
            ("127.0.0.1:8000", Some("http://127.0.0.1:9000"), Origin::Cross),
            ("127.0.0.1:8000", Some("https://evil.example"), Origin::Cross),
            ("127.0.0.1:8000", Some("null"), Origin::Cross),
            ("hub.example", Some("https://hub.example.evil.example"), Origin::Cross),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(
                Origin::from_headers(&headers, Some(host), Some("watch.example")),
                want,
                "{host} {origin:?}"
            );
        }
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
        assert_eq!(Origin::from_headers(&headers, None, None), Origin::Same);
    }
}
