//! The task that appends: takes what waits, makes one head row of it, answers all.

use super::{PostgresInner, apply, unavailable};
use crate::append::{Append, AppendResult, ErrorLatch, GROUP_COMMIT_DELAY, MAX_COMMIT_ROWS};
use crate::head_payload;
use perfwatch_model::Shape;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) struct Appender {
    shared: Arc<PostgresInner>,
}

impl Appender {
    pub(super) fn new(shared: Arc<PostgresInner>) -> Self {
        Self { shared }
    }

    /// Until the store is closed.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Append>) {
        let mut last = Duration::ZERO;
        let mut failing = ErrorLatch::default();
        while let Some(first) = queue.recv().await {
            let since = self.shared.clock.monotonic().saturating_sub(last);
            if since < GROUP_COMMIT_DELAY {
                tokio::time::sleep(GROUP_COMMIT_DELAY.saturating_sub(since)).await;
            }
            let mut sum = first.rows;
            let mut appends = vec![first];
            while sum < MAX_COMMIT_ROWS
                && let Ok(append) = queue.try_recv()
            {
                sum += append.rows;
                appends.push(append);
            }
            let result = self.commit(&appends).await;
            failing.record(&result);
            for append in appends {
                // Who does not wait any more asks again, and is told that it was kept.
                let _ = append.reply.send(result.clone());
            }
            last = self.shared.clock.monotonic();
        }
    }

    async fn commit(&self, appends: &[Append]) -> AppendResult {
        let mut rows = Vec::with_capacity(appends.iter().map(|append| append.bytes.len()).sum());
        appends.iter().for_each(|append| rows.extend_from_slice(&append.bytes));
        let shapes: Vec<Arc<Shape>> = appends.iter().flat_map(|append| append.shapes.clone()).collect();
        let client = self.shared.client().await?;
        // A shape that is there before its rows harms nobody.
        apply::touch_shapes(&self.shared, &client, &shapes).await.map_err(|error| unavailable(&error))?;
        let sql = "INSERT INTO head (hub, payload) VALUES ($1, $2) RETURNING arrival";
        let statement = client.prepare_cached(sql).await.map_err(|error| unavailable(&error))?;
        let payload = head_payload::compress_rows(&rows);
        let row = client.query_one(&statement, &[&self.shared.hub, &payload]).await;
        let row = row.map_err(|error| unavailable(&error))?;
        self.shared.head_live_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        self.shared.disk_bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        Ok(row.get(0))
    }
}
