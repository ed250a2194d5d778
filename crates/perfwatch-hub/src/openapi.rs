//! The API document: made of the handlers' own descriptions, finished here with what is the same
//! everywhere (errors, who may), written to `openapi/` by a test, shown at `/api/docs`.

pub(crate) mod schemas;

use axum::Json;
use axum::http::{Method, StatusCode};
use perfwatch_auth::access::{Access, ROUTES};
use serde_json::Value;
use std::sync::LazyLock;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "PerfWatch", description = "Every Linux server you run, to the second. Errors are one envelope; \
        their codes stay. Times are milliseconds since 1970.", license(name = "MIT OR Apache-2.0")),
    components(schemas(
        schemas::ErrorBody, schemas::LiveMessage, schemas::HostBackfill, schemas::Column, schemas::TickEntry,
        schemas::ProcessRow, perfwatch_live::ClientMessage
    )),
    tags(
        (name = "live", description = "The last five minutes, as they come"),
        (name = "hosts", description = "What is watched, and what was"),
        (name = "alerts", description = "What is the matter, and what was"),
        (name = "rules", description = "What people ask to be told of"),
        (name = "servers", description = "Hosts without an agent, looked at over SSH"),
        (name = "queue", description = "Looks that are to be made, and were"),
        (name = "silences", description = "When nobody is told"),
        (name = "channels", description = "Who is told, and by which way"),
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

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let document = finish_document(crate::router::routes().into_openapi());
    let mut document = serde_json::to_value(document).unwrap_or_default();
    mark_response_fields_required(&mut document);
    document
});

/// The whole document.
pub(crate) fn document() -> &'static Value {
    &DOCUMENT
}

/// OpenAPI document
#[utoipa::path(get, path = "/api/openapi.json", tag = "hub", responses((status = 200, body = Object)))]
pub(crate) async fn serve() -> Json<&'static Value> {
    Json(document())
}

/// Errors that a route may answer with beside its own.
fn common_errors(access: Access, path: &str, has_body: bool) -> Vec<StatusCode> {
    let mut usual = vec![
        StatusCode::BAD_REQUEST,
        // From another web page, or a cookie without a page.
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    usual.extend((access != Access::Public).then_some(StatusCode::UNAUTHORIZED));
    usual.extend(path.contains('{').then_some(StatusCode::NOT_FOUND));
    if has_body {
        usual.extend([StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNSUPPORTED_MEDIA_TYPE]);
    }
    usual
}

/// Every error by its status, described once.
const ERRORS: &[(StatusCode, &str)] = &[
    (StatusCode::BAD_REQUEST, "The request can't be understood"),
    (StatusCode::UNAUTHORIZED, "Nobody we know, or a credential that is not good any more"),
    (StatusCode::FORBIDDEN, "Not by this role, or from this page"),
    (StatusCode::NOT_FOUND, "There is none, or none that one may see"),
    (StatusCode::REQUEST_TIMEOUT, "The request took too long to come in"),
    (StatusCode::CONFLICT, "Not as things stand"),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another type"),
    (StatusCode::UNPROCESSABLE_ENTITY, "Understood, but it can't be"),
    (StatusCode::UPGRADE_REQUIRED, "This connection can't become a WebSocket"),
    (StatusCode::TOO_MANY_REQUESTS, "Too often; Retry-After tells when to come again"),
    (StatusCode::INTERNAL_SERVER_ERROR, "The hub made a mistake"),
    (StatusCode::BAD_GATEWAY, "The login service does not answer as it should"),
    (StatusCode::SERVICE_UNAVAILABLE, "Not now; Retry-After tells when"),
];

fn error(status: StatusCode) -> RefOr<Response> {
    RefOr::Ref(Ref::from_response_name(format!("Error{}", status.as_u16())))
}

fn operations_mut(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
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

fn finish_operation(path: &str, method: &Method, operation: &mut Operation) {
    let access = ROUTES.iter().find(|(m, p, _)| *m == method.as_str() && *p == path);
    let access = access.map_or(Access::Public, |(.., access)| *access);
    // Handlers share names: list, create, remove.
    let plain = path.trim_start_matches("/api").trim_start_matches("/v1");
    let words = plain.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let id: Vec<String> =
        [method.as_str().to_lowercase()].into_iter().chain(words.map(str::to_owned)).collect();
    operation.operation_id = Some(id.join("_"));
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        let Ok(status) = StatusCode::from_bytes(status.as_bytes()) else { continue };
        if status.is_client_error() || status.is_server_error() {
            *response = error(status);
        } else if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            status.canonical_reason().unwrap_or_default().clone_into(&mut response.description);
        }
    }
    for status in common_errors(access, path, operation.request_body.is_some()) {
        responses.insert(status.as_str().to_owned(), error(status));
    }
    let told = match access {
        Access::Public => "Open to everyone.".to_owned(),
        Access::Authenticated => "For everyone who is known.".to_owned(),
        Access::BrowserSession => "For browsers that are logged in, not for tokens.".to_owned(),
        Access::MinRole(role) => format!("From the role {} on.", role.name()),
        Access::Ingest => "For agents, tokens with the scope ingest, and operators.".to_owned(),
    };
    let described = operation.description.take().map_or(told.clone(), |text| format!("{text}\n\n{told}"));
    operation.description = Some(described);
    if access != Access::Public {
        operation.security = Some(
            ["session", "bearer"].map(|name| SecurityRequirement::new(name, Vec::<String>::new())).into(),
        );
    }
}

fn finish_document(mut document: OpenApi) -> OpenApi {
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations_mut(item) {
            finish_operation(path, &method, operation);
        }
    }
    let components = document.components.get_or_insert_default();
    for (status, description) in ERRORS {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(*description).content("application/json", body);
        components.responses.insert(format!("Error{}", status.as_u16()), response.build().into());
    }
    let cookie =
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(crate::http::cookies::SESSION_COOKIE)));
    components.add_security_scheme("session", cookie);
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    components.add_security_scheme("bearer", bearer);
    document
}

/// Names of the schemas that a part of the document refers to.
fn schema_references(part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(|to| to.as_str()?.rsplit('/').next()) {
                found.push(name.to_owned());
            }
            map.values().for_each(|value| schema_references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| schema_references(value, found)),
        _ => {}
    }
}

/// What the hub says holds every member, null or not; only what it is told may leave some out.
fn mark_response_fields_required(document: &mut Value) {
    let mut told = vec!["ClientMessage".to_owned()];
    for operation in document["paths"].as_object().into_iter().flat_map(|paths| paths.values()) {
        let methods = operation.as_object().into_iter().flat_map(|methods| methods.values());
        methods.for_each(|method| schema_references(&method["requestBody"], &mut told));
    }
    let mut at = 0;
    while at < told.len() {
        let mut more = Vec::new();
        schema_references(&document["components"]["schemas"][told[at].as_str()], &mut more);
        told.extend(more.into_iter().filter(|name| !told.contains(name)).collect::<Vec<_>>());
        at += 1;
    }
    let may_be_null = |schema: &Value| {
        let null = |value: &Value| value == "null" || value["type"] == "null";
        [&schema["type"], &schema["oneOf"]]
            .iter()
            .any(|of| of.as_array().is_some_and(|of| of.iter().any(null)))
    };
    let schemas = document["components"]["schemas"].as_object_mut();
    for (_, schema) in schemas.into_iter().flatten().filter(|(name, _)| !told.contains(name)) {
        let parts = match schema.get("allOf").is_some() {
            true => schema["allOf"].as_array_mut().into_iter().flatten().collect(),
            false => vec![schema],
        };
        for part in parts {
            let properties = part["properties"].as_object().into_iter().flatten();
            let there: Vec<Value> = properties
                .filter(|(_, schema)| may_be_null(schema))
                .map(|(name, _)| name.as_str().into())
                .collect();
            if there.is_empty() {
                continue;
            }
            let mut required = part["required"].as_array().cloned().unwrap_or_default();
            required.extend(there.into_iter().filter(|name| !required.contains(name)).collect::<Vec<_>>());
            part["required"] = required.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table and the document name the same routes, but for those of the document's own pages.
    #[test]
    fn access_table_matches_routes() {
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, item) in document()["paths"].as_object().unwrap() {
            described
                .extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
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
    fn openapi_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/perfwatch-v1.json");
        let now = serde_json::to_string_pretty(document()).unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == now, "openapi/perfwatch-v1.json is out of date: make docs");
    }
}
