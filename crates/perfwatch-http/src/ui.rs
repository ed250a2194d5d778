//! Dashboard, documentation (`/docs`) and API browser (`/api/docs`), compressed and embedded at build time. Unknown
//! paths return the page, whose router resolves them.

use crate::compression::accepts_encoding;
use crate::error::ApiError;
use crate::shared_json::NO_INDEX;
use axum::Extension;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use flate2::read::GzDecoder;
use rust_embed::{EmbeddedFile, RustEmbed};
use std::io::Read as _;

/// Files of the dashboard. Those that compress are embedded as their compressed copies alone, because hardly a client
/// accepts no compression, and the program is a third smaller than with both.
#[derive(RustEmbed)]
#[folder = "../../web/dist"]
#[exclude = "*.css"]
#[exclude = "*.html"]
#[exclude = "*.js"]
#[exclude = "*.json"]
#[exclude = "*.svg"]
#[allow_missing = true]
struct Dist;

/// Page of a hub that was built without the dashboard.
const STUB: &str = include_str!("ui_stub.html");

/// Element of the page with the base of all its URLs; the hub writes the base.
const BASE_ELEMENT: &str = "<base href=\"/\" />";

/// Page of public status links (`/s/{token}`), a small bundle without the dashboard.
const STATUS_PAGE: &str = "status.html";

/// What the page of a status link may load: files and answers of the hub.
const STATUS_PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

/// Viewer of capsules in a single file with inline scripts, which the policy of the hub forbids: it is downloaded.
const CAPSULE_VIEWER: &str = "capsule-viewer.html";

/// What an asset may load if it is opened as a document. Pages with assets have policies of their own; a page has up to
/// fifty assets, whose headers a first load transfers uncompressed.
const ASSET_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Base path of the public URL; `None` without a public URL.
#[derive(Debug, Clone)]
pub struct PageBase(pub Option<String>);

impl PageBase {
    /// Base of the page's URLs. Without a public URL it is relative to the request's path, so that a proxy
    /// may strip a prefix which the hub does not know.
    fn href(&self, path: &str) -> String {
        match &self.0 {
            Some(base_path) => format!("{base_path}/"),
            None => match path.trim_start_matches('/').matches('/').count() {
                0 => "./".to_owned(),
                depth => "../".repeat(depth),
            },
        }
    }
}

/// Fallback of the router: assets, pages, and errors for unknown routes.
pub async fn serve(
    Extension(base): Extension<PageBase>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let path = uri.path().trim_start_matches('/');
    let is_api_browser = path == "api/docs" || path.starts_with("api/docs/");
    if (path.starts_with("api/") && !is_api_browser) || path.starts_with("ingest/") {
        return ApiError::not_found(format!("{method} /{path} not found")).into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return ApiError::method_not_allowed().into_response();
    }
    if path == "docs" || path == "api/docs" {
        // Links in the pages are relative; the address of the redirect too, because a proxy may strip a path.
        return (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "docs/")]).into_response();
    }
    let path = match path {
        "docs/" => "docs/index.html",
        "api/docs/" => "api-docs/index.html",
        path => path,
    };
    let api_browser_file = path.strip_prefix("api/docs/").map(|file| format!("api-docs/{file}"));
    let path = api_browser_file.as_deref().unwrap_or(path);
    if path.strip_prefix("s/").is_some_and(|token| !token.is_empty() && !token.contains('/')) {
        return status_page(&base.href(uri.path()));
    }
    if let Some(response) = asset(path, &headers) {
        return response;
    }
    let accepts_html = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_none_or(|value| value.contains("html") || value.contains("*/*"));
    let is_file = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    if (is_file && path != "index.html") || !accepts_html {
        return ApiError::not_found(format!("/{path} not found")).into_response();
    }
    page(&base.href(uri.path()))
}

/// The page with its base. Deep links load it from any path.
fn page(base_href: &str) -> Response {
    html_file("index.html", base_href)
}

/// The page of a status link, the same for each token: only its request to the API shows whether the link is valid.
fn status_page(base_href: &str) -> Response {
    let mut response = html_file(STATUS_PAGE, base_href);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(STATUS_PAGE_POLICY));
    headers.insert(NO_INDEX.0, NO_INDEX.1);
    response
}

/// A page of the dashboard with its base.
fn html_file(name: &str, base_href: &str) -> Response {
    let Some(file) = decompressed(name) else { return Html(STUB).into_response() };
    let html =
        String::from_utf8_lossy(&file.data).replace(BASE_ELEMENT, &format!("<base href=\"{base_href}\" />"));
    let headers = [(header::CONTENT_TYPE, mime_of(name)), (header::CACHE_CONTROL, "no-cache")];
    (headers, html).into_response()
}

fn asset(path: &str, headers: &HeaderMap) -> Option<Response> {
    // Compressed copies are served only by content negotiation; the page needs its base.
    if path.is_empty()
        || path == "index.html"
        || path == STATUS_PAGE
        || path.ends_with(".br")
        || path.ends_with(".gz")
    {
        return None;
    }
    let (file, encoding) = [("br", "br"), ("gzip", "gz")]
        .into_iter()
        .filter(|(encoding, _)| accepts_encoding(headers, encoding))
        .find_map(|(encoding, extension)| Some((Dist::get(&format!("{path}.{extension}"))?, Some(encoding))))
        .or_else(|| Some((Dist::get(path)?, None)))
        .or_else(|| Some((decompressed(path)?, None)))?;
    Some(respond(path, headers, file, encoding))
}

/// File from its gzip copy, with the metadata of the copy.
fn decompressed(path: &str) -> Option<EmbeddedFile> {
    let copy = Dist::get(&format!("{path}.gz"))?;
    Some(EmbeddedFile { data: decompress(&copy.data)?.into(), ..copy })
}

/// Decompresses gzip; `None` if it is damaged.
fn decompress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut content).ok()?;
    Some(content)
}

fn respond(path: &str, headers: &HeaderMap, file: EmbeddedFile, encoding: Option<&'static str>) -> Response {
    let hash: String = file.metadata.sha256_hash()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    // A file and its gzip copy have the same metadata, and differ (RFC 9110, 8.8.3.3).
    let etag = format!("\"{hash}{}\"", encoding.unwrap_or_default());
    // Names of assets contain a content hash; the page must be revalidated.
    let is_asset = path.starts_with("assets/");
    let cache = if is_asset { "public, max-age=31536000, immutable" } else { "no-cache" };
    let unchanged =
        headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut response =
        if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { file.data.into_response() };
    let response_headers = response.headers_mut();
    response_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime_of(path)));
    response_headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response_headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response_headers.insert(header::ETAG, etag);
    }
    if path == CAPSULE_VIEWER {
        let disposition = HeaderValue::from_static("attachment; filename=\"capsule-viewer.html\"");
        response_headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    if is_asset {
        response_headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(ASSET_POLICY));
    }
    if let Some(encoding) = encoding {
        response_headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

fn mime_of(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "json" | "webmanifest" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn status_links_are_served_with_a_strict_policy() {
        let get = async |path: &str| {
            let uri: Uri = path.parse().unwrap();
            serve(Extension(PageBase(None)), Method::GET, uri, HeaderMap::new()).await
        };
        let link = get("/s/pwp_x").await;
        assert_eq!(link.status(), StatusCode::OK);
        assert_eq!(link.headers()["content-security-policy"], STATUS_PAGE_POLICY);
        assert_eq!(link.headers()["x-robots-tag"], "noindex, nofollow");
        for path in ["/s", "/s/", "/s/a/b", "/settings"] {
            assert!(!get(path).await.headers().contains_key("x-robots-tag"), "{path}");
        }
    }

    #[test]
    fn gzip_copies_are_decompressed() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, b"body { margin: 0 }").unwrap();
        let bytes = encoder.finish().unwrap();
        assert_eq!(decompress(&bytes).unwrap(), b"body { margin: 0 }");
        assert!(decompress(&bytes[..12]).is_none());
    }

    #[test]
    fn page_base_is_absolute_with_a_public_url() {
        for (base_path, path, want) in [
            (Some(""), "/hosts/a", "/"),
            (Some("/perfwatch"), "/hosts/a", "/perfwatch/"),
            (None, "/", "./"),
            (None, "/login", "./"),
            (None, "/hosts/a", "../"),
            (None, "/alerts/rules/x", "../../"),
        ] {
            assert_eq!(PageBase(base_path.map(str::to_owned)).href(path), want, "{base_path:?} {path}");
        }
    }
}
