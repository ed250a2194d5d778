//! Shapes in PostgreSQL: added with their first use, deleted with their last.
//!
//! Several hubs add and delete shapes. Writers that name a shape hold the advisory lock shared until their
//! commit, and a deletion holds it exclusively: it sees each use, and each later use sees the deletion.

use super::inner::PostgresInner;
use super::statements::{Statements as _, begin};
use crate::shape_use::{DELETE_UNUSED_SQL, LIST_UNUSED_SQL};
use perfwatch_model::{Shape, ShapeId, wire};
use std::sync::Arc;
use tokio_postgres::{Client, Error, Transaction};

/// Key of the advisory lock of the shapes; any number that no other application uses.
const SHAPES_LOCK: i64 = 0x7065_7266_7368_6170;

/// Id of a shape in the database.
pub(super) fn shape_id(bytes: &[u8]) -> Option<ShapeId> {
    bytes.try_into().ok().map(ShapeId)
}

pub(super) async fn load_head_shapes(inner: &PostgresInner, client: &Client) -> Result<(), Error> {
    let newest = "SELECT coalesce(max(arrival), 0) FROM head WHERE hub = $1";
    let newest: i64 = client.fetch_one(newest, &[&inner.hub]).await?.get(0);
    let rows = client.fetch_all("SELECT shape FROM head_shape WHERE hub = $1", &[&inner.hub]).await?;
    // The newest commit of each shape is not stored; it is at most that of the head.
    inner.shape_use.record_append(rows.iter().filter_map(|row| shape_id(row.get(0))), newest);
    Ok(())
}

/// Writes the shapes that are new, in the transaction of their use.
pub(super) async fn add_shapes(
    inner: &PostgresInner,
    tx: &Transaction<'_>,
    shapes: &[Arc<Shape>],
) -> Result<(), Error> {
    if shapes.is_empty() {
        return Ok(());
    }
    tx.run("SELECT pg_advisory_xact_lock_shared($1)", &[&SHAPES_LOCK]).await?;
    let ids: Vec<Vec<u8>> = shapes.iter().map(|shape| shape.id().0.to_vec()).collect();
    let stored = tx.fetch_all("SELECT id FROM shape WHERE id = ANY($1)", &[&ids]).await?;
    let stored: Vec<ShapeId> = stored.iter().filter_map(|row| shape_id(row.get(0))).collect();
    let mut missing: Vec<&Arc<Shape>> = shapes.iter().filter(|shape| !stored.contains(&shape.id())).collect();
    // All hubs insert in the same order, which excludes deadlocks.
    missing.sort_by_key(|shape| shape.id());
    missing.dedup_by_key(|shape| shape.id());
    for shape in missing {
        let sql = "INSERT INTO shape (id, columns) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
        tx.run(sql, &[&shape.id().0.to_vec(), &wire::encode_shape(shape).to_vec()]).await?;
        inner.shapes.insert(shape.clone());
    }
    Ok(())
}

/// Records the shapes of head rows before the rows are written. The caller holds `head_shapes_lock`.
pub(super) async fn add_head_shapes(
    inner: &PostgresInner,
    client: &mut Client,
    shapes: &[Arc<Shape>],
) -> Result<(), Error> {
    let is_new = |shape: &&Arc<Shape>| !inner.shape_use.is_in_head(shape.id());
    let new: Vec<Arc<Shape>> = shapes.iter().filter(is_new).cloned().collect();
    if new.is_empty() {
        return Ok(());
    }
    let tx = begin(client).await?;
    add_shapes(inner, &tx, &new).await?;
    let ids: Vec<Vec<u8>> = new.iter().map(|shape| shape.id().0.to_vec()).collect();
    let sql = "INSERT INTO head_shape (hub, shape) SELECT $1, unnest($2::bytea[]) ON CONFLICT DO NOTHING";
    tx.run(sql, &[&inner.hub, &ids]).await?;
    tx.commit().await?;
    // Without rows until the commit of the caller, which records its arrival.
    inner.shape_use.record_append(new.iter().map(|shape| shape.id()), 0);
    Ok(())
}

/// Deletes the shapes that only head rows before an arrival number used from `head_shape`.
pub(super) async fn release_head_shapes(
    inner: &PostgresInner,
    client: &Client,
    before: i64,
) -> Result<(), Error> {
    let _lock = inner.head_shapes_lock.lock().await;
    let unused = inner.shape_use.unused_in_head(before);
    if unused.is_empty() {
        return Ok(());
    }
    let ids: Vec<Vec<u8>> = unused.iter().map(|shape| shape.0.to_vec()).collect();
    let sql = "DELETE FROM head_shape WHERE hub = $1 AND shape = ANY($2)";
    client.run(sql, &[&inner.hub, &ids]).await?;
    inner.shape_use.release(&unused);
    Ok(())
}

/// Deletes the shapes that neither a block nor a head row of any hub uses.
pub(super) async fn delete_unused(inner: &PostgresInner, client: &mut Client) -> Result<(), Error> {
    let mut candidates = inner.shape_use.take_candidates();
    if inner.shape_use.is_sweep_due(inner.clock.monotonic()) {
        let rows = client.fetch_all(LIST_UNUSED_SQL, &[]).await?;
        candidates.extend(rows.iter().filter_map(|row| shape_id(row.get(0))));
    }
    if candidates.is_empty() {
        return Ok(());
    }
    let deleted = delete_all(client, &candidates).await;
    if deleted.is_err() {
        inner.shape_use.restore_candidates(&candidates);
    }
    deleted
}

async fn delete_all(client: &mut Client, candidates: &[ShapeId]) -> Result<(), Error> {
    let tx = begin(client).await?;
    tx.run("SELECT pg_advisory_xact_lock($1)", &[&SHAPES_LOCK]).await?;
    for shape in candidates {
        tx.run(DELETE_UNUSED_SQL, &[&shape.0.to_vec()]).await?;
    }
    tx.commit().await
}
