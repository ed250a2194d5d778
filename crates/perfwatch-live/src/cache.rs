//! TTL cache in local memory, optionally shared through Redis.
//!
//! The cache contains copies of data that is stored elsewhere or expensive to compute. Hubs that use the same
//! store share it through Redis. Nothing waits for the cache: missing entries are computed again or not
//! shown. If Redis is unavailable, each hub uses its local entries.

use crate::redis_site::RedisSite;
pub use crate::redis_url_error::RedisUrlError;
use perfwatch_model::Clock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Timeout of Redis connections and commands.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// Timeout of a command that opens a connection first, for which it may have to find the server or wait for others.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Time without Redis commands after a failure (circuit breaker).
const BREAKER_COOLDOWN_PERIOD: Duration = Duration::from_secs(5);
/// Maximum number of entries in local memory.
const MAX_ENTRIES: usize = 50_000;
/// Maximum size of an entry. Larger entries are not cached.
const MAX_ENTRY_BYTES: usize = 64 << 10;

struct CacheEntry {
    body: Vec<u8>,
    /// Expiry time on the monotonic clock.
    expires_at: Duration,
}

/// Prometheus metrics of the cache. Clones share their values.
#[derive(Clone, Default)]
pub struct CacheMetrics {
    /// Number of failed Redis commands.
    pub redis_errors: Counter,
}

impl CacheMetrics {
    /// Registers the metrics of the cache.
    pub fn register(&self, r: &mut Registry) {
        // The registry appends a period to the description.
        r.register("redis_errors", "Failed Redis commands", self.redis_errors.clone());
    }
}

/// Cache with an expiry time per entry.
pub struct Cache {
    clock: Arc<dyn Clock>,
    metrics: CacheMetrics,
    local: Mutex<HashMap<String, CacheEntry>>,
    redis: Option<RedisBackend>,
}

/// Connection to Redis with a circuit breaker.
struct RedisBackend {
    site: RedisSite,
    /// `None` after a failure: the next command opens a new connection.
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Held while a connection is opened: of concurrent commands, only the first opens one.
    opening: tokio::sync::Mutex<()>,
    /// Number of connections that could not be opened.
    failed_openings: AtomicU64,
    /// End of the cooldown in milliseconds of the monotonic clock; 0 while Redis is available.
    open_until_ms: AtomicU64,
}

/// Connection that a command used, which decides whether a retry is useful.
enum Attempt {
    /// Connection of an earlier command, possibly closed since.
    Reused,
    /// New connection, or a failure that a new connection would not avoid.
    Fresh,
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Cache {
    /// Opens a cache in local memory or, with a Redis URL, shared by all hubs of the installation `site`.
    /// Redis does not have to be available.
    ///
    /// # Errors
    /// Returns [`RedisUrlError`] if the Redis URL is invalid.
    pub fn open(
        redis_url: Option<&str>,
        site: &str,
        clock: Arc<dyn Clock>,
        metrics: CacheMetrics,
    ) -> Result<Self, RedisUrlError> {
        let site = redis_url.map(|url| RedisSite::open(url, site)).transpose()?;
        let redis = site.map(|site| RedisBackend {
            site,
            connection: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            failed_openings: AtomicU64::new(0),
            open_until_ms: AtomicU64::new(0),
        });
        Ok(Self { clock, metrics, local: Mutex::default(), redis })
    }

    /// Entries of the keys, in their order.
    pub async fn get<T: DeserializeOwned>(&self, keys: &[String]) -> Vec<Option<T>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mget = |prefix: &str| {
            let mut command = redis::cmd("MGET");
            keys.iter().for_each(|key| {
                command.arg(format!("{prefix}{key}"));
            });
            command
        };
        let shared: Vec<Option<Vec<u8>>> = self.redis_command(mget).await.unwrap_or_default();
        // Local entries fill in for entries that Redis evicted or missed during an outage.
        let local = self.get_local(keys).into_iter().enumerate();
        let bodies = local.map(|(index, local)| shared.get(index).cloned().flatten().or(local));
        // Entries of another version that cannot be decoded count as missing.
        bodies.map(|body| serde_json::from_slice(&body?).ok()).collect()
    }

    fn get_local(&self, keys: &[String]) -> Vec<Option<Vec<u8>>> {
        let now = self.clock.monotonic();
        let entries = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let body = |key| entries.get(key).filter(|entry| entry.expires_at > now).map(|entry| &entry.body);
        keys.iter().map(|key| body(key).cloned()).collect()
    }

    /// Caches a value for the duration `ttl`.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T, ttl: Duration) {
        let Ok(body) = serde_json::to_vec(value) else { return };
        if body.len() > MAX_ENTRY_BYTES {
            return;
        }
        {
            let now = self.clock.monotonic();
            let mut entries = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            if entries.len() >= MAX_ENTRIES {
                entries.retain(|_, entry| entry.expires_at > now);
            }
            if entries.len() < MAX_ENTRIES {
                entries.insert(key.to_owned(), CacheEntry { body: body.clone(), expires_at: now + ttl });
            }
        }
        let psetex = |prefix: &str| {
            let mut command = redis::cmd("PSETEX");
            command.arg(format!("{prefix}{key}")).arg(to_ms(ttl)).arg(&body);
            command
        };
        let _: Option<()> = self.redis_command(psetex).await;
    }

    /// Removes expired local entries.
    pub fn prune(&self) {
        let now = self.clock.monotonic();
        self.local.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, entry| entry.expires_at > now);
    }

    /// Runs a command. Returns `None` without Redis, during the cooldown, or after a failure.
    async fn redis_command<T: redis::FromRedisValue>(
        &self,
        command: impl Fn(&str) -> redis::Cmd,
    ) -> Option<T> {
        let redis = self.redis.as_ref()?;
        let now_ms = to_ms(self.clock.monotonic());
        let open_until_ms = redis.open_until_ms.load(Ordering::Relaxed);
        if open_until_ms > now_ms || (open_until_ms > 0 && !redis.claim_probe(open_until_ms, now_ms)) {
            return None;
        }
        let result = match redis.execute(&command(&redis.site.prefix)).await {
            // A reused connection may have been closed since its last use, for example by a restart.
            Err((_, Attempt::Reused)) => redis.execute(&command(&redis.site.prefix)).await,
            result => result,
        };
        let error = match result {
            Ok(value) => {
                if open_until_ms > 0 {
                    redis.open_until_ms.store(0, Ordering::Relaxed);
                    tracing::info!("Redis connection restored");
                }
                return Some(value);
            }
            Err((error, _)) => error,
        };
        self.metrics.redis_errors.inc();
        let until_ms = to_ms(self.clock.monotonic() + BREAKER_COOLDOWN_PERIOD);
        if redis.open_until_ms.swap(until_ms, Ordering::Relaxed) == 0 {
            tracing::warn!(error, "Redis unavailable; using the local cache only");
        }
        None
    }
}

impl RedisBackend {
    /// Claims the attempt after a cooldown: of concurrent commands, only the first tries Redis.
    fn claim_probe(&self, open_until_ms: u64, now_ms: u64) -> bool {
        let next_ms = now_ms + to_ms(ATTEMPT_TIMEOUT);
        let exchange =
            self.open_until_ms.compare_exchange(open_until_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed);
        exchange.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command once. After a failure the connection is dropped: it may hang, Redis may have rejected its
    /// authentication, or the server may be the primary no longer.
    async fn execute<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, (String, Attempt)> {
        let attempt = async {
            let (mut connection, attempt) =
                self.connection().await.map_err(|error| (error.to_string(), Attempt::Fresh))?;
            match command.query_async::<T>(&mut connection).await {
                Ok(value) => Ok(value),
                Err(error) if error.is_timeout() => Err((error.to_string(), Attempt::Fresh)),
                Err(error) => Err((error.to_string(), attempt)),
            }
        };
        let result = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await;
        let result = result.unwrap_or_else(|_| Err(("command timed out".to_owned(), Attempt::Fresh)));
        if result.is_err() {
            self.lock().take();
        }
        result
    }

    /// Current connection, or a new connection.
    async fn connection(&self) -> redis::RedisResult<(MultiplexedConnection, Attempt)> {
        if let Some(connection) = &*self.lock() {
            return Ok((connection.clone(), Attempt::Reused));
        }
        let failed_before = self.failed_openings.load(Ordering::Relaxed);
        let _opening = self.opening.lock().await;
        if let Some(connection) = &*self.lock() {
            return Ok((connection.clone(), Attempt::Fresh));
        }
        if self.failed_openings.load(Ordering::Relaxed) != failed_before {
            return Err((redis::ErrorKind::Io, "Redis was not reached a moment ago").into());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(REDIS_TIMEOUT))
            .set_response_timeout(Some(REDIS_TIMEOUT));
        let connected = self.site.connect(&config).await;
        let (connection, _) = connected.inspect_err(|_| {
            self.failed_openings.fetch_add(1, Ordering::Relaxed);
        })?;
        *self.lock() = Some(connection.clone());
        Ok((connection, Attempt::Fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{ManualClock, SystemClock};
    use perfwatch_testkit::redis::Redis;
    use perfwatch_testkit::redis_sentinel::RedisSentinel;
    use redis::Client;

    const MINUTE: Duration = Duration::from_secs(60);

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[tokio::test]
    async fn entries_expire() {
        let clock = Arc::new(ManualClock::starting_at(0));
        let cache = Cache::open(None, "site", clock.clone(), CacheMetrics::default()).unwrap();
        cache.put("a", &1, MINUTE).await;
        cache.put("b", &"text", MINUTE * 2).await;
        cache.put("huge", &"x".repeat(MAX_ENTRY_BYTES), MINUTE).await;
        assert_eq!(cache.get::<i32>(&keys(&["b", "a", "huge", "none"])).await, [None, Some(1), None, None]);
        clock.advance(MINUTE);
        assert_eq!(cache.get::<i32>(&keys(&["a"])).await, [None]);
        assert_eq!(cache.get::<String>(&keys(&["b"])).await, [Some("text".to_owned())]);
        cache.prune();
        assert_eq!(cache.local.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn cache_size_is_bounded() {
        let clock = Arc::new(ManualClock::starting_at(0));
        let cache = Cache::open(None, "site", clock.clone(), CacheMetrics::default()).unwrap();
        for number in 0..=MAX_ENTRIES {
            cache.put(&number.to_string(), &number, MINUTE).await;
        }
        assert_eq!(cache.local.lock().unwrap().len(), MAX_ENTRIES);
        assert_eq!(cache.get::<usize>(&keys(&["0", &MAX_ENTRIES.to_string()])).await, [Some(0), None]);
        // Expired entries make space for new entries.
        clock.advance(MINUTE);
        cache.put("new", &1, MINUTE).await;
        assert_eq!(cache.local.lock().unwrap().len(), 1);
    }

    fn open(redis: &Redis, site: &str) -> Cache {
        let clock = Arc::new(SystemClock::new());
        Cache::open(Some(&redis.url()), site, clock, CacheMetrics::default()).unwrap()
    }

    /// Ends the cooldown of the circuit breaker.
    fn end_cooldown(cache: &Cache) {
        cache.redis.as_ref().unwrap().open_until_ms.store(1, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn cache_is_shared_and_survives_redis_outage() {
        let mut redis = Redis::start();
        let (first, second) = (open(&redis, "site"), open(&redis, "site"));
        let other_site = open(&redis, "elsewhere");
        first.put("shared", &41, MINUTE).await;
        first.put("short", &1, Duration::from_millis(30)).await;
        assert_eq!(second.get::<i32>(&keys(&["shared", "none"])).await, [Some(41), None]);
        assert_eq!(other_site.get::<i32>(&keys(&["shared"])).await, [None]);
        let expiry = async {
            while second.get::<i32>(&keys(&["short"])).await != [None] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(MINUTE, expiry).await.unwrap();
        // Redis hangs: each hub uses its local entries and does not wait a second time.
        redis.signal("STOP");
        first.put("local", &42, MINUTE).await;
        assert_eq!(first.metrics.redis_errors.get(), 1);
        assert_eq!(first.get::<i32>(&keys(&["local", "shared"])).await, [Some(42), Some(41)]);
        assert_eq!(first.metrics.redis_errors.get(), 1);
        // After the cooldown, only a single concurrent command tries Redis.
        end_cooldown(&first);
        let local_keys = keys(&["local"]);
        let (a, b) = tokio::join!(first.get::<i32>(&local_keys), first.get::<i32>(&local_keys));
        assert_eq!((a, b, first.metrics.redis_errors.get()), (vec![Some(42)], vec![Some(42)], 2));
        // Redis restarts empty: local entries remain, and new entries are shared.
        redis.restart();
        end_cooldown(&first);
        assert_eq!(first.get::<i32>(&keys(&["local"])).await, [Some(42)]);
        first.put("later", &43, MINUTE).await;
        assert_eq!((first.metrics.redis_errors.get(), second.metrics.redis_errors.get()), (2, 0));
        end_cooldown(&second);
        assert_eq!(second.get::<i32>(&keys(&["later"])).await, [Some(43)]);
    }

    #[tokio::test]
    async fn cache_follows_the_primary_of_sentinels() {
        let mut redis = RedisSentinel::start(None);
        let clock = Arc::new(SystemClock::new());
        let open =
            || Cache::open(Some(&redis.url()), "site", clock.clone(), CacheMetrics::default()).unwrap();
        let (first, second) = (open(), open());
        first.put("before", &1, MINUTE).await;
        assert_eq!(second.get::<i32>(&keys(&["before"])).await, [Some(1)]);
        // A sentinel is down, too.
        redis.kill_sentinel(0);
        redis.kill_primary();
        first.put("local", &2, MINUTE).await;
        assert_eq!(first.metrics.redis_errors.get(), 1);
        let failover = async {
            while second.get::<i32>(&keys(&["after"])).await != [Some(3)] {
                tokio::time::sleep(Duration::from_millis(100)).await;
                end_cooldown(&first);
                end_cooldown(&second);
                first.put("after", &3, MINUTE).await;
            }
        };
        tokio::time::timeout(MINUTE, failover).await.unwrap();
    }

    #[tokio::test]
    async fn redis_reconnects_after_auth_error() {
        let redis = Redis::start();
        let url = redis.url() + "?pass=hunter2";
        let cache =
            Cache::open(Some(&url), "site", Arc::new(SystemClock::new()), CacheMetrics::default()).unwrap();
        // Redis has no password and rejects the authentication.
        cache.put("a", &1, MINUTE).await;
        assert_eq!(cache.metrics.redis_errors.get(), 1);
        let client = Client::open(redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let set = redis::cmd("CONFIG").arg(&["SET", "requirepass", "hunter2"]).to_owned();
        set.query_async::<()>(&mut connection).await.unwrap();
        end_cooldown(&cache);
        cache.put("a", &2, MINUTE).await;
        assert_eq!(cache.metrics.redis_errors.get(), 1);
    }

    #[tokio::test]
    async fn invalid_redis_url_error_hides_password() {
        for url in ["", "http://:hunter2@host", "redis://:hunter2@[", "host:6379"] {
            let clock = Arc::new(ManualClock::starting_at(0));
            let result = Cache::open(Some(url), "site", clock, CacheMetrics::default());
            let error = result.err().unwrap().to_string();
            assert!(error.starts_with("invalid Redis URL: ") && error.contains("; expected "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
