//! Middleware of all routes: authentication, authorization and rate limits.

pub(crate) mod auth;
pub(crate) mod rate_limit;
