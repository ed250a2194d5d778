//! Access table: which route requires which access. The middleware reads it before any handler, a
//! test walks all routes, and the API document shows it. A route that is missing is denied.

use crate::error::AuthError;
use crate::identity::{Credential, Identity, IngestScope};
use perfwatch_store::accounts::Role;

/// Access that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No authentication required.
    Public,
    /// Any authenticated user or API token with a role.
    Authenticated,
    /// Browser session, for a user's own account. API tokens are rejected, because a leaked token
    /// must not be able to create lasting access.
    BrowserSession,
    /// Minimum role of the identity.
    MinRole(Role),
    /// Right to send snapshots.
    Ingest,
}

use Access::{Authenticated, BrowserSession, Ingest, MinRole, Public};
use Role::{Admin, Operator, Viewer};

/// All routes: method, path as declared, required access.
pub const ROUTES: &[(&str, &str, Access)] = &[
    ("POST", "/ingest/metrics", Ingest),
    ("GET", "/api/metrics/recent", MinRole(Viewer)),
    ("GET", "/api/ws/metrics", MinRole(Viewer)),
    ("GET", "/api/v1/live", MinRole(Viewer)),
    ("GET", "/api/v1/catalog", MinRole(Viewer)),
    ("GET", "/api/v1/hosts", MinRole(Viewer)),
    ("GET", "/api/v1/hosts/{id}", MinRole(Viewer)),
    ("GET", "/api/v1/hosts/{id}/series", MinRole(Viewer)),
    ("GET", "/api/v1/hosts/{id}/snapshot", MinRole(Viewer)),
    ("GET", "/api/v1/hosts/{id}/processes", MinRole(Viewer)),
    ("GET", "/api/v1/hosts/{id}/export", MinRole(Viewer)),
    ("DELETE", "/api/v1/hosts/{id}", MinRole(Operator)),
    ("PUT", "/api/v1/hosts/{id}/tags", MinRole(Operator)),
    ("GET", "/api/v1/incidents", MinRole(Viewer)),
    ("GET", "/api/v1/incidents/history", MinRole(Viewer)),
    ("GET", "/api/v1/incidents/{id}", MinRole(Viewer)),
    ("GET", "/api/v1/hosts/{id}/alerts", MinRole(Viewer)),
    ("POST", "/api/v1/incidents/{id}/ack", MinRole(Operator)),
    ("DELETE", "/api/v1/incidents/{id}/ack", MinRole(Operator)),
    ("POST", "/api/v1/incidents/{id}/comments", MinRole(Operator)),
    ("GET", "/api/v1/rules", MinRole(Viewer)),
    ("POST", "/api/v1/rules", MinRole(Operator)),
    ("POST", "/api/v1/rules/backtest", MinRole(Viewer)),
    ("GET", "/api/v1/rules/export", MinRole(Viewer)),
    ("POST", "/api/v1/rules/import", MinRole(Operator)),
    ("PUT", "/api/v1/rules/{id}", MinRole(Operator)),
    ("DELETE", "/api/v1/rules/{id}", MinRole(Operator)),
    ("GET", "/api/v1/silences", MinRole(Viewer)),
    ("POST", "/api/v1/silences", MinRole(Operator)),
    ("PUT", "/api/v1/silences/{id}", MinRole(Operator)),
    ("DELETE", "/api/v1/silences/{id}", MinRole(Operator)),
    // Channels send data out of the hub and contain credentials of other services.
    ("GET", "/api/v1/channels", MinRole(Operator)),
    ("GET", "/api/v1/channels/kinds", MinRole(Operator)),
    ("POST", "/api/v1/channels", MinRole(Admin)),
    ("POST", "/api/v1/channels/preview", MinRole(Admin)),
    ("POST", "/api/v1/channels/test", MinRole(Admin)),
    ("PUT", "/api/v1/channels/{id}", MinRole(Admin)),
    ("DELETE", "/api/v1/channels/{id}", MinRole(Admin)),
    ("POST", "/api/v1/channels/{id}/test", MinRole(Operator)),
    ("GET", "/api/v1/notifications", MinRole(Operator)),
    ("POST", "/api/v1/notifications/{id}/retry", MinRole(Operator)),
    ("GET", "/api/v1/servers", MinRole(Viewer)),
    ("POST", "/api/v1/servers", MinRole(Operator)),
    ("POST", "/api/v1/servers/test", MinRole(Operator)),
    ("POST", "/api/v1/servers/import", MinRole(Operator)),
    ("GET", "/api/v1/servers/{id}", MinRole(Viewer)),
    ("PUT", "/api/v1/servers/{id}", MinRole(Operator)),
    ("DELETE", "/api/v1/servers/{id}", MinRole(Operator)),
    ("PUT", "/api/v1/servers/{id}/host-key", MinRole(Operator)),
    ("POST", "/api/v1/servers/{id}/test", MinRole(Operator)),
    ("GET", "/api/v1/servers/{id}/collections", MinRole(Viewer)),
    ("POST", "/api/v1/servers/{id}/collect", MinRole(Operator)),
    ("POST", "/api/v1/servers/metrics/collect-all", MinRole(Operator)),
    ("GET", "/api/v1/servers/summary", MinRole(Viewer)),
    ("GET", "/api/v1/servers/metrics/queue/stats", MinRole(Viewer)),
    ("GET", "/api/v1/servers/metrics/queue/jobs", MinRole(Viewer)),
    ("POST", "/api/v1/servers/metrics/queue/pause", MinRole(Operator)),
    ("POST", "/api/v1/servers/metrics/queue/resume", MinRole(Operator)),
    ("POST", "/api/v1/servers/metrics/queue/clean", MinRole(Operator)),
    ("POST", "/api/v1/servers/metrics/queue/jobs/{id}/retry", MinRole(Operator)),
    ("GET", "/api/v1/system", MinRole(Viewer)),
    ("GET", "/metrics", MinRole(Viewer)),
    ("GET", "/healthz", Public),
    ("GET", "/readyz", Public),
    ("GET", "/api/openapi.json", Public),
    ("GET", "/api/docs", Public),
    ("GET", "/api/docs/", Public),
    ("GET", "/api/docs/{*rest}", Public),
    ("GET", "/install.sh", Public),
    ("GET", "/download/{file}", Public),
    ("GET", "/api/v1/proxy-check", Public),
    ("GET", "/api/ws/probe", Public),
    ("GET", "/api/v1/auth/state", Public),
    ("POST", "/api/v1/auth/setup", Public),
    ("POST", "/api/v1/auth/login", Public),
    ("POST", "/api/v1/auth/token", Public),
    ("GET", "/api/v1/auth/oidc/login", Public),
    ("GET", "/api/v1/auth/oidc/callback", Public),
    ("POST", "/api/v1/auth/logout", BrowserSession),
    ("GET", "/api/v1/auth/me", Authenticated),
    ("PUT", "/api/v1/auth/password", BrowserSession),
    ("POST", "/api/v1/auth/totp", BrowserSession),
    ("PUT", "/api/v1/auth/totp", BrowserSession),
    ("DELETE", "/api/v1/auth/totp", BrowserSession),
    ("GET", "/api/v1/auth/sessions", BrowserSession),
    ("DELETE", "/api/v1/auth/sessions", BrowserSession),
    ("GET", "/api/v1/tokens", BrowserSession),
    ("POST", "/api/v1/tokens", BrowserSession),
    ("DELETE", "/api/v1/tokens/{id}", BrowserSession),
    ("GET", "/api/v1/users", MinRole(Admin)),
    ("POST", "/api/v1/users", MinRole(Admin)),
    ("PATCH", "/api/v1/users/{id}", MinRole(Admin)),
    ("DELETE", "/api/v1/users/{id}", MinRole(Admin)),
    ("POST", "/api/v1/agents/enroll", Public),
    ("GET", "/api/v1/agents", MinRole(Operator)),
    ("POST", "/api/v1/agents/{id}/revoke", MinRole(Operator)),
    ("DELETE", "/api/v1/agents/{id}", MinRole(Operator)),
    ("GET", "/api/v1/enrollment-tokens", MinRole(Operator)),
    ("POST", "/api/v1/enrollment-tokens", MinRole(Operator)),
    ("DELETE", "/api/v1/enrollment-tokens/{id}", MinRole(Operator)),
    ("GET", "/api/v1/audit", MinRole(Admin)),
];

/// Result of a look-up in the access table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMatch {
    /// The route exists and requires this access.
    Matched(Access),
    /// The path exists with another method.
    MethodNotAllowed,
    /// The path is not in the table.
    NotFound,
}

/// Looks up a route by its method and its path as declared.
pub fn match_route(method: &str, path: &str) -> RouteMatch {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut result = RouteMatch::NotFound;
    for (route_method, _, access) in ROUTES.iter().filter(|(_, route_path, _)| *route_path == path) {
        if *route_method == method {
            return RouteMatch::Matched(*access);
        }
        result = RouteMatch::MethodNotAllowed;
    }
    result
}

/// Checks whether an identity has the required access.
///
/// # Errors
/// Returns [`AuthError::Unauthenticated`] without an identity, [`AuthError::Forbidden`] if its rights
/// are insufficient.
pub fn authorize(access: Access, identity: Option<&Identity>) -> Result<(), AuthError> {
    if access == Public {
        return Ok(());
    }
    let identity = identity.ok_or(AuthError::Unauthenticated)?;
    let forbidden = |reason: String| Err(AuthError::Forbidden(reason));
    match access {
        MinRole(required) => match identity.role {
            Some(role) if role >= required => Ok(()),
            Some(role) => {
                let (required, role) = (required.name(), role.name());
                forbidden(format!("role {required} or higher required; your role is {role}"))
            }
            None => forbidden(format!("{} is limited to ingestion", identity.actor_name())),
        },
        BrowserSession if !matches!(identity.credential, Credential::Session(_)) => {
            forbidden("a browser session is required; API tokens are not accepted".to_owned())
        }
        Authenticated if identity.role.is_none() => {
            forbidden(format!("{} is limited to ingestion", identity.actor_name()))
        }
        Ingest if identity.ingest_scope() == IngestScope::Denied => {
            forbidden("ingestion requires an agent secret or a token with the scope `ingest`".to_owned())
        }
        _ => Ok(()),
    }
}
