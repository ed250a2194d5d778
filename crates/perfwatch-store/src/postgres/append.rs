//! Append task: combines queued calls into one head row, then replies to all of them.

use super::inner::PostgresInner;
use super::shapes;
use super::statements::Statements as _;
use crate::append::{Append, AppendResult, ErrorLatch, GROUP_COMMIT_DELAY, MAX_COMMIT_ROWS};
use crate::head_payload;
use perfwatch_model::Shape;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) struct Appender {
    inner: Arc<PostgresInner>,
}

impl Appender {
    pub(super) fn new(inner: Arc<PostgresInner>) -> Self {
        Self { inner }
    }

    /// Runs until the store is closed.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Append>) {
        let mut last_commit = Duration::ZERO;
        let mut error_latch = ErrorLatch::default();
        while let Some(first) = queue.recv().await {
            let since = self.inner.clock.monotonic().saturating_sub(last_commit);
            if since < GROUP_COMMIT_DELAY {
                tokio::time::sleep(GROUP_COMMIT_DELAY.saturating_sub(since)).await;
            }
            let mut rows = first.rows;
            let mut appends = vec![first];
            while rows < MAX_COMMIT_ROWS
                && let Ok(append) = queue.try_recv()
            {
                rows += append.rows;
                appends.push(append);
            }
            let result = self.commit(&appends).await;
            error_latch.record(&result);
            for append in appends {
                // A caller that was canceled sends the rows again and they are recognized as duplicates.
                let _ = append.reply.send(result.clone());
            }
            last_commit = self.inner.clock.monotonic();
        }
    }

    async fn commit(&self, appends: &[Append]) -> AppendResult {
        let mut rows = Vec::with_capacity(appends.iter().map(|append| append.bytes.len()).sum());
        appends.iter().for_each(|append| rows.extend_from_slice(&append.bytes));
        let head_shapes: Vec<Arc<Shape>> = appends.iter().flat_map(|append| append.shapes.clone()).collect();
        let mut client = self.inner.client().await?;
        // Until the commit is recorded, its shapes are not released.
        let _lock = self.inner.head_shapes_lock.lock().await;
        // Not part of the commit: a shape without rows does no harm.
        shapes::add_head_shapes(&self.inner, &mut client, &head_shapes).await?;
        let sql = "INSERT INTO head (hub, payload) VALUES ($1, $2) RETURNING arrival";
        let payload = head_payload::compress_payload(&rows);
        let row = client.fetch_one(sql, &[&self.inner.hub, &payload]).await?;
        self.inner.head_live_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        self.inner.disk_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        let arrival = row.get(0);
        self.inner.shape_use.record_append(head_shapes.iter().map(|shape| shape.id()), arrival);
        Ok(arrival)
    }
}
