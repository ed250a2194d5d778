//! Mirror of accepted snapshots between the hubs of an installation, through Redis: each hub shows every host live,
//! whichever hub the host reports to.
//!
//! A mirrored snapshot is durable at the hub that accepted it. Other hubs add it to their recent window and to the
//! rows that they read; they neither store nor evaluate it. Without Redis each hub shows its own hosts live, and the
//! history of all hosts once it is sealed.

use crate::mirror_payload::{self, MirroredBatch};
use crate::pipeline::{Pipeline, PipelineDeps};
use perfwatch_live::live_stream::{self, LiveStream, StreamEntry, StreamReader, StreamWriter};
use perfwatch_live::{Lagged, LiveReceiver, PublishedSnapshot};
use perfwatch_model::validation::validate_snapshot;
use perfwatch_model::wire::{self, WireError};
use perfwatch_model::{HostId, ShapeId, Snapshot, limits};
use perfwatch_tsdb::{EncodedRow, decode_rows};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Time in which snapshots are collected for an entry of the stream.
const COLLECT_PERIOD: Duration = Duration::from_millis(20);
/// Maximum number of rows of an entry.
const MAX_ENTRY_ROWS: usize = 256;
/// Time between attempts to reach Redis.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Maximum number of queued rows: those of 2,000 hosts at a row per two seconds, for the length of the recent window.
const MAX_QUEUED_ROWS: usize = 300_000;
/// Maximum number of queued rows that are not decoded again when they are sent.
const MAX_DECODED_ROWS: usize = 1_024;
/// Time between checks whether Sentinel made another server the primary.
const PRIMARY_CHECK_PERIOD: Duration = Duration::from_secs(5);
/// Reason for a new connection.
const PRIMARY_MOVED: &str = "Sentinel made another server the primary";
/// Time after which a shape is made available again.
const SHAPE_REPEAT_PERIOD: Duration = Duration::from_secs(600);
/// Time between removals of rows that other hubs sealed.
const SEALED_CHECK_PERIOD: Duration = Duration::from_secs(60);

/// Mirror of a hub.
pub struct Mirror {
    pipeline: Arc<Pipeline>,
    stream: LiveStream,
    /// Id of this run of the hub.
    hub: String,
    queue: Mutex<SendQueue>,
    /// Notified when the queue has rows.
    queued: Notify,
}

/// Row on its way to the stream.
#[derive(Clone)]
struct QueuedRow {
    host: HostId,
    name: Arc<str>,
    /// Shares the memory of the recent window.
    row: EncodedRow,
    /// The row as it was accepted, while the queue is short.
    snapshot: Option<Arc<Snapshot>>,
}

/// Rows that this hub accepted and has not sent, oldest first. While Redis is away, it has those of the recent window.
#[derive(Default)]
struct SendQueue {
    rows: VecDeque<QueuedRow>,
    /// Number of rows that left the queue.
    removed: u64,
}

impl SendQueue {
    /// Adds a row. Returns the number of rows that leave the queue unsent.
    fn push(&mut self, row: QueuedRow, min_ms: i64) -> u64 {
        self.rows.push_back(row);
        if let Some(index) = self.rows.len().checked_sub(MAX_DECODED_ROWS + 1) {
            self.rows[index].snapshot = None;
        }
        let before = self.removed;
        while self.rows.len() > MAX_QUEUED_ROWS
            || self.rows.front().is_some_and(|oldest| oldest.row.at_ms() < min_ms)
        {
            self.rows.pop_front();
            self.removed += 1;
        }
        self.removed - before
    }

    /// The oldest rows, and the number of rows that will have left the queue once they are sent.
    fn oldest(&self) -> (Vec<QueuedRow>, u64) {
        let rows: Vec<QueuedRow> = self.rows.iter().take(MAX_ENTRY_ROWS).cloned().collect();
        let end = self.removed + rows.len() as u64;
        (rows, end)
    }

    /// Removes rows that were sent.
    fn remove_until(&mut self, end: u64) {
        while self.removed < end && self.rows.pop_front().is_some() {
            self.removed += 1;
        }
    }
}

impl Mirror {
    /// Mirror of the snapshots that a pipeline accepts.
    pub fn new(pipeline: Arc<Pipeline>, stream: LiveStream) -> Self {
        let hub = Uuid::new_v4().simple().to_string();
        Self { pipeline, stream, hub, queue: Mutex::default(), queued: Notify::new() }
    }

    fn deps(&self) -> &PipelineDeps {
        self.pipeline.deps()
    }

    fn queue(&self) -> MutexGuard<'_, SendQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends and receives snapshots until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Subscribed before the first await: no snapshot is missed.
        let accepted = self.deps().live_feed.subscribe();
        let work = async {
            tokio::join!(
                self.collect_all(accepted),
                self.send_all(),
                self.receive_all(),
                self.remove_sealed()
            )
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = work => {}
        }
    }

    /// Queues what this hub accepts.
    async fn collect_all(&self, accepted: LiveReceiver) -> ! {
        loop {
            let lost = match accepted.recv().await {
                Ok(published) => self.collect(&published),
                Err(Lagged(count)) => count,
            };
            self.deps().metrics.mirror.lost.inc_by(lost);
        }
    }

    /// Queues a snapshot unless another hub accepted it. Returns the number of rows that leave the queue unsent.
    fn collect(&self, published: &PublishedSnapshot) -> u64 {
        let Some(row) = published.row.clone().filter(|_| !published.is_mirrored) else { return 0 };
        let (host, name) = (published.host, published.name.clone());
        let row = QueuedRow { host, name, row, snapshot: Some(published.snapshot.clone()) };
        let min_ms = self.deps().clock.wall_ms() - limits::RECENT_WINDOW_MS;
        let lost = self.queue().push(row, min_ms);
        self.queued.notify_one();
        lost
    }

    /// Removes rows of other hubs once they are in blocks.
    async fn remove_sealed(&self) {
        loop {
            tokio::time::sleep(SEALED_CHECK_PERIOD).await;
            if let Err(error) = self.deps().history.remove_sealed_mirrored().await {
                tracing::debug!(error = %error, "sealed rows of other hubs are removed later");
            }
        }
    }

    /// Sends what is queued.
    async fn send_all(&self) {
        let (mut writer, mut shapes, mut is_failing) = (None, HashMap::new(), false);
        loop {
            self.queued.notified().await;
            tokio::time::sleep(COLLECT_PERIOD).await;
            loop {
                let (rows, end) = self.queue().oldest();
                if rows.is_empty() {
                    break;
                }
                match self.send(&mut writer, &mut shapes, rows).await {
                    Ok(()) => {
                        self.queue().remove_until(end);
                        if std::mem::take(&mut is_failing) {
                            tracing::info!("sending live data to other hubs again");
                        }
                    }
                    Err(error) => {
                        // Redis may have restarted without the shapes.
                        (writer, shapes) = (None, HashMap::new());
                        self.deps().metrics.cache.redis_errors.inc();
                        if !is_failing {
                            tracing::warn!(error, "failed to send live data to other hubs");
                        }
                        is_failing = true;
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                }
            }
        }
    }

    /// Sends rows over the current connection, or a new one.
    async fn send(
        &self,
        writer: &mut Option<StreamWriter>,
        shapes: &mut HashMap<ShapeId, Duration>,
        rows: Vec<QueuedRow>,
    ) -> Result<(), String> {
        if writer.take_if(|writer| self.stream.is_outdated(writer)).is_some() {
            shapes.clear();
        }
        let writer = match writer {
            Some(writer) => writer,
            None => writer.insert(self.stream.writer().await.map_err(|error| error.to_string())?),
        };
        let encoded = rows.iter().filter(|queued| queued.snapshot.is_none()).map(|queued| &queued.row);
        let mut decoded = decode_rows(encoded).into_iter();
        let batches = rows.into_iter().filter_map(|QueuedRow { host, name, snapshot, .. }| {
            Some(MirroredBatch { host, name, snapshot: snapshot.or_else(|| decoded.next())? })
        });
        self.append(writer, shapes, batches.collect()).await
    }

    /// Appends an entry with snapshots, after their shapes.
    async fn append(
        &self,
        writer: &mut StreamWriter,
        shapes: &mut HashMap<ShapeId, Duration>,
        batches: Vec<MirroredBatch>,
    ) -> Result<(), String> {
        let now = self.deps().clock.monotonic();
        shapes.retain(|_, sent| now.saturating_sub(*sent) < SHAPE_REPEAT_PERIOD);
        for MirroredBatch { snapshot, .. } in &batches {
            let id = snapshot.shape.id();
            if let Entry::Vacant(entry) = shapes.entry(id) {
                let encoded = wire::encode_shape(&snapshot.shape);
                writer.put_shape(id.0, &encoded).await.map_err(|error| error.to_string())?;
                entry.insert(now);
            }
        }
        if batches.is_empty() {
            return Ok(());
        }
        let count = batches.len() as u64;
        let payload = mirror_payload::encode(batches).await?;
        writer.append(&self.hub, &payload).await.map_err(|error| error.to_string())?;
        self.deps().metrics.mirror.sent.inc_by(count);
        Ok(())
    }

    /// Receives what other hubs accept, from the start of the recent window.
    async fn receive_all(&self) {
        let (mut newest, mut is_failing) = (None, false);
        loop {
            let error = tokio::select! {
                error = self.receive(&mut newest, &mut is_failing) => error,
                () = self.primary_moved() => PRIMARY_MOVED.to_owned(),
            };
            self.deps().metrics.cache.redis_errors.inc();
            if !is_failing {
                tracing::warn!(error, "failed to receive live data of other hubs");
            }
            is_failing = true;
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Waits until another server is the primary.
    async fn primary_moved(&self) {
        loop {
            tokio::time::sleep(PRIMARY_CHECK_PERIOD).await;
            if self.stream.has_moved().await {
                return;
            }
        }
    }

    /// Receives until an error of Redis, which it returns. `newest` is the id of the newest entry.
    async fn receive(&self, newest: &mut Option<String>, is_failing: &mut bool) -> String {
        let mut reader = match self.stream.reader().await {
            Ok(reader) => reader,
            Err(error) => return error.to_string(),
        };
        let mut after = match newest {
            // Snapshots that were received before are recognized.
            Some(newest) => live_stream::rewind(newest),
            None => match reader.start_of_window().await {
                Ok(start) => start,
                Err(error) => return error.to_string(),
            },
        };
        loop {
            let entries = match reader.read(&after).await {
                Ok(entries) => entries,
                Err(error) => return error.to_string(),
            };
            // A primary that is cut off may respond, without entries.
            if self.stream.is_outdated(&reader) {
                return PRIMARY_MOVED.to_owned();
            }
            if std::mem::take(is_failing) {
                tracing::info!("receiving live data of other hubs again");
            }
            for entry in entries {
                after.clone_from(&entry.id);
                *newest = Some(entry.id.clone());
                if entry.hub != self.hub
                    && let Err(error) = self.receive_entry(&mut reader, entry).await
                {
                    return error;
                }
            }
        }
    }

    /// Adds the snapshots of an entry. Those that this version cannot decode are skipped.
    async fn receive_entry(&self, reader: &mut StreamReader, entry: StreamEntry) -> Result<(), String> {
        let decoded = match mirror_payload::decode(entry.payload).await {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::debug!(error, "entry of the live stream is skipped");
                self.deps().metrics.mirror.lost.inc();
                return Ok(());
            }
        };
        for (host, name, bytes) in decoded {
            let Some(snapshot) = self.decode_snapshot(reader, bytes).await? else {
                self.deps().metrics.mirror.lost.inc();
                continue;
            };
            self.publish(host, name, snapshot);
            // Thousands of snapshots follow each other after an outage.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn decode_snapshot(
        &self,
        reader: &mut StreamReader,
        bytes: bytes::Bytes,
    ) -> Result<Option<Snapshot>, String> {
        let texts = |text: &str| self.pipeline.intern_text(text);
        match wire::decode_snapshot(bytes.clone(), &|id| self.pipeline.shape(id), &texts) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(WireError::UnknownShape(id)) => {
                let encoded = reader.shape(id.0).await.map_err(|error| error.to_string())?;
                let shape = encoded.and_then(|encoded| wire::decode_shape(encoded.into()).ok()).map(Arc::new);
                let shape = shape.filter(|shape| shape.id() == id);
                let decoded = wire::decode_snapshot(bytes, &|_| shape.clone(), &texts).ok();
                if let Some(snapshot) = &decoded {
                    self.pipeline.add_shape(&snapshot.shape);
                }
                Ok(decoded)
            }
            Err(_) => Ok(None),
        }
    }

    /// Publishes a snapshot that another hub accepted.
    fn publish(&self, host: HostId, name: Arc<str>, snapshot: Snapshot) {
        let deps = self.deps();
        let now_ms = deps.clock.wall_ms();
        if host == HostId::HUBS || validate_snapshot(&snapshot, &deps.catalog, now_ms).is_err() {
            deps.metrics.mirror.lost.inc();
            return;
        }
        // A snapshot that this hub accepted, too, or restored at its start.
        let Some(row) = deps.history.mirror(host, &snapshot) else { return };
        deps.metrics.mirror.received.inc();
        deps.hosts.record_snapshot(host, snapshot.at_ms, snapshot.interval_ms, now_ms);
        deps.alerting.observe_elsewhere(host, snapshot.at_ms);
        let principal = deps.hosts.share_principal(host, now_ms);
        let published = PublishedSnapshot::new(host, name, Arc::new(snapshot), deps.clock.monotonic());
        deps.live_feed.publish(published.with_row(row).mirrored(), principal, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Shape};
    use perfwatch_tsdb::RowEncoder;

    fn row(encoder: &mut RowEncoder, at_ms: i64) -> QueuedRow {
        let snapshot = Arc::new(Snapshot {
            boot: BootId::default(),
            seq: 0,
            at_ms,
            interval_ms: 0,
            shape: Arc::new(Shape::new(Vec::new())),
            values: Vec::new(),
            processes: Vec::new(),
            facts: None,
            errors: Vec::new(),
        });
        let row = encoder.encode(&snapshot);
        QueuedRow { host: HostId::of_name("web", 0), name: "web".into(), row, snapshot: Some(snapshot) }
    }

    #[test]
    fn queue_has_the_rows_of_the_recent_window() {
        let (mut queue, mut encoder) = (SendQueue::default(), RowEncoder::default());
        let count = MAX_DECODED_ROWS as i64 + 100;
        assert!((0..count).all(|at_ms| queue.push(row(&mut encoder, at_ms), 0) == 0));
        let is_decoded = |queue: &SendQueue, index: usize| queue.rows[index].snapshot.is_some();
        assert!(!is_decoded(&queue, 99) && is_decoded(&queue, 100));
        let (sent, end) = queue.oldest();
        assert_eq!((sent.len(), end), (MAX_ENTRY_ROWS, MAX_ENTRY_ROWS as u64));
        // Rows leave the recent window while others are sent.
        assert_eq!(queue.push(row(&mut encoder, count), 10), 10);
        queue.remove_until(end);
        assert_eq!(queue.rows.front().unwrap().row.at_ms(), MAX_ENTRY_ROWS as i64);
        queue.remove_until(u64::MAX);
        assert!(queue.rows.is_empty() && queue.oldest().0.is_empty());
    }
}
