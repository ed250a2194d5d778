//! At the door, before any handler: where a request comes from, whether another web page made it,
//! who asks, whether they may, and whether they come too often.

use crate::app::App;
use crate::auth::access::{self, Access, Route};
use crate::auth::client::{self, Client};
use crate::auth::identity::{Credential, Identity, identify};
use crate::error::ApiError;
use crate::serve::Transport;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;

/// The one route that takes a token in its address: browsers can't set headers there.
const WITH_QUERY_TOKEN: &str = "/api/ws/metrics";

/// The middleware.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&app, path.as_ref().map(MatchedPath::as_str), &mut request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn admit(app: &App, path: Option<&str>, request: &mut Request) -> Result<(), ApiError> {
    let extensions = request.extensions();
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let peer = peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let tls = extensions.get::<Transport>().is_some_and(|transport| transport.tls);
    let proxies = &app.config.trusted_proxies;
    let client = Client::of(peer, tls, request.headers(), proxies);
    let authority = request.uri().authority().map(Authority::as_str);
    let host = client::host(request.headers(), authority, client::trusted(proxies, peer.ip()));
    let origin = Origin::of(request.headers(), host, app.config.public_host());
    if origin == Origin::Foreign {
        return Err(foreign("requests from other web pages are refused"));
    }
    let site = app.config.site(host, client.secure);
    // Pages and their files are everyone's.
    let Some(path) = path else {
        app.limits.stranger(client.address)?;
        return Ok(());
    };
    let access = match access::of(request.method(), path) {
        Route::Known(access) => access,
        Route::OtherMethod => {
            return Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this route knows no such method",
            ));
        }
        Route::Unknown => {
            tracing::error!(path, "a route that nobody may use; please report it");
            return Err(ApiError::new(StatusCode::FORBIDDEN, "not_allowed", "nobody may use this route"));
        }
    };
    let token = query_token(path, request.uri().query());
    let found = identify(&app.people, request.headers(), token.as_deref());
    let identity = match found {
        Err(error) if access != Access::Open => {
            app.limits.stranger(client.address)?;
            return Err(error);
        }
        found => found.unwrap_or_default(),
    };
    if let Some(identity) = &identity {
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD) || path == WITH_QUERY_TOKEN;
        if matches!(identity.credential, Credential::Session(_)) && changes && origin == Origin::Unknown {
            return Err(foreign("a request with a cookie that changes something must say where it is from"));
        }
    }
    access::check(access, identity.as_ref())?;
    match &identity {
        Some(identity) if access == Access::Sender => app.limits.sender(identity)?,
        Some(identity) => app.limits.known(identity)?,
        None => app.limits.stranger(client.address)?,
    }
    let extensions = request.extensions_mut();
    extensions.insert(client);
    extensions.insert(site);
    if let Some(identity) = identity {
        extensions.insert(identity);
    }
    Ok(())
}

fn foreign(why: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", why)
}

fn query_token(path: &str, query: Option<&str>) -> Option<String> {
    let pairs = crate::api::params::pairs(query.filter(|_| path == WITH_QUERY_TOKEN)).ok()?;
    pairs.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token)
}

/// Which page made the request: one can't fake `Origin` (RFC 6454).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// One of ours.
    Own,
    /// No browser, or one that does not say.
    Unknown,
    Foreign,
}

impl Origin {
    fn of(headers: &HeaderMap, host: Option<&str>, public: Option<&str>) -> Self {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let Some(origin) = text(header::ORIGIN) else {
            // Fetch metadata: a browser that sends it means it.
            return match headers.get("sec-fetch-site").map(|site| site.as_bytes()) {
                Some(b"same-origin") => Self::Own,
                _ => Self::Unknown,
            };
        };
        // The page and the hub are one, whatever name of it the browser used.
        let ours = origin.split_once("://").is_some_and(|(_, from)| {
            [host, public].into_iter().flatten().any(|name| from.eq_ignore_ascii_case(name))
        });
        if ours { Self::Own } else { Self::Foreign }
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(access::login_needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages() {
        for (host, origin, want) in [
            ("127.0.0.1:8000", None, Origin::Unknown),
            ("[::1]:8000", Some("http://[::1]:8000"), Origin::Own),
            ("LOCALHOST:8000", Some("http://localhost:8000"), Origin::Own),
            ("hub.example", Some("https://hub.example"), Origin::Own),
            ("10.0.0.9:8000", Some("https://watch.example"), Origin::Own),
            ("127.0.0.1:8000", Some("http://127.0.0.1:9000"), Origin::Foreign),
            ("127.0.0.1:8000", Some("https://evil.example"), Origin::Foreign),
            ("127.0.0.1:8000", Some("null"), Origin::Foreign),
            ("hub.example", Some("https://hub.example.evil.example"), Origin::Foreign),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(Origin::of(&headers, Some(host), Some("watch.example")), want, "{host} {origin:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
        assert_eq!(Origin::of(&headers, None, None), Origin::Own);
    }
}
