//! Redis that the hubs of an installation share.

use redis::Client;

/// Redis with the prefix of an installation.
pub(crate) struct RedisSite {
    pub(crate) client: Client,
    /// Prefix of all keys: other applications and installations may use the same Redis.
    pub(crate) prefix: String,
}

/// Redis URL that cannot be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid Redis URL; expected redis://:password@host:6379/0, or rediss://… for TLS")]
pub struct RedisUrlError;

impl RedisSite {
    /// Client for the installation `site`. Redis does not have to be available.
    pub(crate) fn open(url: &str, site: &str) -> Result<Self, RedisUrlError> {
        // The error of the client is dropped, because it may contain the password.
        let client = Client::open(url).map_err(|_| RedisUrlError)?;
        Ok(Self { client, prefix: format!("perfwatch:{site}:") })
    }
}
