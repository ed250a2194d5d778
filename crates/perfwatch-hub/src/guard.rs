//! Keeps other web pages out: a page from elsewhere may make a browser send requests to this
//! hub, but it can't fake `Origin`, and by DNS rebinding it can't get a loopback `Host`.

use crate::error::ApiError;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The middleware.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    match check(request.headers(), request.uri().authority().map(axum::http::uri::Authority::as_str)) {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", why).into_response(),
    }
}

fn check(headers: &HeaderMap, authority: Option<&str>) -> Result<(), &'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let Some(host) = text(header::HOST).or(authority) else {
        return Err("the request names no host");
    };
    if !is_loopback(host) {
        return Err("this hub answers to localhost only");
    }
    match text(header::ORIGIN) {
        None => Ok(()),
        // The page and the hub are one, whatever name of this machine the browser used.
        Some(origin) if origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host)) => {
            Ok(())
        }
        Some(_) => Err("requests from other web pages are refused"),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages() {
        for (host, origin, fine) in [
            ("127.0.0.1:8000", None, true),
            ("localhost", None, true),
            ("[::1]:8000", Some("http://[::1]:8000"), true),
            ("LOCALHOST:8000", Some("http://localhost:8000"), true),
            ("127.0.0.1:8000", Some("http://127.0.0.1:8000"), true),
            ("127.0.0.1:8000", Some("http://127.0.0.1:9000"), false),
            ("127.0.0.1:8000", Some("https://evil.example"), false),
            ("127.0.0.1:8000", Some("null"), false),
            ("evil.example:8000", None, false),
            ("127.0.0.1.evil.example", None, false),
            ("", None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(check(&headers, None).is_ok(), fine, "{host} {origin:?}");
        }
        assert!(check(&HeaderMap::new(), None).is_err());
    }
}
