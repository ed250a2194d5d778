//! List of cases, sample data, and the shared PostgreSQL server.

use perfwatch_model::*;
use perfwatch_store::*;
use perfwatch_testkit::Postgres;
use perfwatch_tsdb::{Block, CompressionLevel, Projection, Table, Tier, block};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Lists the conformance cases of a module: a test per case and engine, and a function that runs all cases on
/// one store.
macro_rules! conformance {
    ($($case:ident,)+) => {
        pub(crate) async fn run_cases(store: &std::sync::Arc<dyn perfwatch_store::Store>) {
            $($case(store).await;)+
        }

        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                let store = crate::support::open_sqlite(folder.path(), 1 << 30).unwrap();
                super::$case(&(std::sync::Arc::new(store) as _)).await;
            })+
        }

        mod postgres {
            $(#[tokio::test]
            async fn $case() {
                let server = crate::support::postgres_server();
                let url = server.database(stringify!($case));
                let store = crate::support::connect(&url, "one").await.unwrap();
                super::$case(&(std::sync::Arc::new(store) as _)).await;
            })+
        }
    };
}
pub(crate) use conformance;

pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;
pub(crate) const T0: i64 = 490_000 * HOUR;

pub(crate) fn shape(names: &[&'static str]) -> Arc<Shape> {
    let column = |name: &&'static str| Column {
        metric: (*name).into(),
        dimension: "".into(),
        instance: "".into(),
        decimals: 1,
    };
    Arc::new(Shape::new(names.iter().map(column).collect()))
}

pub(crate) fn row(host: HostId, shape: &Arc<Shape>, seq: u64, at_ms: i64) -> SnapshotRow {
    let values = (0..shape.columns().len()).map(|at| seq.cast_signed() * 10 + at as i64).collect();
    let process = ProcessRow { pid: 7, name: "init".into(), state: 'S', ..ProcessRow::default() };
    let snapshot = Snapshot {
        boot: BootId::from_bytes(&[3; 16]).unwrap(),
        seq,
        at_ms,
        interval_ms: 2_000,
        shape: shape.clone(),
        values,
        processes: vec![process],
        facts: None,
        errors: vec![],
    };
    SnapshotRow { host, snapshot: Arc::new(snapshot), encoded: None }
}

pub(crate) fn host(number: u8) -> HostRecord {
    HostRecord {
        id: HostId::from_bytes(&[number; 16]).unwrap(),
        name: format!("host-{number}"),
        facts: Some(Arc::new(HostFacts { cores: 4, ..HostFacts::default() })),
        first_seen_ms: T0,
        last_snapshot_ms: None,
        interval_ms: 0,
        created_by: (number == 1).then(|| "token 1".into()),
    }
}

pub(crate) fn raw_block(
    host: HostId,
    shape: &Arc<Shape>,
    seqs: std::ops::Range<u64>,
    from_ms: i64,
) -> (Table, Block) {
    let rows: Vec<_> =
        seqs.map(|seq| row(host, shape, seq, from_ms + seq.cast_signed() * 2_000).snapshot).collect();
    let table = Table::from_snapshots(&rows).remove(0);
    let block = block::encode(&table, CompressionLevel::Fast);
    (table, block)
}

pub(crate) fn query(host: HostId, tier: Tier, from_ms: i64, to_ms: i64) -> Query {
    Query {
        host,
        tier,
        from_ms,
        to_ms,
        projection: Arc::new(Projection::full()),
        bounds: ReadBounds::default(),
    }
}

pub(crate) async fn head_seqs(store: &dyn Store) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut after = 0;
    loop {
        let rows = store.read_head(after, 3).await.unwrap();
        let Some(last) = rows.last() else {
            return seqs;
        };
        after = last.arrival;
        seqs.extend(rows.iter().map(|row| row.row.snapshot.seq));
    }
}

pub(crate) async fn commit(
    store: &dyn Store,
    add_writes: impl FnOnce(&mut Transaction),
) -> Result<(), CommitError> {
    store.commit(Transaction::build(add_writes)).await
}

pub(crate) async fn apply(store: &dyn Store, add_writes: impl FnOnce(&mut Transaction)) {
    commit(store, add_writes).await.unwrap();
}

pub(crate) async fn assert_conflict(store: &dyn Store, add_writes: impl FnOnce(&mut Transaction)) {
    assert_eq!(commit(store, add_writes).await, Err(CommitError::Conflict));
}

type SharedServer = Mutex<Weak<Postgres>>;

fn share(server: &SharedServer, start: fn() -> Postgres) -> Arc<Postgres> {
    let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
    server.upgrade().unwrap_or_else(|| {
        let started = Arc::new(start());
        *server = Arc::downgrade(&started);
        started
    })
}

/// A server that concurrent tests share. It is killed when the last of them drops it.
pub(crate) fn postgres_server() -> Arc<Postgres> {
    static SERVER: SharedServer = Mutex::new(Weak::new());
    share(&SERVER, Postgres::start)
}

/// A server behind a pooler in transaction mode, shared in the same way.
pub(crate) fn pooled_server() -> Arc<Postgres> {
    static SERVER: SharedServer = Mutex::new(Weak::new());
    share(&SERVER, Postgres::start_behind_pooler)
}

pub(crate) async fn connect(url: &str, hub: &str) -> Result<PostgresStore, StoreError> {
    PostgresStore::connect(url, hub.to_owned(), 1 << 30, Arc::new(SystemClock::new())).await
}

/// The store as the hub has it.
pub(crate) fn as_dyn(store: &impl Store) -> &dyn Store {
    store
}

pub(crate) fn open_sqlite(folder: &std::path::Path, budget_bytes: u64) -> Result<SqliteStore, StoreError> {
    let options = SqliteOptions { folder: folder.join("history"), budget_bytes };
    SqliteStore::open(&options, Arc::new(SystemClock::new()))
}
