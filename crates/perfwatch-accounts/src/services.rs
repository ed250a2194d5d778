//! Services that the routes of accounts use.

use perfwatch_auth::AuthDirectory;
use perfwatch_auth::login::LoginService;
use perfwatch_auth::oidc::OidcProvider;
use perfwatch_http::public_address::PublicAddress;
use perfwatch_model::Clock;
use std::sync::Arc;

/// Services of the routes.
#[derive(Clone)]
pub struct Accounts {
    /// Source of wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Accounts, sessions and tokens.
    pub directory: Arc<AuthDirectory>,
    /// Password logins with their throttle.
    pub login: Arc<LoginService>,
    /// Identity provider for single sign-on, if configured.
    pub oidc: Option<Arc<OidcProvider>>,
    /// Addresses and cookies of the hub.
    pub public_address: Arc<PublicAddress>,
}
