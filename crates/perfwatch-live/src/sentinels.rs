//! Redis Sentinel: which server is the primary of a service
//! (<https://redis.io/docs/latest/develop/reference/sentinel-clients/>).
//!
//! All sentinels are queried at the same time, and the newest configuration among the responses of a majority decides. The
//! client library queries them in their order and uses the first response: a sentinel that was cut off together with an
//! earlier primary would lead to that server.

use crate::redis_url_error::RedisUrlError;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, Role};
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// Maximum time to wait for the responses of sentinels.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(400);
/// End of the address of a sentinel without a port.
const DEFAULT_PORT: &str = ":26379";

/// Sentinels of an installation, and the credentials for the servers of the service.
pub(crate) struct Sentinels {
    sentinels: Vec<Client>,
    service: String,
    /// URL of a server up to its address.
    before_address: String,
    /// URL of a server after its address.
    after_address: String,
}

/// Configuration that a sentinel knows.
struct PrimaryConfig {
    /// Host and port.
    address: String,
    /// Number of the failover that made it the primary.
    epoch: u64,
}

impl Sentinels {
    /// Parses a URL such as `redis+sentinel://user:password@host:26379,host:26379/SERVICE/0?sentinel_password=…`; `None` if
    /// its scheme is another.
    pub(crate) fn parse(url: &str) -> Result<Option<Self>, RedisUrlError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let scheme = match scheme {
            "redis+sentinel" => "redis",
            "rediss+sentinel" => "rediss",
            _ => return Ok(None),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), authority),
        };
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if service.is_empty() || !service.bytes().all(is_name) {
            return Err(RedisUrlError("no name of a service after the sentinels (letters, digits and .-_)"));
        }
        let sentinel_credentials = sentinel_credentials(query)?;
        let sentinel = |host: &str| {
            let port = host.rsplit(']').next().and_then(|end| end.split_once(':'));
            let port = if port.is_some() { "" } else { DEFAULT_PORT };
            Client::open(format!("{scheme}://{sentinel_credentials}{host}{port}"))
        };
        let sentinels: RedisResult<Vec<Client>> = hosts.split(',').map(sentinel).collect();
        let sentinels = sentinels.map_err(|_| RedisUrlError("not an address of a sentinel (host:26379)"))?;
        let (before_address, after_address) = (format!("{scheme}://{credentials}"), format!("/{database}"));
        Client::open(format!("{before_address}server:6379{after_address}"))
            .map_err(|_| RedisUrlError("not a user, password or number of a database"))?;
        Ok(Some(Self { sentinels, service: service.to_owned(), before_address, after_address }))
    }

    /// Connects to the primary. Returns the connection with the address.
    pub(crate) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, String)> {
        let address = self.primary().await?;
        let client = Client::open(format!("{}{address}{}", self.before_address, self.after_address))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
        match redis::cmd("ROLE").query_async(&mut connection).await? {
            Role::Primary { .. } => Ok((connection, address)),
            _ => Err(error("the server that Sentinel names is not the primary yet")),
        }
    }

    /// Address of the primary.
    pub(crate) async fn primary(&self) -> RedisResult<String> {
        let mut queries = JoinSet::new();
        for sentinel in &self.sentinels {
            queries.spawn(query_primary(sentinel.clone(), self.service.clone()));
        }
        let (mut newest, mut failure) = (None::<PrimaryConfig>, error("no sentinel responds"));
        let collect = async {
            let mut missing = self.sentinels.len() / 2 + 1;
            while missing > 0
                && let Some(Ok(response)) = queries.join_next().await
            {
                match response {
                    Ok(config) => {
                        missing -= 1;
                        if newest.as_ref().is_none_or(|newest| newest.epoch < config.epoch) {
                            newest = Some(config);
                        }
                    }
                    Err(error) => failure = error,
                }
            }
        };
        // With fewer responses, the newest of them decides.
        let _ = tokio::time::timeout(SENTINEL_TIMEOUT, collect).await;
        newest.map(|config| config.address).ok_or(failure)
    }
}

fn error(text: &'static str) -> RedisError {
    (ErrorKind::Io, text).into()
}

/// User and password for the sentinels, as in a URL.
fn sentinel_credentials(query: &str) -> Result<String, RedisUrlError> {
    let (mut user, mut password) = ("", None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_username", value)) => user = value,
            Some(("sentinel_password", value)) => password = Some(value),
            _ => {
                return Err(RedisUrlError(
                    "only the parameters sentinel_username and sentinel_password exist",
                ));
            }
        }
    }
    match password {
        Some(password) => Ok(format!("{user}:{password}@")),
        None if user.is_empty() => Ok(String::new()),
        None => Err(RedisUrlError("sentinel_username without sentinel_password")),
    }
}

/// Queries a sentinel for the primary of a service.
async fn query_primary(sentinel: Client, service: String) -> RedisResult<PrimaryConfig> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SENTINEL_TIMEOUT))
        .set_response_timeout(Some(SENTINEL_TIMEOUT));
    let mut connection = sentinel.get_multiplexed_async_connection_with_config(&config).await?;
    let command = redis::cmd("SENTINEL").arg("MASTER").arg(service).to_owned();
    let fields: HashMap<String, String> = command.query_async(&mut connection).await?;
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    let (host, port) = (field("ip"), field("port"));
    if host.is_empty() || port.is_empty() {
        return Err(error("a sentinel names no primary"));
    }
    // `s_down` or `o_down`: a failover follows, or the sentinel is cut off.
    if field("flags").contains("_down") {
        return Err(error("a sentinel cannot reach the primary"));
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let epoch = field("config-epoch").parse().unwrap_or_default();
    Ok(PrimaryConfig { address: format!("{host}:{port}"), epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Option<Sentinels>, RedisUrlError> {
        Sentinels::parse(url)
    }

    #[test]
    fn urls_name_sentinels_service_and_credentials() {
        let sentinels = parse("redis+sentinel://a,b:26380,[::1],[::1]:26381/cache.1").unwrap().unwrap();
        let addresses: Vec<String> = sentinels
            .sentinels
            .iter()
            .map(|client| client.get_connection_info().addr().to_string())
            .collect();
        assert_eq!(addresses, ["a:26379", "b:26380", "::1:26379", "::1:26381"]);
        assert_eq!(sentinels.service, "cache.1");
        assert_eq!((sentinels.before_address.as_str(), sentinels.after_address.as_str()), ("redis://", "/0"));
        let url = "rediss+sentinel://hub:p%40ss@a/cache/2?sentinel_username=w&sentinel_password=s%2Fx";
        let sentinels = parse(url).unwrap().unwrap();
        assert_eq!(sentinels.before_address, "rediss://hub:p%40ss@");
        assert_eq!(sentinels.after_address, "/2");
        let info = sentinels.sentinels[0].get_connection_info();
        assert!(matches!(info.addr(), redis::ConnectionAddr::TcpTls { insecure: false, .. }));
        assert_eq!(info.redis_settings().username(), Some("w"));
        assert_eq!(info.redis_settings().password(), Some("s/x"));
        for url in ["redis://a:6379/0", "redis+unix:///run/redis", "rediss://:x@a", "a:6379", ""] {
            assert!(parse(url).unwrap().is_none(), "{url}");
        }
    }

    #[test]
    fn invalid_urls_are_rejected_without_the_password() {
        for (url, reason) in [
            ("redis+sentinel://:hunter2@a:26379", "no name of a service"),
            ("redis+sentinel://:hunter2@a:26379/", "no name of a service"),
            ("redis+sentinel://:hunter2@a/my service", "no name of a service"),
            ("redis+sentinel://:hunter2@/cache", "not an address"),
            ("redis+sentinel://:hunter2@a,/cache", "not an address"),
            ("redis+sentinel://:hunter2@a:port/cache", "not an address"),
            ("redis+sentinel://:hunter2@a/cache/first", "number of a database"),
            ("redis+sentinel://a/cache?password=hunter2", "only the parameters"),
            ("redis+sentinel://a/cache?sentinel_username=hunter2", "without sentinel_password"),
        ] {
            let error = parse(url).err().unwrap().to_string();
            assert!(error.starts_with("invalid Redis URL: ") && error.contains(reason), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
