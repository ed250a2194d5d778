//! Base path of the public URL: the hub below a path of a reverse proxy, such as `/perfwatch`.
//!
//! The router knows only paths without the base path. Requests arrive with it if the proxy passes the path
//! unchanged, and without it if the proxy strips it; both work.

use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

/// First segments of the hub's own paths. A base path that starts with one would be ambiguous.
pub const RESERVED_SEGMENTS: &[&str] = &[
    "api",
    "appearance.js",
    "assets",
    "download",
    "healthz",
    "icon-192.png",
    "icon-512.png",
    "icon.svg",
    "ingest",
    "install.sh",
    "manifest.webmanifest",
    "metrics",
    "readyz",
];

/// Removes the base path from requests and adds it to redirects. An empty base path changes nothing.
pub fn nest(router: Router, base_path: &str) -> Router {
    if base_path.is_empty() {
        return router;
    }
    let base_path = base_path.to_owned();
    let layer = from_fn(move |request, next| rewrite(base_path.clone(), request, next));
    // A layer of the router itself would run after the routing.
    Router::new().fallback_service(router).layer(layer)
}

async fn rewrite(base_path: String, mut request: Request, next: Next) -> Response {
    if let Some(uri) = strip(request.uri(), &base_path) {
        *request.uri_mut() = uri;
    }
    let mut response = next.run(request).await;
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    if let Some(path) = location.filter(|location| location.starts_with('/') && !location.starts_with("//"))
        && let Ok(location) = HeaderValue::try_from(format!("{base_path}{path}"))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// URI without the base path; `None` if the path is not below it.
fn strip(uri: &Uri, base_path: &str) -> Option<Uri> {
    let rest = uri.path().strip_prefix(base_path)?;
    let path = match rest {
        "" => "/",
        rest if rest.starts_with('/') => rest,
        _ => return None,
    };
    let text = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_path_is_stripped_at_segment_boundary() {
        for (uri, want) in [
            ("/perfwatch", Some("/")),
            ("/perfwatch/", Some("/")),
            ("/perfwatch?x=1", Some("/?x=1")),
            ("/perfwatch/hosts/a?range=1h", Some("/hosts/a?range=1h")),
            ("http://x/perfwatch/hosts", Some("http://x/hosts")),
            ("/perfwatcher/hosts", None),
            ("/hosts/perfwatch", None),
            ("/", None),
        ] {
            let stripped = strip(&uri.parse().unwrap(), "/perfwatch").map(|uri| uri.to_string());
            assert_eq!(stripped.as_deref(), want, "{uri}");
        }
    }
}
