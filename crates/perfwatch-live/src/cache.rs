//! What lists and pages show of things that are known elsewhere or cost more to work out: kept for
//! a while in this hub's memory, and in Redis where hubs on one store share what each of them saw.
//!
//! Nothing here is the only copy and nothing waits for it: what is missing is worked out again or
//! not shown, and while Redis is away each hub goes on with its own.

use perfwatch_model::Clock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use redis::Client;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A Redis that takes longer is away.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// One that is away is not asked for so long.
const BREAKER_COOLDOWN: Duration = Duration::from_secs(5);
/// Things in this hub's own memory.
const MAX_ENTRIES: usize = 50_000;
/// Bytes of one; a larger one is not kept.
const MAX_ENTRY_BYTES: usize = 64 << 10;

struct CacheEntry {
    body: Vec<u8>,
    expires_at: Duration,
}

/// Counted for the hub's own metrics.
#[derive(Clone, Default)]
pub struct Counts {
    pub redis_errors: Counter,
}

impl Counts {
    pub fn register(&self, r: &mut Registry) {
        r.register("redis_errors", "Failed Redis commands.", self.redis_errors.clone());
    }
}

/// For a while.
pub struct Cache {
    clock: Arc<dyn Clock>,
    counts: Counts,
    local: Mutex<HashMap<String, CacheEntry>>,
    redis: Option<RedisBackend>,
}

/// A Redis.
struct RedisBackend {
    client: Client,
    /// Before each key: others may use the same Redis, other installations of ours among them.
    prefix: String,
    /// None after it failed: one that hangs or was turned away is not asked again.
    connection: Mutex<Option<ConnectionManager>>,
    /// While it is away: not asked before, milliseconds of the monotonic clock.
    open_until_ms: AtomicU64,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Redis URL that cannot be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid Redis URL; expected redis://:password@host:6379/0, or rediss://… for TLS")]
pub struct CacheUrlError;

impl Cache {
    /// In memory, or shared by a Redis, which need not be there now, with all hubs of a site.
    ///
    /// # Errors
    /// An address that can't be one.
    pub fn open(
        redis: Option<&str>,
        site: &str,
        clock: Arc<dyn Clock>,
        counts: Counts,
    ) -> Result<Self, CacheUrlError> {
        // The client's own error may contain the password.
        let client = redis.map(Client::open).transpose().map_err(|_| CacheUrlError)?;
        let shared = client.map(|client| RedisBackend {
            client,
            prefix: format!("perfwatch:{site}:"),
            connection: Mutex::default(),
            open_until_ms: AtomicU64::new(0),
        });
        Ok(Self { clock, counts, local: Mutex::default(), redis: shared })
    }

    /// What is known by these keys, in their order.
    pub async fn get<T: DeserializeOwned>(&self, keys: &[String]) -> Vec<Option<T>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mget = |prefix: &str| {
            let mut ask = redis::cmd("MGET");
            keys.iter().for_each(|key| {
                ask.arg(format!("{prefix}{key}"));
            });
            ask
        };
        let shared: Vec<Option<Vec<u8>>> = self.redis_command(mget).await.unwrap_or_default();
        // What Redis forgot, or was never told while it was away, this hub may know.
        let own = self.local(keys).into_iter().enumerate();
        let found = own.map(|(at, own)| shared.get(at).cloned().flatten().or(own));
        // Of another version, it is as if it were not there.
        found.map(|body| serde_json::from_slice(&body?).ok()).collect()
    }

    fn local(&self, keys: &[String]) -> Vec<Option<Vec<u8>>> {
        let now = self.clock.monotonic();
        let own = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let get = |key| own.get(key).filter(|kept| kept.expires_at > now).map(|kept| kept.body.clone());
        keys.iter().map(get).collect()
    }

    /// Keeps something for a while.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T, lasts: Duration) {
        let Ok(body) = serde_json::to_vec(value) else { return };
        if body.len() > MAX_ENTRY_BYTES {
            return;
        }
        {
            let now = self.clock.monotonic();
            let mut own = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            if own.len() >= MAX_ENTRIES {
                own.retain(|_, kept| kept.expires_at > now);
            }
            if own.len() < MAX_ENTRIES {
                own.insert(key.to_owned(), CacheEntry { body: body.clone(), expires_at: now + lasts });
            }
        }
        let set = |prefix: &str| {
            let mut ask = redis::cmd("PSETEX");
            ask.arg(format!("{prefix}{key}")).arg(ms(lasts)).arg(&body);
            ask
        };
        let _: Option<()> = self.redis_command(set).await;
    }

    /// Lets go of what is too old.
    pub fn prune(&self) {
        let now = self.clock.monotonic();
        self.local.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, kept| kept.expires_at > now);
    }

    /// What Redis says; nothing where there is none, or it is away.
    async fn redis_command<T: redis::FromRedisValue>(
        &self,
        command: impl Fn(&str) -> redis::Cmd,
    ) -> Option<T> {
        let shared = self.redis.as_ref()?;
        let now_ms = ms(self.clock.monotonic());
        let rests_until_ms = shared.open_until_ms.load(Ordering::Relaxed);
        if rests_until_ms > now_ms {
            return None;
        }
        // Of many who come when its rest is over, one tries.
        let next_ms = now_ms + ms(REDIS_TIMEOUT);
        let tries =
            |from| shared.open_until_ms.compare_exchange(from, next_ms, Ordering::Relaxed, Ordering::Relaxed);
        if rests_until_ms > 0 && tries(rests_until_ms).is_err() {
            return None;
        }
        let answer = match shared.execute(&command(&shared.prefix)).await {
            // One that was held may have ended since it was used: by a restart there, say.
            Err((_, Attempt::Reused)) => shared.execute(&command(&shared.prefix)).await,
            answer => answer,
        };
        let why = match answer {
            Ok(answer) => {
                if rests_until_ms > 0 {
                    shared.open_until_ms.store(0, Ordering::Relaxed);
                    tracing::info!("Redis connection restored");
                }
                return Some(answer);
            }
            Err((why, _)) => why,
        };
        self.counts.redis_errors.inc();
        let until_ms = ms(self.clock.monotonic() + BREAKER_COOLDOWN);
        if shared.open_until_ms.swap(until_ms, Ordering::Relaxed) == 0 {
            tracing::warn!(why, "Redis unavailable; using the local cache only");
        }
        None
    }
}

impl RedisBackend {
    fn lock(&self) -> MutexGuard<'_, Option<ConnectionManager>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says it once. What failed is not used again: a connection may hang, or have been turned away.
    async fn execute<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, (String, Attempt)> {
        let made = self.connection().map_err(|error| (error.to_string(), Attempt::Fresh))?;
        let (mut connection, attempt) = made;
        let why = match tokio::time::timeout(REDIS_TIMEOUT, command.query_async::<T>(&mut connection)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if error.is_timeout() => (error.to_string(), Attempt::Fresh),
            Ok(Err(error)) => (error.to_string(), attempt),
            Err(_) => ("command timed out".to_owned(), Attempt::Fresh),
        };
        self.lock().take();
        Err(why)
    }

    /// The connection that is held, or a new one.
    fn connection(&self) -> redis::RedisResult<(ConnectionManager, Attempt)> {
        let mut known = self.lock();
        if let Some(connection) = &*known {
            return Ok((connection.clone(), Attempt::Reused));
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(REDIS_TIMEOUT))
            .set_response_timeout(Some(REDIS_TIMEOUT))
            .set_number_of_retries(1);
        let new = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok((known.insert(new).clone(), Attempt::Fresh))
    }
}

/// Whether another attempt may go better at once.
enum Attempt {
    Reused,
    Fresh,
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{ManualClock, SystemClock};
    use perfwatch_testkit::redis::Redis;

    const MINUTE: Duration = Duration::from_secs(60);

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[tokio::test]
    async fn entries_expire() {
        let clock = Arc::new(ManualClock::starting_at(0));
        let cache = Cache::open(None, "site", clock.clone(), Counts::default()).unwrap();
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
        let cache = Cache::open(None, "site", clock.clone(), Counts::default()).unwrap();
        for at in 0..=MAX_ENTRIES {
            cache.put(&at.to_string(), &at, MINUTE).await;
        }
        assert_eq!(cache.local.lock().unwrap().len(), MAX_ENTRIES);
        assert_eq!(cache.get::<usize>(&keys(&["0", &MAX_ENTRIES.to_string()])).await, [Some(0), None]);
        // What is too old makes room.
        clock.advance(MINUTE);
        cache.put("new", &1, MINUTE).await;
        assert_eq!(cache.local.lock().unwrap().len(), 1);
    }

    fn at(redis: &Redis, site: &str) -> Cache {
        let clock = Arc::new(SystemClock::new());
        Cache::open(Some(&redis.url()), site, clock, Counts::default()).unwrap()
    }

    /// Its rest is over.
    fn rested(cache: &Cache) {
        cache.redis.as_ref().unwrap().open_until_ms.store(1, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn cache_is_shared_and_survives_redis_outage() {
        let mut redis = Redis::start();
        let (one, other, stranger) = (at(&redis, "site"), at(&redis, "site"), at(&redis, "elsewhere"));
        one.put("seen", &41, MINUTE).await;
        one.put("short", &1, Duration::from_millis(30)).await;
        assert_eq!(other.get::<i32>(&keys(&["seen", "none"])).await, [Some(41), None]);
        assert_eq!(stranger.get::<i32>(&keys(&["seen"])).await, [None]);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(other.get::<i32>(&keys(&["short"])).await, [None]);
        // It stands still: each has what it saw itself, and does not wait again.
        redis.signal("STOP");
        one.put("mine", &42, MINUTE).await;
        assert_eq!(one.counts.redis_errors.get(), 1);
        assert_eq!(one.get::<i32>(&keys(&["mine", "seen"])).await, [Some(42), Some(41)]);
        assert_eq!(one.counts.redis_errors.get(), 1);
        // Of many who come after its rest, one waits.
        rested(&one);
        let ask = keys(&["mine"]);
        let (a, b) = tokio::join!(one.get::<i32>(&ask), one.get::<i32>(&ask));
        assert_eq!((a, b, one.counts.redis_errors.get()), (vec![Some(42)], vec![Some(42)], 2));
        // Back with nothing: what this hub knows is known still, and new things are shared.
        redis.restart();
        rested(&one);
        assert_eq!(one.get::<i32>(&keys(&["mine"])).await, [Some(42)]);
        one.put("again", &43, MINUTE).await;
        assert_eq!((one.counts.redis_errors.get(), other.counts.redis_errors.get()), (2, 0));
        rested(&other);
        assert_eq!(other.get::<i32>(&keys(&["again"])).await, [Some(43)]);
    }

    #[tokio::test]
    async fn redis_reconnects_after_auth_error() {
        let redis = Redis::start();
        let url = redis.url() + "?pass=hunter2";
        let cache = Cache::open(Some(&url), "site", Arc::new(SystemClock::new()), Counts::default()).unwrap();
        // It has none, and turns away who says one.
        cache.put("a", &1, MINUTE).await;
        assert_eq!(cache.counts.redis_errors.get(), 1);
        let mut connection = ConnectionManager::new(Client::open(redis.url()).unwrap()).await.unwrap();
        let set = redis::cmd("CONFIG").arg(&["SET", "requirepass", "hunter2"]).to_owned();
        set.query_async::<()>(&mut connection).await.unwrap();
        rested(&cache);
        cache.put("a", &2, MINUTE).await;
        assert_eq!(cache.counts.redis_errors.get(), 1);
    }

    #[tokio::test]
    async fn invalid_redis_url_error_hides_password() {
        for url in ["", "http://:hunter2@host", "redis://:hunter2@[", "host:6379"] {
            let open =
                Cache::open(Some(url), "site", Arc::new(ManualClock::starting_at(0)), Counts::default());
            let problem = open.err().unwrap().to_string();
            assert!(problem.starts_with("redis: ") && !problem.contains("hunter2"), "{problem}");
        }
    }
}
