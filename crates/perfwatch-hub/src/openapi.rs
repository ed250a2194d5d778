//! OpenAPI document: finishes the document of the router with common errors, required access and security
//! schemes. A test writes it to `openapi/`; `/api/docs` shows it.

use axum::http::{Method, StatusCode};
use perfwatch_auth::access::{Accepts, Access, ROUTES};
use perfwatch_http::schemas;
use serde_json::Value;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "PerfWatch",
        description = "PerfWatch API. Errors share one envelope; error codes are stable. \
            Times are milliseconds since 1970.",
        license(name = "MIT OR Apache-2.0"),
    ),
    components(schemas(
        schemas::ErrorBody, schemas::LiveMessage, schemas::HostBackfill, schemas::Column, schemas::TickEntry,
        schemas::ProcessRow, perfwatch_live::ClientMessage
    )),
    tags(
        (name = "live", description = "Recent and live snapshots"),
        (name = "overview", description = "All hosts at once"),
        (name = "hosts", description = "Hosts and their history"),
        (name = "query", description = "Queries over many hosts and saved views"),
        (name = "status", description = "Public status pages"),
        (name = "capsules", description = "Incident capsules"),
        (name = "incidents", description = "Incidents and alerts"),
        (name = "rules", description = "Alert rules"),
        (name = "servers", description = "Agentless hosts (SSH)"),
        (name = "queue", description = "Collection queue"),
        (name = "silences", description = "Silences and maintenance windows"),
        (name = "channels", description = "Notification channels and notifications"),
        (name = "ingest", description = "Ingestion"),
        (name = "auth", description = "Authentication"),
        (name = "account", description = "Your account"),
        (name = "tokens", description = "API tokens"),
        (name = "users", description = "Users"),
        (name = "agents", description = "Agents and enrollment"),
        (name = "audit", description = "Audit log"),
        (name = "settings", description = "Settings of the hub"),
        (name = "hub", description = "Hub health and metrics"),
    )
)]
struct Base;

/// Document without routes: title, tags and additional schemas.
pub(crate) fn base() -> OpenApi {
    Base::openapi()
}

/// Finishes the document that the router generated.
pub(crate) fn add_common_parts(document: OpenApi) -> Value {
    let mut document = serde_json::to_value(finish_document(document)).unwrap_or_default();
    mark_response_fields_required(&mut document);
    document
}

/// Errors that any route with this access, path and body may return.
fn common_errors(access: Access, path: &str, has_body: bool) -> Vec<StatusCode> {
    let mut errors = vec![
        StatusCode::BAD_REQUEST,
        // Also returned to public routes: cross-origin requests.
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    errors.extend((access != Access::Public).then_some(StatusCode::UNAUTHORIZED));
    errors.extend(path.contains('{').then_some(StatusCode::NOT_FOUND));
    if has_body {
        errors.extend([StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNSUPPORTED_MEDIA_TYPE]);
    }
    errors
}

/// Descriptions of error responses by status.
const ERRORS: &[(StatusCode, &str)] = &[
    (StatusCode::BAD_REQUEST, "Invalid request"),
    (StatusCode::UNAUTHORIZED, "Missing or expired credentials"),
    (StatusCode::FORBIDDEN, "Role or origin not allowed"),
    (StatusCode::NOT_FOUND, "Not found, or not visible to the caller"),
    (StatusCode::REQUEST_TIMEOUT, "Request timeout"),
    (StatusCode::CONFLICT, "Conflict with the current state"),
    (StatusCode::PAYLOAD_TOO_LARGE, "Body too large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported content type"),
    (StatusCode::UNPROCESSABLE_ENTITY, "Validation failed"),
    (StatusCode::UPGRADE_REQUIRED, "WebSocket upgrade required"),
    (StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded; see Retry-After"),
    (StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    (StatusCode::BAD_GATEWAY, "Identity provider error"),
    (StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable; see Retry-After"),
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

fn access_description(access: Access, accepts: Accepts) -> String {
    let access = match access {
        Access::Public => "No authentication.".to_owned(),
        Access::Authenticated => "Any authenticated caller.".to_owned(),
        Access::MinRole(role) => format!("Requires the role {} or higher.", role.name()),
        Access::Ingest => "Agents, tokens with the scope `ingest`, and operators.".to_owned(),
    };
    format!("{access}{}", accepts.note())
}

fn finish_operation(path: &str, method: &Method, operation: &mut Operation) {
    let route = ROUTES.iter().find(|(m, p, ..)| *m == method.as_str() && *p == path);
    let (access, accepts) = route.map_or((Access::Public, Accepts::NoCredential), |(.., a, b)| (*a, *b));
    // Names of handlers are not unique; method and path are.
    let path_name = path.trim_start_matches("/api").trim_start_matches("/v1");
    let words = path_name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
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
    // Hosts are selected by id or name, and a name may be that of several hosts.
    let is_host = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(of) if of.name == "host");
    if operation.parameters.iter().flatten().any(is_host) || path.starts_with("/api/v1/hosts/{id}") {
        for status in [StatusCode::NOT_FOUND, StatusCode::CONFLICT] {
            responses.insert(status.as_str().to_owned(), error(status));
        }
    }
    let access_note = access_description(access, accepts);
    operation.description = Some(match operation.description.take() {
        Some(description) => format!("{description}\n\n{access_note}"),
        None => access_note,
    });
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
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("perfwatch_session_PORT")));
    components.add_security_scheme("session", cookie);
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    components.add_security_scheme("bearer", bearer);
    document
}

/// Collects the names of the schemas to which `value` refers.
fn schema_references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(|target| target.as_str()?.rsplit('/').next()) {
                names.push(name.to_owned());
            }
            map.values().for_each(|value| schema_references(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| schema_references(value, names)),
        _ => {}
    }
}

/// Names of the schemas of requests, with the schemas that they contain.
fn request_schemas(document: &Value) -> Vec<String> {
    let mut names = vec!["ClientMessage".to_owned()];
    for operation in document["paths"].as_object().into_iter().flat_map(|paths| paths.values()) {
        let methods = operation.as_object().into_iter().flat_map(|methods| methods.values());
        methods.for_each(|method| schema_references(&method["requestBody"], &mut names));
    }
    let mut index = 0;
    while index < names.len() {
        let mut nested = Vec::new();
        schema_references(&document["components"]["schemas"][names[index].as_str()], &mut nested);
        names.extend(nested.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        index += 1;
    }
    names
}

fn is_nullable(schema: &Value) -> bool {
    let is_null = |value: &Value| value == "null" || value["type"] == "null";
    [&schema["type"], &schema["oneOf"]]
        .iter()
        .any(|alternatives| alternatives.as_array().is_some_and(|list| list.iter().any(is_null)))
}

/// Marks nullable fields of responses as required: responses contain every field, as `null` if it has no
/// value. Requests may omit fields.
fn mark_response_fields_required(document: &mut Value) {
    let requests = request_schemas(document);
    let schemas = document["components"]["schemas"].as_object_mut();
    for (_, schema) in schemas.into_iter().flatten().filter(|(name, _)| !requests.contains(name)) {
        let objects = match schema.get("allOf").is_some() {
            true => schema["allOf"].as_array_mut().into_iter().flatten().collect(),
            false => vec![schema],
        };
        for object in objects {
            let properties = object["properties"].as_object().into_iter().flatten();
            let nullable: Vec<Value> = properties
                .filter(|(_, schema)| is_nullable(schema))
                .map(|(name, _)| name.as_str().into())
                .collect();
            if nullable.is_empty() {
                continue;
            }
            let mut required = object["required"].as_array().cloned().unwrap_or_default();
            let missing: Vec<Value> = nullable.into_iter().filter(|name| !required.contains(name)).collect();
            required.extend(missing);
            object["required"] = required.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::openapi_document;

    /// The access table and the document contain the same routes, except the pages of the API browser.
    #[test]
    fn access_table_matches_routes() {
        let mut documented: Vec<(String, String)> = Vec::new();
        for (path, item) in openapi_document()["paths"].as_object().unwrap() {
            documented
                .extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
        }
        for (method, path) in &documented {
            assert!(
                ROUTES.iter().any(|(m, p, ..)| m == method && p == path),
                "{method} {path}: not in the table"
            );
        }
        for (method, path, ..) in ROUTES.iter().filter(|(_, path, ..)| !path.starts_with("/api/docs")) {
            let is_documented = documented.iter().any(|(m, p)| m == method && p == path);
            assert!(is_documented, "{method} {path}: not in the document");
        }
    }

    /// `UPDATE_DOCS=1 cargo test -p perfwatch-hub openapi` writes the document.
    #[test]
    fn openapi_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/perfwatch-v1.json");
        let generated = serde_json::to_string_pretty(openapi_document()).unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == generated, "openapi/perfwatch-v1.json is out of date: make docs");
    }
}
