//! Redis that the hubs of an installation share: a server, or the primary of a service that sentinels watch.

use crate::redis_url_error::RedisUrlError;
use crate::sentinels::Sentinels;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};

/// Redis with the prefix of an installation.
pub(crate) struct RedisSite {
    server: RedisServer,
    /// Prefix of all keys: other applications and installations may use the same Redis.
    pub(crate) prefix: String,
}

enum RedisServer {
    Fixed(Box<Client>),
    Primary(Sentinels),
}

/// Checks the URL of a Redis.
///
/// # Errors
/// Returns [`RedisUrlError`] if it is invalid.
pub fn check_url(url: &str) -> Result<(), RedisUrlError> {
    RedisSite::open(url, "").map(|_| ())
}

impl RedisSite {
    /// Redis of the installation `site`. It does not have to be available.
    pub(crate) fn open(url: &str, site: &str) -> Result<Self, RedisUrlError> {
        let server = match Sentinels::parse(url)? {
            Some(sentinels) => RedisServer::Primary(sentinels),
            // The error of the client is dropped, because it may contain the password.
            None => {
                let client = Client::open(url).map_err(|_| RedisUrlError("not a URL of a Redis server"))?;
                RedisServer::Fixed(Box::new(client))
            }
        };
        Ok(Self { server, prefix: format!("perfwatch:{site}:") })
    }

    /// Opens a connection. Returns it with the address of the primary, empty without sentinels.
    pub(crate) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, String)> {
        match &self.server {
            RedisServer::Fixed(client) => {
                Ok((client.get_multiplexed_async_connection_with_config(config).await?, String::new()))
            }
            RedisServer::Primary(sentinels) => sentinels.connect(config).await,
        }
    }

    /// Address of the primary that the sentinels name; `None` without sentinels, or if none responds.
    pub(crate) async fn primary(&self) -> Option<String> {
        match &self.server {
            RedisServer::Fixed(_) => None,
            RedisServer::Primary(sentinels) => sentinels.primary().await.ok(),
        }
    }
}
