//! Who may use which route: one table, read by the middleware before any handler, by a test that
//! walks all routes, and by the API document. A route that is not in it is nobody's.

use super::identity::{Credential, Identity};
use crate::error::AuthError;
use perfwatch_store::accounts::Role;

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Public,
    /// Who is known, also by a script's token.
    Authenticated,
    /// A person in a browser, for what is their own. No token: one that was found must not make
    /// itself last.
    BrowserSession,
    /// From this role on.
    MinRole(Role),
    /// Who may send snapshots.
    Ingest,
}

use Access::{Authenticated, BrowserSession, Ingest, MinRole, Public};
use Role::{Admin, Operator, Viewer};

/// Method, path, who.
pub const ROUTES: &[(&str, &str, Access)] = &[
    ("POST", "/ingest/metrics", Ingest),
    ("GET", "/api/metrics/recent", MinRole(Viewer)),
    ("GET", "/api/ws/metrics", MinRole(Viewer)),
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
    // Channels reach out of the hub, and hold what lets one in elsewhere.
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
    ("GET", "/api/v1/servers/{id}/tests", MinRole(Viewer)),
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

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMatch {
    Allowed(Access),
    MethodNotAllowed,
    NotFound,
}

/// Who may use a route by its method and its path as it was declared.
pub fn match_route(method: &str, path: &str) -> RouteMatch {
    // What may be read may be asked about.
    let method = if method == "HEAD" { "GET" } else { method };
    let mut route = RouteMatch::NotFound;
    for (known, _, access) in ROUTES.iter().filter(|(_, known, _)| *known == path) {
        if *known == method {
            return RouteMatch::Allowed(*access);
        }
        route = RouteMatch::MethodNotAllowed;
    }
    route
}

/// Whether they may.
pub fn authorize(access: Access, identity: Option<&Identity>) -> Result<(), AuthError> {
    if access == Public {
        return Ok(());
    }
    let identity = identity.ok_or(AuthError::Unauthenticated)?;
    let refuse = |why: String| Err(AuthError::Forbidden(why));
    match access {
        MinRole(least) => match identity.role {
            Some(role) if role >= least => Ok(()),
            Some(role) => {
                refuse(format!("role {} or higher required; your role is {}", least.name(), role.name()))
            }
            None => refuse(format!("{} is limited to ingestion", identity.actor_name())),
        },
        BrowserSession if !matches!(identity.credential, Credential::Session(_)) => {
            refuse("a browser session is required; API tokens are not accepted".to_owned())
        }
        Authenticated if identity.role.is_none() => {
            refuse(format!("{} is limited to ingestion", identity.actor_name()))
        }
        Ingest if identity.ingest_scope().is_none() => {
            refuse("ingestion requires an agent secret or a token with the scope `ingest`".to_owned())
        }
        _ => Ok(()),
    }
}
