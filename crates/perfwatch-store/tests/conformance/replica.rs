//! Reads of history on a streaming replica of PostgreSQL.

use crate::support::*;
use perfwatch_model::ManualClock;
use perfwatch_store::*;
use perfwatch_testkit::Postgres;
use perfwatch_tsdb::Tier;
use std::sync::Arc;
use std::time::Duration;

/// Longer than the time for which a failed replica is not tried.
const PAUSE: Duration = Duration::from_secs(10);

/// Two hubs on a database of the primary, which both read on a replica.
struct Hubs {
    stores: [PostgresStore; 2],
    clock: Arc<ManualClock>,
    blocks: u64,
}

impl Hubs {
    async fn connect(url: &str, replica: &str) -> Self {
        let clock = Arc::new(ManualClock::starting_at(T0));
        let connect = async |hub: &str| {
            let store = PostgresStore::connect(url, hub.to_owned(), 1 << 30, clock.clone()).await.unwrap();
            store.with_replica(replica).unwrap()
        };
        Self { stores: [connect("one").await, connect("two").await], clock: clock.clone(), blocks: 0 }
    }

    /// Adds a block at the first hub.
    async fn put(&mut self) {
        let (id, shape) = (host(1).id, shape(&["x"]));
        let seqs = self.blocks * 10..self.blocks * 10 + 10;
        let (_, block) = raw_block(id, &shape, seqs, T0);
        self.stores[0].commit(vec![Write::PutBlock(Tier::Raw, id, shape, block)].into()).await.unwrap();
        self.blocks += 1;
    }

    /// Checks that each hub reads all blocks.
    async fn assert_all_are_read(&self) {
        for store in &self.stores {
            let result = store.read_range(query(host(1).id, Tier::Raw, T0, T0 + HOUR)).await.unwrap();
            assert_eq!(result.slices.len() as u64, self.blocks);
            assert!(result.slices.iter().all(|slice| slice.content.is_ok()));
        }
    }

    /// Checks that each hub reads all blocks again and again, until both have read them on the replica.
    async fn wait_for_reads_on(&self, replica: &Postgres, database: &str) {
        for _ in 0..100 {
            self.clock.advance(PAUSE);
            self.assert_all_are_read().await;
            if readers(replica, database) == "2" {
                return;
            }
        }
        panic!("the replica is not used");
    }
}

/// Number of connections to a server whose last statement ended a read; not that of an attempt that was given up.
fn readers(server: &Postgres, database: &str) -> String {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'perfwatch' AND query = 'COMMIT'";
    server.query("postgres", &format!("{sql} AND datname = '{database}'"))
}

fn pause_replay(replica: &Postgres) {
    replica.query("postgres", "SELECT pg_wal_replay_pause()");
    while replica.query("postgres", "SELECT pg_get_wal_replay_pause_state()") != "paused" {}
}

/// Reads are on the replica and never stale, also while it is behind.
async fn check_reads(hubs: &mut Hubs, replica: &Postgres, database: &str) {
    for _ in 0..5 {
        hubs.put().await;
        hubs.assert_all_are_read().await;
    }
    hubs.wait_for_reads_on(replica, database).await;
    pause_replay(replica);
    hubs.put().await;
    hubs.assert_all_are_read().await;
    assert_eq!(readers(replica, database), "0", "it is behind");
    hubs.put().await;
    hubs.assert_all_are_read().await;
    replica.query("postgres", "SELECT pg_wal_replay_resume()");
    hubs.wait_for_reads_on(replica, database).await;
}

#[tokio::test]
async fn history_is_read_on_a_replica_that_is_not_behind() {
    let primary = Postgres::start_primary();
    let [url, asynchronous] = [primary.database("history"), primary.database("asynchronous")];
    primary.query("postgres", "ALTER DATABASE asynchronous SET synchronous_commit = off");
    let mut replica = primary.start_replica();
    let mut hubs = Hubs::connect(&asynchronous, &replica.url("asynchronous")).await;
    check_reads(&mut hubs, &replica, "asynchronous").await;
    let mut hubs = Hubs::connect(&url, &replica.url("history")).await;
    check_reads(&mut hubs, &replica, "history").await;

    replica.kill();
    hubs.put().await;
    hubs.assert_all_are_read().await;
    replica.resume();
    hubs.wait_for_reads_on(&replica, "history").await;

    // Another database of the same server, and a replica that has become a primary.
    let other = Hubs {
        stores: hubs.stores.map(|store| store.with_replica(&replica.url("postgres")).unwrap()),
        ..hubs
    };
    other.assert_all_are_read().await;
    assert_eq!(readers(&replica, "postgres"), "0");
    let mut hubs = Hubs {
        stores: other.stores.map(|store| store.with_replica(&replica.url("history")).unwrap()),
        ..other
    };
    hubs.wait_for_reads_on(&replica, "history").await;
    replica.query("postgres", "SELECT pg_promote()");
    hubs.assert_all_are_read().await;
    hubs.put().await;
    hubs.assert_all_are_read().await;
    assert_eq!(readers(&replica, "history"), "0", "it has become a primary");
}
