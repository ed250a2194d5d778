//! The API document: made of the handlers' own descriptions, finished here with what is the same
//! everywhere (errors, who may), written to `openapi/` by a test, shown at `/api/docs`.

pub(crate) mod shapes;

use crate::auth::access::{Access, ROUTES};
use axum::Json;
use axum::http::{Method, StatusCode};
use std::sync::LazyLock;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, Response, ResponseBuilder};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "PerfWatch", description = "Every Linux server you run, to the second. Errors are one envelope; \
        their codes stay. Times are milliseconds since 1970.", license(name = "MIT OR Apache-2.0")),
    components(schemas(
        shapes::ErrorBody, shapes::LiveMessage, shapes::BackfillEntry, shapes::Column, shapes::TickEntry,
        shapes::ProcessRow, crate::live::ClientMessage
    )),
    tags(
        (name = "live", description = "The last five minutes, as they come"),
        (name = "hosts", description = "What is watched, and what was"),
        (name = "ingest", description = "The way in"),
        (name = "auth", description = "In and out"),
        (name = "account", description = "One's own account"),
        (name = "tokens", description = "For scripts"),
        (name = "users", description = "Who may enter"),
        (name = "agents", description = "What sends"),
        (name = "audit", description = "Who changed what"),
        (name = "hub", description = "The hub itself"),
    )
)]
struct Base;

/// What stands in the document beside the routes.
pub(crate) fn base() -> OpenApi {
    Base::openapi()
}

static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| finished(crate::router::routes().into_openapi()));

/// The whole document.
pub(crate) fn document() -> &'static OpenApi {
    &DOCUMENT
}

/// This document
#[utoipa::path(get, path = "/api/openapi.json", tag = "hub", responses((status = 200, body = Object)))]
pub(crate) async fn serve() -> Json<&'static OpenApi> {
    Json(document())
}

/// Answers that every route may give, by who may use it.
fn usual(access: Access, item: &str) -> Vec<(StatusCode, &'static str)> {
    let mut usual = vec![
        (StatusCode::BAD_REQUEST, "The request can't be understood"),
        (StatusCode::TOO_MANY_REQUESTS, "Too often; Retry-After tells when to come again"),
        (StatusCode::SERVICE_UNAVAILABLE, "Not now; Retry-After tells when"),
        (StatusCode::REQUEST_TIMEOUT, "The request took too long to come in"),
        (StatusCode::INTERNAL_SERVER_ERROR, "The hub made a mistake"),
        // From another web page, or a cookie without a page.
        (StatusCode::FORBIDDEN, "Not by this role, or from this page"),
    ];
    if access != Access::Open {
        usual.push((StatusCode::UNAUTHORIZED, "Nobody we know"));
    }
    if item.contains('{') {
        usual.push((StatusCode::NOT_FOUND, "There is none"));
    }
    usual
}

fn error(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}

fn operations(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
    .collect()
}

fn finish(path: &str, method: &Method, operation: &mut Operation) {
    let access = ROUTES.iter().find(|(m, p, _)| *m == method.as_str() && *p == path);
    let access = access.map_or(Access::Open, |(.., access)| *access);
    for (status, description) in usual(access, path) {
        let usual = || error(description).into();
        operation.responses.responses.entry(status.as_str().to_owned()).or_insert_with(usual);
    }
    if operation.request_body.is_some() {
        for (status, description) in [
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another type"),
        ] {
            operation.responses.responses.insert(status.as_str().to_owned(), error(description).into());
        }
    }
    // Those that were named without a body are errors of the envelope too.
    for (status, response) in &mut operation.responses.responses {
        if let utoipa::openapi::RefOr::T(response) = response
            && status.as_str() >= "400"
            && response.content.is_empty()
        {
            let description = match response.description.as_str() {
                "" => StatusCode::from_bytes(status.as_bytes()).ok().and_then(|s| s.canonical_reason()),
                known => Some(known),
            };
            *response = error(description.unwrap_or_default());
        }
    }
    let told = match access {
        Access::Open => "Open to everyone.".to_owned(),
        Access::Known => "For everyone who is known.".to_owned(),
        Access::Person => "For people who logged in, not for tokens.".to_owned(),
        Access::From(role) => format!("From the role {} on.", role.name()),
        Access::Sender => "For agents, and tokens with the scope ingest.".to_owned(),
    };
    let described = operation.description.take().map_or(told.clone(), |text| format!("{text}\n\n{told}"));
    operation.description = Some(described);
    if access != Access::Open {
        operation.security = Some(
            ["session", "bearer"].map(|name| SecurityRequirement::new(name, Vec::<String>::new())).into(),
        );
    }
}

fn finished(mut document: OpenApi) -> OpenApi {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            finish(path, &method, operation);
        }
    }
    let components = document.components.get_or_insert_default();
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(crate::auth::identity::COOKIE)));
    components.add_security_scheme("session", cookie);
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    components.add_security_scheme("bearer", bearer);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table and the document name the same routes, but for those of the document's own pages.
    #[test]
    fn every_route_is_in_the_table_and_the_other_way_round() {
        let mut document = document().clone();
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, item) in &mut document.paths.paths {
            for (method, _) in operations(item) {
                described.push((method.to_string(), path.clone()));
            }
        }
        for (method, path) in &described {
            assert!(
                ROUTES.iter().any(|(m, p, _)| m == method && p == path),
                "{method} {path}: not in the table"
            );
        }
        for (method, path, _) in ROUTES.iter().filter(|(_, path, _)| !path.starts_with("/api/docs")) {
            let there = described.iter().any(|(m, p)| m == method && p == path);
            assert!(there, "{method} {path}: not in the document");
        }
    }

    /// `UPDATE_DOCS=1 cargo test -p perfwatch-hub openapi` writes it.
    #[test]
    fn the_document_is_the_one_in_the_repository() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/perfwatch-v1.json");
        let now = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == now, "openapi/perfwatch-v1.json is out of date: make docs");
    }
}
