//! Routes of accounts: setup, login, single sign-on, the caller's own account, users and API tokens.
//!
//! The rules of accounts and credentials are in `perfwatch-auth`; this crate maps them to HTTP.

mod account;
mod auth;
mod browser_session;
mod oidc;
mod preferences;
mod services;
mod tokens;
mod users;

use axum::extract::FromRef;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use services::Accounts;

/// All routes, for a router whose state has the services.
pub fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Accounts: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(auth::login_options))
        .routes(routes!(auth::setup))
        .routes(routes!(auth::login))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::token))
        .routes(routes!(auth::websocket_token))
        .routes(routes!(oidc::begin))
        .routes(routes!(oidc::callback))
        .routes(routes!(account::me))
        .routes(routes!(account::confirm))
        .routes(routes!(account::password))
        .routes(routes!(account::begin_totp, account::enable_totp, account::disable_totp))
        .routes(routes!(account::sessions, account::end_sessions))
        .routes(routes!(preferences::get_preferences, preferences::set_preferences))
        .routes(routes!(tokens::list_tokens, tokens::create_token))
        .routes(routes!(tokens::delete_token))
        .routes(routes!(users::list_users, users::create_user))
        .routes(routes!(users::update_user, users::delete_user))
}
