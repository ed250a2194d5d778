//! Stream of accepted snapshots between the hubs of an installation: a Redis stream (XADD, XREAD) that every hub
//! appends to and reads. In contrast to publish/subscribe, a hub that lost its connection, or that starts, continues
//! with what it missed within the recent window. Lost entries are no lost data: the history is in the store.

use crate::redis_site::RedisSite;
pub use crate::redis_site::check_url;
pub use crate::redis_url_error::RedisUrlError;
use perfwatch_model::limits;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Timeout of connections and commands, apart from the time in which a read waits for entries.
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time in which a read waits for entries.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of entries of a read.
const MAX_READ_ENTRIES: usize = 16;
/// Time in which a shape is available to other hubs after it was last sent.
const SHAPE_TTL: Duration = Duration::from_secs(1_800);

/// Key of the stream, after the prefix of the installation.
const STREAM_KEY: &str = "live";
const FIELD_HUB: &str = "h";
const FIELD_PAYLOAD: &str = "p";

/// Prometheus metrics of the stream. Clones share their values.
#[derive(Clone, Default)]
pub struct LiveStreamMetrics {
    /// Number of snapshots sent to other hubs.
    pub sent: Counter,
    /// Number of snapshots received from other hubs.
    pub received: Counter,
    /// Number of snapshots that did not reach other hubs, or not this hub.
    pub lost: Counter,
}

impl LiveStreamMetrics {
    /// Registers the metrics of the stream.
    pub fn register(&self, r: &mut Registry) {
        // The registry appends a period to the descriptions.
        r.register("mirror_sent_snapshots", "Snapshots sent to other hubs through Redis", self.sent.clone());
        r.register(
            "mirror_received_snapshots",
            "Snapshots received from other hubs through Redis",
            self.received.clone(),
        );
        r.register(
            "mirror_lost_snapshots",
            "Snapshots that other hubs do not show live, because Redis was away for long",
            self.lost.clone(),
        );
    }
}

/// Time that a reader goes back when it connects again. A new primary may lack the newest entries of the previous one, and
/// its clock may be behind.
const REWIND_MS: i64 = 10_000;

/// Stream of an installation in Redis.
pub struct LiveStream {
    site: RedisSite,
    /// Address of the primary that was connected last; empty without sentinels.
    primary: Mutex<String>,
}

/// Connection that appends entries.
pub struct StreamWriter {
    connection: MultiplexedConnection,
    /// Address of the primary; empty without sentinels.
    primary: String,
    prefix: String,
    /// Time of the newest entry by the clock of Redis, Unix milliseconds; 0 before the first.
    newest_ms: i64,
}

/// Connection that reads entries.
pub struct StreamReader {
    connection: MultiplexedConnection,
    /// Address of the primary; empty without sentinels.
    primary: String,
    prefix: String,
}

/// Connection to a primary.
pub trait PrimaryConnection {
    /// Address of the primary; empty without sentinels.
    fn primary(&self) -> &str;
}

impl PrimaryConnection for StreamWriter {
    fn primary(&self) -> &str {
        &self.primary
    }
}

impl PrimaryConnection for StreamReader {
    fn primary(&self) -> &str {
        &self.primary
    }
}

/// Entry of the stream.
pub struct StreamEntry {
    /// Id of the entry, which Redis assigned; it starts with a time in milliseconds.
    pub id: String,
    /// Hub that appended the entry.
    pub hub: String,
    /// Content.
    pub payload: Vec<u8>,
}

/// Response to XREAD: entries with their fields, by stream.
type ReadResponse = Option<Vec<(String, Vec<(String, HashMap<String, Vec<u8>>)>)>>;

impl LiveStream {
    /// Stream of the installation `site`. Redis does not have to be available.
    ///
    /// # Errors
    /// Returns [`RedisUrlError`] if the URL is invalid.
    pub fn open(redis_url: &str, site: &str) -> Result<Self, RedisUrlError> {
        Ok(Self { site: RedisSite::open(redis_url, site)?, primary: Mutex::default() })
    }

    /// Opens a connection.
    async fn connect(
        &self,
        response_timeout: Duration,
    ) -> Result<(MultiplexedConnection, String), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(REDIS_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        let (connection, primary) = self.site.connect(&config).await?;
        self.lock_primary().clone_from(&primary);
        Ok((connection, primary))
    }

    /// Opens a connection that appends.
    ///
    /// # Errors
    /// Returns the error of Redis.
    pub async fn writer(&self) -> Result<StreamWriter, RedisError> {
        let (connection, primary) = self.connect(REDIS_TIMEOUT).await?;
        Ok(StreamWriter { connection, primary, prefix: self.site.prefix.clone(), newest_ms: 0 })
    }

    /// Opens a connection that reads.
    ///
    /// # Errors
    /// Returns the error of Redis.
    pub async fn reader(&self) -> Result<StreamReader, RedisError> {
        let (connection, primary) = self.connect(REDIS_TIMEOUT + READ_TIMEOUT).await?;
        Ok(StreamReader { connection, primary, prefix: self.site.prefix.clone() })
    }
}

impl LiveStream {
    fn lock_primary(&self) -> MutexGuard<'_, String> {
        self.primary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a connection leads to another primary than the one that was opened last.
    pub fn is_outdated(&self, connection: &impl PrimaryConnection) -> bool {
        *self.lock_primary() != connection.primary()
    }

    /// Returns whether the sentinels name another primary than the one that was connected last. A primary that is cut off
    /// from them may still respond.
    pub async fn has_moved(&self) -> bool {
        self.site.primary().await.is_some_and(|primary| *self.lock_primary() != primary)
    }
}

/// Position before the entries that a reader may have missed when it lost its connection.
pub fn rewind(position: &str) -> String {
    let ms: i64 = position.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
    format!("{}-0", (ms - REWIND_MS).max(0))
}

fn shape_key(prefix: &str, id: [u8; 16]) -> String {
    format!("{prefix}shape:{:032x}", u128::from_be_bytes(id))
}

/// Time of the clock of Redis, Unix milliseconds.
async fn redis_time_ms(connection: &mut MultiplexedConnection) -> Result<i64, RedisError> {
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(connection).await?;
    Ok(seconds * 1_000 + micros / 1_000)
}

impl StreamWriter {
    /// Appends an entry, and removes entries that are older than the recent window by the clock of Redis.
    ///
    /// # Errors
    /// Returns the error of Redis, for example if its memory is full (`maxmemory`).
    pub async fn append(&mut self, hub: &str, payload: &[u8]) -> Result<(), RedisError> {
        let min_ms = (self.newest_ms - limits::RECENT_WINDOW_MS).max(0);
        let mut command = redis::cmd("XADD");
        command.arg(format!("{}{STREAM_KEY}", self.prefix)).arg(&["MINID", "~"]).arg(min_ms).arg("*");
        command.arg(FIELD_HUB).arg(hub).arg(FIELD_PAYLOAD).arg(payload);
        let id: String = command.query_async(&mut self.connection).await?;
        self.newest_ms = id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
        Ok(())
    }

    /// Makes an encoded shape available to other hubs.
    ///
    /// # Errors
    /// Returns the error of Redis.
    pub async fn put_shape(&mut self, id: [u8; 16], encoded: &[u8]) -> Result<(), RedisError> {
        let mut command = redis::cmd("SETEX");
        command.arg(shape_key(&self.prefix, id)).arg(SHAPE_TTL.as_secs()).arg(encoded);
        command.query_async(&mut self.connection).await
    }
}

impl StreamReader {
    /// Position of the oldest entry in the recent window.
    ///
    /// # Errors
    /// Returns the error of Redis.
    pub async fn start_of_window(&mut self) -> Result<String, RedisError> {
        Ok(format!("{}-0", redis_time_ms(&mut self.connection).await? - limits::RECENT_WINDOW_MS))
    }

    /// Waits a short time for entries after a position, and returns them in their order.
    ///
    /// # Errors
    /// Returns the error of Redis.
    pub async fn read(&mut self, after: &str) -> Result<Vec<StreamEntry>, RedisError> {
        let wait_ms = u64::try_from(READ_TIMEOUT.as_millis()).unwrap_or_default();
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(MAX_READ_ENTRIES).arg("BLOCK").arg(wait_ms);
        command.arg("STREAMS").arg(format!("{}{STREAM_KEY}", self.prefix)).arg(after);
        let streams: ReadResponse = command.query_async(&mut self.connection).await?;
        let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
        let entry = |(id, mut fields): (String, HashMap<String, Vec<u8>>)| StreamEntry {
            id,
            hub: fields.remove(FIELD_HUB).and_then(|hub| String::from_utf8(hub).ok()).unwrap_or_default(),
            payload: fields.remove(FIELD_PAYLOAD).unwrap_or_default(),
        };
        Ok(entries.map(entry).collect())
    }

    /// Encoded shape that another hub made available.
    ///
    /// # Errors
    /// Returns the error of Redis.
    pub async fn shape(&mut self, id: [u8; 16]) -> Result<Option<Vec<u8>>, RedisError> {
        redis::cmd("GET").arg(shape_key(&self.prefix, id)).query_async(&mut self.connection).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_testkit::redis_sentinel::RedisSentinel;

    #[test]
    fn positions_are_rewound_to_the_start_at_most() {
        assert_eq!(rewind("1700000010000-7"), "1700000000000-0");
        assert_eq!(rewind("9-1"), "0-0");
        assert_eq!(rewind(""), "0-0");
    }

    #[tokio::test]
    async fn stream_notices_that_the_primary_moved() {
        let redis = RedisSentinel::start(None);
        let stream = LiveStream::open(&redis.url(), "site").unwrap();
        let (mut writer, mut reader) = (stream.writer().await.unwrap(), stream.reader().await.unwrap());
        writer.append("hub", b"1").await.unwrap();
        let position = reader.read("0-0").await.unwrap().remove(0).id;
        assert!(!stream.has_moved().await && !stream.is_outdated(&writer));
        redis.switch_primary();
        let moved = async {
            while !stream.has_moved().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), moved).await.unwrap();
        // The earlier primary may respond as the primary for some time.
        let (earlier_writer, earlier_reader) = (writer, reader);
        let mut writer = stream.writer().await.unwrap();
        assert!(!stream.has_moved().await && !stream.is_outdated(&writer));
        assert!(stream.is_outdated(&earlier_writer) && stream.is_outdated(&earlier_reader));
        let mut reader = stream.reader().await.unwrap();
        writer.append("hub", b"2").await.unwrap();
        let payloads = async |reader: &mut StreamReader, after: &str| -> Vec<Vec<u8>> {
            reader.read(after).await.unwrap().into_iter().map(|entry| entry.payload).collect()
        };
        assert_eq!(payloads(&mut reader, &position).await, [b"2"]);
        assert_eq!(payloads(&mut reader, &rewind(&position)).await, [b"1", b"2"]);
    }
}
