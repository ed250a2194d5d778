//! Access table: which route requires which access. The middleware reads it before any handler, a
//! test walks all routes, and the API document shows it. A route that is missing is denied.

use crate::confirmation::Confirmation;
use crate::error::AuthError;
use crate::identity::{CredentialKind, Identity, IngestScope};
use perfwatch_store::accounts::Role;

/// Access that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No authentication required.
    Public,
    /// Any authenticated user or API token with a role.
    Authenticated,
    /// Minimum role of the identity.
    MinRole(Role),
    /// Right to send snapshots.
    Ingest,
}

/// Credentials that a route accepts. Routes that create something lasting, such as a user, a token or a stored
/// secret, accept no credential with a short lifetime: a leaked token must not be able to make its access last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// No credential is read.
    NoCredential,
    /// Credentials in the request itself: name and password, setup secret, or identity provider.
    Password,
    /// Enrollment token in the request; the handler verifies it.
    EnrollmentToken,
    /// Session, API token, signed token or agent secret. The route creates nothing that grants access.
    Any,
    /// Like [`Accepts::Any`], and the token in the address of a WebSocket.
    AnyOrWebSocketToken,
    /// API token, or a session whose user logged in or confirmed a moment ago; no signed token. The route
    /// creates enrollment tokens or stores secrets of other systems.
    LongLived,
    /// Browser session.
    Session,
    /// Browser session whose user logged in or confirmed a moment ago.
    RecentSession,
    /// Browser session whose user entered the password again after the login.
    ConfirmedSession,
}

impl Accepts {
    /// Note for the API document; empty if the route accepts every credential with the required access.
    pub fn note(self) -> &'static str {
        match self {
            Self::NoCredential | Self::Password | Self::EnrollmentToken | Self::Any => "",
            Self::AnyOrWebSocketToken => " Also by a WebSocket token in the address.",
            Self::LongLived => " API token, or a session with a recent login or confirmation.",
            Self::Session => " Browser session only.",
            Self::RecentSession => " Browser session only, with a recent login or confirmation.",
            Self::ConfirmedSession => " Browser session only, with a confirmation.",
        }
    }
}

use Accepts::{
    Any, AnyOrWebSocketToken, ConfirmedSession, EnrollmentToken, LongLived, NoCredential, Password,
    RecentSession, Session,
};
use Access::{Authenticated, Ingest, MinRole, Public};
use Role::{Admin, Operator, Viewer};

/// All routes: method, path as declared, required access, accepted credentials.
pub const ROUTES: &[(&str, &str, Access, Accepts)] = &[
    ("POST", "/ingest/metrics", Ingest, Any),
    ("GET", "/api/metrics/recent", MinRole(Viewer), Any),
    ("GET", "/api/ws/metrics", MinRole(Viewer), AnyOrWebSocketToken),
    ("GET", "/api/v1/live", MinRole(Viewer), Any),
    ("GET", "/api/v1/catalog", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts", MinRole(Viewer), Any),
    ("PATCH", "/api/v1/hosts", MinRole(Operator), Any),
    ("GET", "/api/v1/overview", MinRole(Viewer), Any),
    ("GET", "/api/v1/overview/history", MinRole(Viewer), Any),
    ("GET", "/api/v1/overview/activity", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}/series", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}/snapshot", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}/processes", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}/events", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}/export", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}/storage", MinRole(Viewer), Any),
    ("DELETE", "/api/v1/hosts/{id}", MinRole(Operator), Any),
    ("PUT", "/api/v1/hosts/{id}/tags", MinRole(Operator), Any),
    ("POST", "/api/v1/query", MinRole(Viewer), Any),
    ("POST", "/api/v1/capsules", MinRole(Viewer), Any),
    // Views of the caller, and shared views; a shared view requires the role operator.
    ("GET", "/api/v1/views", MinRole(Viewer), Any),
    ("POST", "/api/v1/views", MinRole(Viewer), Any),
    ("GET", "/api/v1/views/{id}", MinRole(Viewer), Any),
    ("PUT", "/api/v1/views/{id}", MinRole(Viewer), Any),
    ("DELETE", "/api/v1/views/{id}", MinRole(Viewer), Any),
    // A link gives access without a session, and lasts.
    ("GET", "/api/v1/status-pages", MinRole(Operator), Any),
    ("POST", "/api/v1/status-pages", MinRole(Operator), LongLived),
    ("PUT", "/api/v1/status-pages/{id}", MinRole(Operator), LongLived),
    ("POST", "/api/v1/status-pages/{id}/link", MinRole(Operator), LongLived),
    ("DELETE", "/api/v1/status-pages/{id}", MinRole(Operator), Any),
    ("GET", "/api/v1/public/status/{token}", Public, NoCredential),
    ("GET", "/api/v1/alerts/stats", MinRole(Viewer), Any),
    ("GET", "/api/v1/incidents", MinRole(Viewer), Any),
    ("GET", "/api/v1/incidents/history", MinRole(Viewer), Any),
    ("GET", "/api/v1/incidents/{id}", MinRole(Viewer), Any),
    ("GET", "/api/v1/hosts/{id}/alerts", MinRole(Viewer), Any),
    ("POST", "/api/v1/incidents/{id}/ack", MinRole(Operator), Any),
    ("DELETE", "/api/v1/incidents/{id}/ack", MinRole(Operator), Any),
    ("POST", "/api/v1/incidents/{id}/comments", MinRole(Operator), Any),
    ("GET", "/api/v1/rules", MinRole(Viewer), Any),
    ("POST", "/api/v1/rules", MinRole(Operator), Any),
    ("POST", "/api/v1/rules/backtest", MinRole(Viewer), Any),
    ("GET", "/api/v1/rules/export", MinRole(Viewer), Any),
    ("POST", "/api/v1/rules/import", MinRole(Operator), Any),
    ("PUT", "/api/v1/rules/{id}", MinRole(Operator), Any),
    ("DELETE", "/api/v1/rules/{id}", MinRole(Operator), Any),
    ("GET", "/api/v1/silences", MinRole(Viewer), Any),
    ("POST", "/api/v1/silences", MinRole(Operator), Any),
    ("PUT", "/api/v1/silences/{id}", MinRole(Operator), Any),
    ("DELETE", "/api/v1/silences/{id}", MinRole(Operator), Any),
    // Channels send data out of the hub and contain credentials of other services.
    ("GET", "/api/v1/channels", MinRole(Operator), Any),
    ("GET", "/api/v1/channels/kinds", MinRole(Operator), Any),
    ("POST", "/api/v1/channels", MinRole(Admin), LongLived),
    ("POST", "/api/v1/channels/preview", MinRole(Admin), Any),
    ("POST", "/api/v1/channels/test", MinRole(Admin), Any),
    ("PUT", "/api/v1/channels/{id}", MinRole(Admin), LongLived),
    ("DELETE", "/api/v1/channels/{id}", MinRole(Admin), Any),
    ("POST", "/api/v1/channels/{id}/test", MinRole(Operator), Any),
    ("GET", "/api/v1/notifications", MinRole(Operator), Any),
    ("POST", "/api/v1/notifications/{id}/retry", MinRole(Operator), Any),
    ("GET", "/api/v1/servers", MinRole(Viewer), Any),
    ("POST", "/api/v1/servers", MinRole(Operator), LongLived),
    ("POST", "/api/v1/servers/test", MinRole(Operator), Any),
    ("POST", "/api/v1/servers/import", MinRole(Operator), LongLived),
    ("GET", "/api/v1/servers/{id}", MinRole(Viewer), Any),
    ("PUT", "/api/v1/servers/{id}", MinRole(Operator), LongLived),
    ("DELETE", "/api/v1/servers/{id}", MinRole(Operator), Any),
    ("PUT", "/api/v1/servers/{id}/host-key", MinRole(Operator), LongLived),
    ("POST", "/api/v1/servers/{id}/test", MinRole(Operator), Any),
    ("GET", "/api/v1/servers/{id}/collections", MinRole(Viewer), Any),
    ("POST", "/api/v1/servers/{id}/collect", MinRole(Operator), Any),
    ("POST", "/api/v1/servers/metrics/collect-all", MinRole(Operator), Any),
    ("GET", "/api/v1/servers/summary", MinRole(Viewer), Any),
    ("GET", "/api/v1/servers/metrics/queue/stats", MinRole(Viewer), Any),
    ("GET", "/api/v1/servers/metrics/queue/series", MinRole(Viewer), Any),
    ("GET", "/api/v1/servers/metrics/queue/jobs", MinRole(Viewer), Any),
    ("POST", "/api/v1/servers/metrics/queue/retry", MinRole(Operator), Any),
    ("POST", "/api/v1/servers/metrics/queue/pause", MinRole(Operator), Any),
    ("POST", "/api/v1/servers/metrics/queue/resume", MinRole(Operator), Any),
    ("POST", "/api/v1/servers/metrics/queue/clean", MinRole(Operator), Any),
    ("POST", "/api/v1/servers/metrics/queue/jobs/{id}/retry", MinRole(Operator), Any),
    // Settings decide how long history and access last.
    ("GET", "/api/v1/settings", MinRole(Admin), Any),
    ("PUT", "/api/v1/settings", MinRole(Admin), RecentSession),
    ("POST", "/api/v1/settings/preview", MinRole(Admin), Any),
    ("GET", "/api/v1/settings/mail", MinRole(Admin), Any),
    ("PUT", "/api/v1/settings/mail", MinRole(Admin), RecentSession),
    ("POST", "/api/v1/settings/mail/test", MinRole(Admin), Any),
    ("GET", "/api/v1/collectors", MinRole(Admin), Any),
    ("PUT", "/api/v1/collectors", MinRole(Admin), RecentSession),
    ("GET", "/api/v1/system", MinRole(Viewer), Any),
    ("GET", "/api/v1/system/series", MinRole(Viewer), Any),
    ("GET", "/api/v1/system/tasks", MinRole(Viewer), Any),
    // Names and addresses of other users.
    ("GET", "/api/v1/system/connections", MinRole(Admin), Any),
    ("GET", "/api/v1/system/routes", MinRole(Viewer), Any),
    ("GET", "/metrics", MinRole(Viewer), Any),
    ("GET", "/healthz", Public, NoCredential),
    ("GET", "/readyz", Public, NoCredential),
    ("GET", "/api/openapi.json", Public, NoCredential),
    ("GET", "/api/docs", Public, NoCredential),
    ("GET", "/api/docs/", Public, NoCredential),
    ("GET", "/api/docs/{*rest}", Public, NoCredential),
    ("GET", "/install.sh", Public, NoCredential),
    ("GET", "/download/{file}", Public, EnrollmentToken),
    ("GET", "/api/v1/proxy-check", Public, NoCredential),
    ("GET", "/api/ws/probe", Public, NoCredential),
    ("GET", "/api/v1/auth/state", Public, NoCredential),
    ("POST", "/api/v1/auth/setup", Public, Password),
    ("POST", "/api/v1/auth/login", Public, Password),
    ("POST", "/api/v1/auth/token", Public, Password),
    ("POST", "/api/v1/auth/websocket-token", MinRole(Viewer), Any),
    ("POST", "/api/v1/auth/confirm", Authenticated, Session),
    ("GET", "/api/v1/auth/oidc/login", Public, Password),
    ("GET", "/api/v1/auth/oidc/callback", Public, Password),
    ("POST", "/api/v1/auth/logout", Authenticated, Session),
    ("GET", "/api/v1/auth/me", Authenticated, Any),
    ("PUT", "/api/v1/auth/password", Authenticated, Session),
    ("POST", "/api/v1/auth/totp", Authenticated, ConfirmedSession),
    ("PUT", "/api/v1/auth/totp", Authenticated, ConfirmedSession),
    ("DELETE", "/api/v1/auth/totp", Authenticated, Session),
    ("GET", "/api/v1/auth/preferences", Authenticated, Session),
    ("PUT", "/api/v1/auth/preferences", Authenticated, Session),
    ("GET", "/api/v1/auth/sessions", Authenticated, Session),
    ("DELETE", "/api/v1/auth/sessions", Authenticated, Session),
    ("GET", "/api/v1/tokens", Authenticated, Session),
    ("POST", "/api/v1/tokens", Authenticated, RecentSession),
    ("DELETE", "/api/v1/tokens/{id}", Authenticated, Session),
    ("GET", "/api/v1/users", MinRole(Admin), Any),
    ("POST", "/api/v1/users", MinRole(Admin), ConfirmedSession),
    ("PATCH", "/api/v1/users/{id}", MinRole(Admin), ConfirmedSession),
    ("DELETE", "/api/v1/users/{id}", MinRole(Admin), ConfirmedSession),
    ("POST", "/api/v1/agents/enroll", Public, EnrollmentToken),
    ("GET", "/api/v1/agents", MinRole(Operator), Any),
    ("POST", "/api/v1/agents/{id}/revoke", MinRole(Operator), Any),
    ("DELETE", "/api/v1/agents/{id}", MinRole(Operator), Any),
    ("GET", "/api/v1/enrollment-tokens", MinRole(Operator), Any),
    ("POST", "/api/v1/enrollment-tokens", MinRole(Operator), LongLived),
    ("DELETE", "/api/v1/enrollment-tokens/{id}", MinRole(Operator), Any),
    ("GET", "/api/v1/audit", MinRole(Admin), Any),
];

/// Result of a look-up in the access table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMatch {
    /// The route exists, and requires this access by any of these credentials.
    Matched(Access, Accepts),
    /// The path exists with another method.
    MethodNotAllowed,
    /// The path is not in the table.
    NotFound,
}

/// Looks up a route by its method and its path as declared.
pub fn match_route(method: &str, path: &str) -> RouteMatch {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut result = RouteMatch::NotFound;
    for (route_method, _, access, accepts) in ROUTES.iter().filter(|(_, route_path, ..)| *route_path == path)
    {
        if *route_method == method {
            return RouteMatch::Matched(*access, *accepts);
        }
        result = RouteMatch::MethodNotAllowed;
    }
    result
}

/// Checks whether an identity has the required access, by a credential that the route accepts.
///
/// # Errors
/// Returns [`AuthError::Unauthenticated`] without an identity, [`AuthError::Forbidden`] if its rights or its
/// credential are insufficient, [`AuthError::ConfirmationRequired`] if the password must be entered again.
pub fn authorize(access: Access, accepts: Accepts, identity: Option<&Identity>) -> Result<(), AuthError> {
    if access == Public {
        return Ok(());
    }
    let identity = identity.ok_or(AuthError::Unauthenticated)?;
    let forbidden = |reason: String| Err(AuthError::Forbidden(reason));
    match access {
        MinRole(required) => match identity.role {
            Some(role) if role >= required => {}
            Some(role) => {
                let (required, role) = (required.name(), role.name());
                return forbidden(format!("role {required} or higher required; your role is {role}"));
            }
            None => return forbidden(format!("{} is limited to ingestion", identity.actor_name())),
        },
        Authenticated if identity.role.is_none() => {
            return forbidden(format!("{} is limited to ingestion", identity.actor_name()));
        }
        Ingest if identity.ingest_scope() == IngestScope::Denied => {
            let message = "ingestion requires an agent secret or a token with the scope `ingest`";
            return forbidden(message.to_owned());
        }
        _ => {}
    }
    authorize_credential(accepts, identity)
}

fn authorize_credential(accepts: Accepts, identity: &Identity) -> Result<(), AuthError> {
    let kind = identity.credential.kind();
    let required_confirmation = match (accepts, kind) {
        (AnyOrWebSocketToken, _) => return Ok(()),
        // A token in an address opens the WebSocket alone: addresses are logged.
        (_, CredentialKind::WebSocketToken) => {
            let message = "the token of a WebSocket address opens the WebSocket only";
            return Err(AuthError::Forbidden(message.to_owned()));
        }
        (NoCredential | Password | EnrollmentToken | Any, _) => return Ok(()),
        (LongLived, CredentialKind::ApiToken) | (Session, CredentialKind::Session) => return Ok(()),
        (LongLived | RecentSession, CredentialKind::Session) => Confirmation::RecentLogin,
        (ConfirmedSession, CredentialKind::Session) => Confirmation::Confirmed,
        (LongLived, _) => {
            let message =
                "a signed token cannot create lasting access; use a browser session or an API token";
            return Err(AuthError::Forbidden(message.to_owned()));
        }
        (Session | RecentSession | ConfirmedSession, _) => {
            let message = "a browser session is required; tokens are not accepted";
            return Err(AuthError::Forbidden(message.to_owned()));
        }
    };
    if identity.confirmation < required_confirmation { Err(AuthError::ConfirmationRequired) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Credential, Principal};
    use crate::jwt;

    /// Routes with everything that grants access: users, factors, tokens, links, stored secrets.
    const LASTING: [(&str, &str); 19] = [
        ("POST", "/api/v1/channels"),
        ("PUT", "/api/v1/channels/{id}"),
        ("POST", "/api/v1/servers"),
        ("POST", "/api/v1/servers/import"),
        ("PUT", "/api/v1/servers/{id}"),
        ("PUT", "/api/v1/servers/{id}/host-key"),
        ("POST", "/api/v1/enrollment-tokens"),
        ("POST", "/api/v1/status-pages"),
        ("PUT", "/api/v1/status-pages/{id}"),
        ("POST", "/api/v1/status-pages/{id}/link"),
        ("POST", "/api/v1/tokens"),
        ("PUT", "/api/v1/settings"),
        ("PUT", "/api/v1/settings/mail"),
        ("PUT", "/api/v1/collectors"),
        ("POST", "/api/v1/auth/totp"),
        ("PUT", "/api/v1/auth/totp"),
        ("POST", "/api/v1/users"),
        ("PATCH", "/api/v1/users/{id}"),
        ("DELETE", "/api/v1/users/{id}"),
    ];
    /// Routes of the own account, whose handlers verify the password again or only end credentials.
    const OWN_ACCOUNT: [(&str, &str); 10] = [
        ("POST", "/api/v1/auth/confirm"),
        ("POST", "/api/v1/auth/logout"),
        ("PUT", "/api/v1/auth/password"),
        ("DELETE", "/api/v1/auth/totp"),
        ("GET", "/api/v1/auth/preferences"),
        ("PUT", "/api/v1/auth/preferences"),
        ("GET", "/api/v1/auth/sessions"),
        ("DELETE", "/api/v1/auth/sessions"),
        ("GET", "/api/v1/tokens"),
        ("DELETE", "/api/v1/tokens/{id}"),
    ];

    fn identity(credential: Credential, role: Role, confirmation: Confirmation) -> Identity {
        let principal = Principal::Account { id: uuid::Uuid::nil(), name: "x".to_owned() };
        Identity { role: Some(role), confirmation, ..Identity::for_ingest(principal, credential) }
    }

    /// Routes that a credential of an administrator cannot use, apart from public routes.
    fn rejected(credential: &Credential, confirmation: Confirmation) -> Vec<(&'static str, &'static str)> {
        let admin = identity(credential.clone(), Role::Admin, confirmation);
        let is_rejected = |row: &&(_, _, Access, Accepts)| authorize(row.2, row.3, Some(&admin)).is_err();
        ROUTES.iter().filter(is_rejected).map(|(method, path, ..)| (*method, *path)).collect()
    }

    fn sorted<'a>(lists: &[&[(&'a str, &'a str)]]) -> Vec<(&'a str, &'a str)> {
        let mut routes = lists.concat();
        routes.sort_unstable();
        routes
    }

    /// H8: no credential makes itself last. The lists are those of docs/ACCESS.md.
    #[test]
    fn credentials_create_only_what_their_list_names() {
        use Confirmation as C;
        let websocket = jwt::Claims::for_test();
        let session = Credential::Session([0; 32]);
        let api_token = Credential::Bearer(format!("pwt_{}", "0".repeat(64)));
        let signed = Credential::Bearer("eyJ.a.b".to_owned());
        // The last five routes change users and factors, the routes before them settings and API tokens.
        let (users, tokens) = (&LASTING[14..], &LASTING[10..]);
        for (credential, confirmation, want) in [
            (&signed, C::None, sorted(&[&LASTING, &OWN_ACCOUNT])),
            (&api_token, C::None, sorted(&[tokens, &OWN_ACCOUNT])),
            (&session, C::None, sorted(&[&LASTING])),
            (&session, C::RecentLogin, sorted(&[users])),
            (&session, C::Confirmed, Vec::new()),
        ] {
            assert_eq!(
                sorted(&[&rejected(credential, confirmation)]),
                want,
                "{credential:?} {confirmation:?}"
            );
        }
        let websocket = Credential::WebSocketToken(Box::new(websocket));
        let opened = |row: &&(_, _, Access, Accepts)| {
            row.2 != Public
                && authorize(row.2, row.3, Some(&identity(websocket.clone(), Role::Admin, C::None))).is_ok()
        };
        let opened: Vec<&str> = ROUTES.iter().filter(opened).map(|(_, path, ..)| *path).collect();
        assert_eq!(opened, ["/api/ws/metrics"]);
    }

    /// H8: agents and ingest tokens, which have no role, only send snapshots.
    #[test]
    fn identities_without_a_role_only_send() {
        let agent = Principal::Agent { id: uuid::Uuid::nil(), host: perfwatch_model::HostId::generate() };
        let agent = Identity::for_ingest(agent, Credential::Bearer(format!("pwa_{}", "0".repeat(64))));
        for (method, path, access, accepts) in ROUTES.iter().filter(|(_, _, access, _)| *access != Public) {
            let is_allowed = authorize(*access, *accepts, Some(&agent)).is_ok();
            assert_eq!(is_allowed, *path == "/ingest/metrics", "{method} {path}");
        }
    }

    /// Routes above a role are rejected for every kind of credential.
    #[test]
    fn roles_limit_every_credential() {
        for credential in [
            Credential::Session([0; 32]),
            Credential::Bearer(format!("pwt_{}", "0".repeat(64))),
            Credential::Bearer("eyJ.a.b".to_owned()),
            Credential::WebSocketToken(Box::new(jwt::Claims::for_test())),
        ] {
            for role in Role::ALL {
                let caller = identity(credential.clone(), role, Confirmation::Confirmed);
                for (method, path, access, accepts) in ROUTES {
                    let is_above = matches!(access, MinRole(required) if *required > role);
                    let is_allowed = authorize(*access, *accepts, Some(&caller)).is_ok();
                    assert!(!(is_above && is_allowed), "{method} {path} with {role:?} {credential:?}");
                }
            }
        }
    }
}
