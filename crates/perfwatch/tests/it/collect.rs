//! Collectors, snapshot builder and hub together: whatever a host's files contain, its snapshots are
//! accepted.

use crate::support::{TestHub, now_ms};
use perfwatch_collect::{
    Capture, CollectorCache, CollectorOptions, CollectorSet, Deriver, SnapshotBuilder, read_all,
};
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Clock as _, HostId, ManualClock};
use perfwatch_testkit::{Mutation, corrupt};
use std::time::Duration;

const HOSTS: [&[u8]; 3] = [
    include_bytes!("../../../perfwatch-collect/fixtures/hosts/debian12-vm.1.capture"),
    include_bytes!("../../../perfwatch-collect/fixtures/hosts/debian12-vm.2.capture"),
    include_bytes!("../../../perfwatch-collect/fixtures/hosts/raspberry-pi.2.capture"),
];
/// Number of corrupted readings; `CORRUPTED_READINGS` sets another.
const DEFAULT_READINGS: u64 = 1_000;
const READINGS_PER_BATCH: u64 = 100;

#[test]
fn corrupted_hosts_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let readings = std::env::var("CORRUPTED_READINGS").map_or(DEFAULT_READINGS, |n| n.parse().unwrap());
    let set = CollectorSet::new(&[], CollectorOptions::default());
    let mut random = fastrand::Rng::with_seed(14);
    for batch in 0..readings / READINGS_PER_BATCH {
        let clock = ManualClock::starting_at(now_ms() - 200_000);
        let (mut deriver, mut builder) = (Deriver::default(), SnapshotBuilder::default());
        let (mut snapshots, mut shapes) = (Vec::new(), Vec::new());
        for number in 0..READINGS_PER_BATCH {
            let mut mutation = || -> Mutation { (random.usize(..), random.usize(..), random.usize(..)) };
            let mutations: Vec<Mutation> = (0..number % 12).map(|_| mutation()).collect();
            let text = corrupt(HOSTS[random.usize(..HOSTS.len())], &mutations);
            clock.advance(Duration::from_secs(2));
            // Text that is no capture at all never becomes a snapshot.
            let Ok(capture) = Capture::parse(&text) else { continue };
            let reading = read_all(&capture, &set, &mut CollectorCache::default(), &clock);
            let derived = deriver.derive(&reading, &set.options);
            let snapshot = builder.build(reading.boot, number, clock.wall_ms(), 2_000, derived);
            shapes.push(wire::encode_shape(&snapshot.shape));
            snapshots.push(wire::encode_snapshot(&snapshot));
        }
        let sent = snapshots.len();
        let message = Batch {
            host_id: HostId::generate().to_bytes().to_vec().into(),
            host_name: format!("host-{batch}"),
            shapes,
            snapshots,
            sent_at_ms: now_ms(),
            facts: None,
        };
        let body = wire::encode_batch(&message);
        let response = hub.post(&body, &[("Content-Type", wire::CONTENT_TYPE)]);
        assert_eq!(response.status, 200, "{}", response.text);
        assert_eq!(response.body["rejected"].as_array().unwrap().len(), 0, "{}", response.text);
        let stored = ["accepted", "duplicates"].map(|key| response.body[key].as_u64().unwrap());
        assert_eq!(stored.iter().sum::<u64>(), sent as u64, "{}", response.text);
        assert!(stored[0] > READINGS_PER_BATCH / 2, "{}", response.text);
    }
}
