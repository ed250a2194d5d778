//! What lists and pages show of things that are known elsewhere or cost more to work out: kept for
//! a while in this hub's memory, and in Redis where several hubs share what each of them saw.
//!
//! Nothing here is the only copy and nothing waits for it: what is missing is worked out again or
//! not shown, and while Redis is away each hub goes on with its own.

use crate::config::HubProblem;
use perfwatch_model::Clock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A Redis that takes longer is away.
const WAIT: Duration = Duration::from_millis(500);
/// One that is away is not asked for so long.
const REST: Duration = Duration::from_secs(5);
/// Things in this hub's own memory.
const MOST: usize = 50_000;
/// Bytes of one; a larger one is not kept.
const MOST_BYTES: usize = 64 << 10;
/// Before each key: a database of Redis may be used by others, too.
const PREFIX: &str = "perfwatch:";

struct Kept {
    body: Vec<u8>,
    until: Duration,
}

/// Counted for the hub's own metrics.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    pub(crate) away: Counter,
}

impl Counts {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("redis_errors", "Times that Redis did not answer as it should", self.away.clone());
    }
}

/// For a while.
pub(crate) struct Cache {
    clock: Arc<dyn Clock>,
    counts: Counts,
    own: Mutex<HashMap<String, Kept>>,
    shared: Option<ConnectionManager>,
    /// Not asked before, milliseconds of the monotonic clock.
    rests_until_ms: AtomicU64,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Cache {
    /// In memory, or shared by a Redis, which need not be there now.
    ///
    /// # Errors
    /// An address that can't be one.
    pub(crate) fn open(
        redis: Option<&str>,
        clock: Arc<dyn Clock>,
        counts: Counts,
    ) -> Result<Self, HubProblem> {
        // Its words may hold the password.
        let wrong = |_| HubProblem {
            key: "redis",
            message: "an address such as redis://:password@host:6379/0, or rediss://… for TLS".to_owned(),
        };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(WAIT))
            .set_response_timeout(Some(WAIT))
            .set_number_of_retries(1);
        let connect = |url: &str| {
            let client = redis::Client::open(url)?;
            ConnectionManager::new_lazy_with_config(client, config)
        };
        let shared = redis.map(connect).transpose().map_err(wrong)?;
        Ok(Self { clock, counts, own: Mutex::default(), shared, rests_until_ms: AtomicU64::new(0) })
    }

    /// What is known by these keys, in their order.
    pub(crate) async fn get<T: DeserializeOwned>(&self, keys: &[String]) -> Vec<Option<T>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mut ask = redis::cmd("MGET");
        keys.iter().for_each(|key| {
            ask.arg(format!("{PREFIX}{key}"));
        });
        let found: Option<Vec<Option<Vec<u8>>>> = self.ask(&ask).await;
        let found = found.filter(|found| found.len() == keys.len()).unwrap_or_else(|| self.own(keys));
        // Of another version, it is as if it were not there.
        found.into_iter().map(|body| serde_json::from_slice(&body?).ok()).collect()
    }

    fn own(&self, keys: &[String]) -> Vec<Option<Vec<u8>>> {
        let now = self.clock.monotonic();
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let get = |key| own.get(key).filter(|kept| kept.until > now).map(|kept| kept.body.clone());
        keys.iter().map(get).collect()
    }

    /// Keeps something for a while.
    pub(crate) async fn put<T: Serialize>(&self, key: &str, value: &T, lasts: Duration) {
        let Ok(body) = serde_json::to_vec(value) else { return };
        if body.len() > MOST_BYTES {
            return;
        }
        let mut ask = redis::cmd("PSETEX");
        ask.arg(format!("{PREFIX}{key}")).arg(ms(lasts)).arg(&body);
        {
            let now = self.clock.monotonic();
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            if own.len() >= MOST {
                own.retain(|_, kept| kept.until > now);
            }
            if own.len() < MOST {
                own.insert(key.to_owned(), Kept { body, until: now + lasts });
            }
        }
        let _: Option<()> = self.ask(&ask).await;
    }

    /// It is not so any more.
    pub(crate) async fn forget(&self, key: &str) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let mut ask = redis::cmd("DEL");
        ask.arg(format!("{PREFIX}{key}"));
        let _: Option<u64> = self.ask(&ask).await;
    }

    /// Lets go of what is too old.
    pub(crate) fn prune(&self) {
        let now = self.clock.monotonic();
        self.own.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, kept| kept.until > now);
    }

    /// What Redis says; nothing where there is none, or it is away.
    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let mut connection = self.shared.clone()?;
        let rests_until_ms = self.rests_until_ms.load(Ordering::Relaxed);
        if rests_until_ms > ms(self.clock.monotonic()) {
            return None;
        }
        let answer = tokio::time::timeout(WAIT, command.query_async::<T>(&mut connection)).await;
        let why = match answer {
            Ok(Ok(answer)) => {
                if rests_until_ms > 0 && self.rests_until_ms.swap(0, Ordering::Relaxed) > 0 {
                    tracing::info!("Redis answers again");
                }
                return Some(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not answer in time".to_owned(),
        };
        self.counts.away.inc();
        let until_ms = ms(self.clock.monotonic() + REST);
        if self.rests_until_ms.swap(until_ms, Ordering::Relaxed) == 0 {
            tracing::warn!(why, "Redis is away: this hub goes on with what it knows itself");
        }
        None
    }
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
    async fn things_are_kept_for_their_time() {
        let clock = Arc::new(ManualClock::at(0));
        let cache = Cache::open(None, clock.clone(), Counts::default()).unwrap();
        cache.put("a", &1, MINUTE).await;
        cache.put("b", &"text", MINUTE * 2).await;
        cache.put("huge", &"x".repeat(MOST_BYTES), MINUTE).await;
        assert_eq!(cache.get::<i32>(&keys(&["b", "a", "huge", "none"])).await, [None, Some(1), None, None]);
        clock.advance(MINUTE);
        assert_eq!(cache.get::<i32>(&keys(&["a"])).await, [None]);
        assert_eq!(cache.get::<String>(&keys(&["b"])).await, [Some("text".to_owned())]);
        cache.prune();
        assert_eq!(cache.own.lock().unwrap().len(), 1);
        cache.forget("b").await;
        assert_eq!(cache.get::<String>(&keys(&["b"])).await, [None]);
    }

    #[tokio::test]
    async fn it_is_bounded() {
        let clock = Arc::new(ManualClock::at(0));
        let cache = Cache::open(None, clock.clone(), Counts::default()).unwrap();
        for at in 0..=MOST {
            cache.put(&at.to_string(), &at, MINUTE).await;
        }
        assert_eq!(cache.own.lock().unwrap().len(), MOST);
        assert_eq!(cache.get::<usize>(&keys(&["0", &MOST.to_string()])).await, [Some(0), None]);
        // What is too old makes room.
        clock.advance(MINUTE);
        cache.put("new", &1, MINUTE).await;
        assert_eq!(cache.own.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn hubs_share_what_they_saw_and_go_on_without_redis() {
        let mut redis = Redis::start();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let open = || Cache::open(Some(&redis.url()), clock.clone(), Counts::default()).unwrap();
        let (one, other) = (open(), open());
        one.put("seen", &41, MINUTE).await;
        one.put("short", &1, Duration::from_millis(30)).await;
        assert_eq!(other.get::<i32>(&keys(&["seen", "none"])).await, [Some(41), None]);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(other.get::<i32>(&keys(&["short"])).await, [None]);
        other.forget("seen").await;
        assert_eq!(one.get::<i32>(&keys(&["seen"])).await, [None]);
        // It stands still, then it is gone: each has what it saw itself, and does not wait again.
        redis.signal("STOP");
        one.put("mine", &42, MINUTE).await;
        assert_eq!(one.counts.away.get(), 1);
        assert_eq!(one.get::<i32>(&keys(&["mine"])).await, [Some(42)]);
        assert_eq!(one.counts.away.get(), 1);
        redis.kill();
        one.rests_until_ms.store(1, Ordering::Relaxed);
        assert_eq!(one.get::<i32>(&keys(&["mine"])).await, [Some(42)]);
        redis.restart();
        one.rests_until_ms.store(1, Ordering::Relaxed);
        // The first word after it came back may still go to where it was.
        for _ in 0..50 {
            one.put("again", &43, MINUTE).await;
            one.rests_until_ms.store(1, Ordering::Relaxed);
            if other.get::<i32>(&keys(&["again"])).await == [Some(43)] {
                return;
            }
            other.rests_until_ms.store(0, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it is not shared again");
    }

    #[tokio::test]
    async fn an_address_that_can_not_be_is_told_without_its_password() {
        for url in ["", "http://:hunter2@host", "redis://:hunter2@[", "host:6379"] {
            let open = Cache::open(Some(url), Arc::new(ManualClock::at(0)), Counts::default());
            let problem = open.err().unwrap().to_string();
            assert!(problem.starts_with("redis: ") && !problem.contains("hunter2"), "{problem}");
        }
    }
}
