//! Who may use which route: one table, read by the middleware before any handler, by a test that
//! walks all routes, and by the API document. A route that is not in it is nobody's.

use super::identity::{Credential, Identity};
use crate::error::ApiError;
use axum::http::{Method, StatusCode};
use perfwatch_store::people::Role;

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone.
    Open,
    /// Who is known, also by a script's token.
    Known,
    /// A person in a browser, for what is their own. No token: one that was found must not make
    /// itself last.
    Person,
    /// From this role on.
    From(Role),
    /// Who may send snapshots.
    Sender,
}

use Access::{From, Known, Open, Person, Sender};
use Role::{Admin, Operator, Viewer};

/// Method, path, who.
pub(crate) const ROUTES: &[(&str, &str, Access)] = &[
    ("POST", "/ingest/metrics", Sender),
    ("GET", "/api/metrics/recent", From(Viewer)),
    ("GET", "/api/ws/metrics", From(Viewer)),
    ("GET", "/api/v1/catalog", From(Viewer)),
    ("GET", "/api/v1/hosts", From(Viewer)),
    ("GET", "/api/v1/hosts/{id}", From(Viewer)),
    ("GET", "/api/v1/hosts/{id}/series", From(Viewer)),
    ("GET", "/api/v1/hosts/{id}/snapshot", From(Viewer)),
    ("GET", "/api/v1/hosts/{id}/processes", From(Viewer)),
    ("GET", "/api/v1/hosts/{id}/export", From(Viewer)),
    ("DELETE", "/api/v1/hosts/{id}", From(Operator)),
    ("PUT", "/api/v1/hosts/{id}/tags", From(Operator)),
    ("GET", "/api/v1/alerts", From(Viewer)),
    ("GET", "/api/v1/alerts/history", From(Viewer)),
    ("GET", "/api/v1/alerts/{id}", From(Viewer)),
    ("GET", "/api/v1/hosts/{id}/alerts", From(Viewer)),
    ("POST", "/api/v1/alerts/{id}/ack", From(Operator)),
    ("DELETE", "/api/v1/alerts/{id}/ack", From(Operator)),
    ("POST", "/api/v1/alerts/{id}/comments", From(Operator)),
    ("GET", "/api/v1/rules", From(Viewer)),
    ("POST", "/api/v1/rules", From(Operator)),
    ("POST", "/api/v1/rules/test", From(Viewer)),
    ("GET", "/api/v1/rules/export", From(Viewer)),
    ("POST", "/api/v1/rules/import", From(Operator)),
    ("PUT", "/api/v1/rules/{id}", From(Operator)),
    ("DELETE", "/api/v1/rules/{id}", From(Operator)),
    ("GET", "/api/v1/silences", From(Viewer)),
    ("POST", "/api/v1/silences", From(Operator)),
    ("PUT", "/api/v1/silences/{id}", From(Operator)),
    ("DELETE", "/api/v1/silences/{id}", From(Operator)),
    // Channels reach out of the hub, and hold what lets one in elsewhere.
    ("GET", "/api/v1/channels", From(Operator)),
    ("GET", "/api/v1/channels/kinds", From(Operator)),
    ("POST", "/api/v1/channels", From(Admin)),
    ("POST", "/api/v1/channels/preview", From(Admin)),
    ("POST", "/api/v1/channels/test", From(Admin)),
    ("PUT", "/api/v1/channels/{id}", From(Admin)),
    ("DELETE", "/api/v1/channels/{id}", From(Admin)),
    ("POST", "/api/v1/channels/{id}/test", From(Operator)),
    ("GET", "/api/v1/messages", From(Operator)),
    ("POST", "/api/v1/messages/{id}/retry", From(Operator)),
    ("GET", "/api/v1/servers", From(Viewer)),
    ("POST", "/api/v1/servers", From(Operator)),
    ("POST", "/api/v1/servers/test", From(Operator)),
    ("POST", "/api/v1/servers/import", From(Operator)),
    ("GET", "/api/v1/servers/{id}", From(Viewer)),
    ("PUT", "/api/v1/servers/{id}", From(Operator)),
    ("DELETE", "/api/v1/servers/{id}", From(Operator)),
    ("PUT", "/api/v1/servers/{id}/host-key", From(Operator)),
    ("POST", "/api/v1/servers/{id}/test", From(Operator)),
    ("GET", "/api/v1/servers/{id}/tests", From(Viewer)),
    ("POST", "/api/v1/servers/{id}/collect", From(Operator)),
    ("POST", "/api/v1/servers/metrics/collect-all", From(Operator)),
    ("GET", "/api/v1/servers/metrics/summary", From(Viewer)),
    ("GET", "/api/v1/servers/metrics/queue/stats", From(Viewer)),
    ("GET", "/api/v1/servers/metrics/queue/jobs", From(Viewer)),
    ("POST", "/api/v1/servers/metrics/queue/pause", From(Operator)),
    ("POST", "/api/v1/servers/metrics/queue/resume", From(Operator)),
    ("POST", "/api/v1/servers/metrics/queue/clean", From(Operator)),
    ("POST", "/api/v1/servers/metrics/queue/jobs/{id}/retry", From(Operator)),
    ("GET", "/api/v1/system", From(Viewer)),
    ("GET", "/metrics", From(Viewer)),
    ("GET", "/healthz", Open),
    ("GET", "/readyz", Open),
    ("GET", "/api/openapi.json", Open),
    ("GET", "/api/docs", Open),
    ("GET", "/api/docs/", Open),
    ("GET", "/api/docs/{*rest}", Open),
    ("GET", "/install.sh", Open),
    ("GET", "/download/{file}", Open),
    ("GET", "/api/v1/auth/state", Open),
    ("POST", "/api/v1/auth/setup", Open),
    ("POST", "/api/v1/auth/login", Open),
    ("POST", "/api/v1/auth/token", Open),
    ("GET", "/api/v1/auth/oidc/login", Open),
    ("GET", "/api/v1/auth/oidc/callback", Open),
    ("POST", "/api/v1/auth/logout", Person),
    ("GET", "/api/v1/auth/me", Known),
    ("PUT", "/api/v1/auth/password", Person),
    ("POST", "/api/v1/auth/totp", Person),
    ("PUT", "/api/v1/auth/totp", Person),
    ("DELETE", "/api/v1/auth/totp", Person),
    ("GET", "/api/v1/auth/sessions", Person),
    ("DELETE", "/api/v1/auth/sessions", Person),
    ("GET", "/api/v1/tokens", Person),
    ("POST", "/api/v1/tokens", Person),
    ("DELETE", "/api/v1/tokens/{id}", Person),
    ("GET", "/api/v1/users", From(Admin)),
    ("POST", "/api/v1/users", From(Admin)),
    ("PATCH", "/api/v1/users/{id}", From(Admin)),
    ("DELETE", "/api/v1/users/{id}", From(Admin)),
    ("POST", "/api/v1/agents/enrol", Open),
    ("GET", "/api/v1/agents", From(Operator)),
    ("POST", "/api/v1/agents/{id}/revoke", From(Operator)),
    ("DELETE", "/api/v1/agents/{id}", From(Operator)),
    ("GET", "/api/v1/enrolments", From(Operator)),
    ("POST", "/api/v1/enrolments", From(Operator)),
    ("DELETE", "/api/v1/enrolments/{id}", From(Operator)),
    ("GET", "/api/v1/audit", From(Admin)),
];

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Known(Access),
    OtherMethod,
    Unknown,
}

/// Who may use a route by its method and its path as it was declared.
pub(crate) fn of(method: &Method, path: &str) -> Route {
    // What may be read may be asked about.
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let mut route = Route::Unknown;
    for (known, _, access) in ROUTES.iter().filter(|(_, known, _)| *known == path) {
        if *known == method {
            return Route::Known(*access);
        }
        route = Route::OtherMethod;
    }
    route
}

pub(crate) fn login_needed() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "login_needed", "log in, or send Authorization: Bearer TOKEN")
}

/// Whether they may.
pub(crate) fn check(access: Access, identity: Option<&Identity>) -> Result<(), ApiError> {
    if access == Open {
        return Ok(());
    }
    let identity = identity.ok_or_else(login_needed)?;
    let refuse = |why: String| Err(ApiError::new(StatusCode::FORBIDDEN, "not_allowed", why));
    match access {
        From(least) => match identity.role {
            Some(role) if role >= least => Ok(()),
            Some(role) => {
                refuse(format!("this needs the role {} at least, yours is {}", least.name(), role.name()))
            }
            None => refuse(format!("{} can only send snapshots", identity.actor())),
        },
        Person if !matches!(identity.credential, Credential::Session(_)) => {
            refuse("this needs a browser that is logged in; a token is not enough".to_owned())
        }
        Known if identity.role.is_none() => refuse(format!("{} can only send snapshots", identity.actor())),
        Sender if identity.sends().is_none() => refuse(
            "sending snapshots needs an agent's own secret, or a token with the scope ingest".to_owned(),
        ),
        _ => Ok(()),
    }
}
