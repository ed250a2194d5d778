//! Rows on their way into the head, the same for both databases: framed where they come in, many
//! calls to a commit.

use crate::head;
use crate::store::{Row, StoreError};
use perfwatch_model::Shape;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Commits that follow one another are at least this far apart: what comes meanwhile shares the
/// next one. One that comes alone does not wait.
pub(crate) const APART: Duration = Duration::from_millis(15);
/// Rows of one commit.
pub(crate) const ROWS: usize = 1_000;
/// Calls that wait for their commit.
pub(crate) const QUEUE: usize = 4_096;

/// The number of the commit that rows came with.
pub(crate) type Arrival = Result<i64, StoreError>;

/// Rows of one call, framed.
pub(crate) struct Append {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: usize,
    pub(crate) shapes: Vec<Arc<Shape>>,
    pub(crate) reply: oneshot::Sender<Arrival>,
}

impl Append {
    pub(crate) fn new(rows: &[Row], reply: oneshot::Sender<Arrival>) -> Self {
        let mut bytes = Vec::with_capacity(rows.len() * 1_024);
        rows.iter().for_each(|row| head::put(&mut bytes, row));
        let mut shapes: Vec<Arc<Shape>> = rows.iter().map(|row| row.snapshot.shape.clone()).collect();
        shapes.dedup_by_key(|shape| shape.id());
        Self { bytes, rows: rows.len(), shapes, reply }
    }
}

/// Who asks is told to come again.
pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

/// What is left of the budget belongs to sealing and roll-up.
pub(crate) fn used_up() -> StoreError {
    StoreError::Unavailable("its disk budget is used up; old detail is being let go".to_owned())
}

/// Whether the last commit failed: said when that changes, not at every try.
#[derive(Default)]
pub(crate) struct Failing(bool);

impl Failing {
    pub(crate) fn note(&mut self, result: &Arrival) {
        match result {
            Err(error) if !self.0 => tracing::warn!(%error, "nothing can be written"),
            Ok(_) if self.0 => tracing::info!("writing works again"),
            _ => {}
        }
        self.0 = result.is_err();
    }
}
