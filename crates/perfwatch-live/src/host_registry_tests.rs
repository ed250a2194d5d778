//! Tests of the host registry.

use super::*;
use perfwatch_model::ManualClock;
use perfwatch_store::{SqliteOptions, SqliteStore};

const MINUTE: u32 = 60_000;

async fn register(registry: &HostRegistry, names: &[&str]) -> Vec<HostId> {
    let mut ids = Vec::new();
    for name in names {
        let host = HostRef { id: None, name: (*name).to_owned() };
        ids.push(registry.resolve(&host, None, 1_000).await.unwrap());
    }
    ids
}

#[tokio::test]
async fn agentless_heartbeat_follows_schedule() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
    let store = SqliteStore::open(&options, Arc::new(ManualClock::starting_at(0))).unwrap();
    let registry = HostRegistry::open(Arc::new(store)).await.unwrap();
    let ids = register(&registry, &["agent", "polled", "paused", "deleted"]).await;
    let schedule =
        |enabled, last_success_ms| PollSchedule { enabled, interval_ms: 15 * MINUTE, last_success_ms };
    let schedules =
        [(ids[1], schedule(true, None)), (ids[2], schedule(false, None)), (ids[3], schedule(true, None))];
    assert_eq!(registry.replace_poll_schedules(schedules.into()), [ids[2]]);
    // After on-demand polling every five seconds, the interval of the schedule is expected.
    for id in &ids {
        registry.record_snapshot(*id, 5_000, 5_000, 5_000);
    }
    let heartbeat = |id: HostId| registry.heartbeats().into_iter().find(|heartbeat| heartbeat.host == id);
    let expected =
        |id: HostId| heartbeat(id).map(|heartbeat| (heartbeat.interval_ms, heartbeat.is_agentless));
    assert_eq!(expected(ids[0]), Some((5_000, false)));
    assert_eq!(expected(ids[1]), Some((15 * MINUTE, true)));
    assert!(heartbeat(ids[2]).is_none(), "no snapshots are expected from a paused host");
    // Another hub collected a host and deleted a host. The deleted host is removed here.
    let schedules = [(ids[1], schedule(true, Some(60_000))), (ids[2], schedule(false, None))];
    assert_eq!(registry.replace_poll_schedules(schedules.into()), []);
    assert_eq!(heartbeat(ids[1]).and_then(|heartbeat| heartbeat.last_seen_ms), Some(60_000));
    assert_eq!(registry.get(ids[1]).and_then(|host| host.last_seen_ms), Some(60_000));
    assert!(registry.get(ids[3]).is_none() && heartbeat(ids[3]).is_none());
    assert!(registry.find("deleted").is_empty());
}

#[tokio::test]
async fn name_of_two_hosts_is_ambiguous_until_one_is_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
    let store = SqliteStore::open(&options, Arc::new(ManualClock::starting_at(0))).unwrap();
    let registry = HostRegistry::open(Arc::new(store)).await.unwrap();
    let mut ids = [HostId::generate(), HostId::generate(), HostId::generate()];
    ids.sort();
    let [one, two, three] = ids;
    let host = |id: HostId, name: &str| HostRef { id: Some(id), name: name.to_owned() };
    let by_name = HostRef { id: None, name: "web".to_owned() };
    for id in [two, one] {
        registry.resolve(&host(id, "web"), None, 1_000).await.unwrap();
    }
    let found = |name: &str| registry.find(name).iter().map(|host| host.record.id).collect::<Vec<_>>();
    assert_eq!((found("web"), found(&two.to_string())), (vec![one, two], vec![two]));
    let error = registry.resolve(&by_name, None, 1_000).await.unwrap_err().to_string();
    assert!(error.contains(&one.to_string()) && error.contains(&two.to_string()), "{error}");
    registry.resolve(&host(one, "db"), None, 1_000).await.unwrap();
    assert_eq!(registry.resolve(&by_name, None, 1_000).await.unwrap(), two);
    // A host whose name is the id of another host.
    registry.resolve(&host(three, &two.to_string()), None, 1_000).await.unwrap();
    assert_eq!(found(&two.to_string()), [two]);
}

/// Two hubs that share a store.
#[tokio::test]
async fn new_name_at_two_hubs_is_a_single_host() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&options, Arc::new(ManualClock::starting_at(0))).unwrap());
    let hubs =
        [HostRegistry::open(store.clone()).await.unwrap(), HostRegistry::open(store.clone()).await.unwrap()];
    let names = ["web", "db"];
    let ids = register(&hubs[0], &names).await;
    assert_eq!(register(&hubs[1], &names).await, ids);
    for hub in &hubs {
        hub.refresh(2_000).await.unwrap();
        assert_eq!(register(hub, &names).await, ids);
        assert_eq!(hub.count(), 2);
    }
    // A host that was renamed keeps its identifier; its former name is a new host, the same at both hubs.
    let renamed = HostRef { id: Some(ids[0]), name: "web-old".to_owned() };
    hubs[0].resolve(&renamed, None, 3_000).await.unwrap();
    hubs[1].refresh(4_000).await.unwrap();
    let again = register(&hubs[0], &["web"]).await;
    assert_ne!(again[0], ids[0]);
    assert_eq!(register(&hubs[1], &["web"]).await, again);
}
