//! Collectors, snapshot builder and hub together: whatever a host's files contain, its snapshots are
//! accepted.

use crate::support::{AGENT, Process, TestHub, eventually, has_consecutive_sequences, now_ms};
use perfwatch_collect::{
    Capture, CollectorCache, CollectorOptions, CollectorSet, Deriver, SnapshotBuilder, read_all,
};
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Clock as _, HostId, ManualClock};
use perfwatch_testkit::{Mutation, corrupt};
use std::path::Path;
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

/// Writes files of a made-up host: two disks with sensors of the same name, a mount point longer than an
/// instance may be, a process name with control characters, more interfaces than a snapshot has columns for.
fn write_odd_host(root: &Path) {
    use std::fmt::Write as _;
    let write = |path: &str, content: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("proc/stat", "cpu 10 0 5 800 1 0 0 0\ncpu0 10 0 5 800 1 0 0 0\nbtime 1790000000\n");
    write("proc/meminfo", "MemTotal: 4000 kB\nMemFree: 1000 kB\nMemAvailable: 2000 kB\n");
    write("proc/loadavg", "0.1 0.2 0.3 1/50 1234\n");
    write("proc/uptime", "5000.00 9000.00\n");
    write("proc/1/stat", "1 (\u{1b}[2J) S 0 1 1 0 -1 4194560 1 2 3 4 5 0 0 0 20 0 3 0 500 1000 10 1\n");
    write("proc/sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555\n");
    for (chip, millidegrees) in [("hwmon0", "41000"), ("hwmon1", "67000")] {
        write(&format!("sys/class/hwmon/{chip}/name"), "nvme\n");
        write(&format!("sys/class/hwmon/{chip}/temp1_input"), millidegrees);
        write(&format!("sys/class/hwmon/{chip}/temp1_label"), "Composite\n");
    }
    let long = format!("/{}", ["a".repeat(200), "b".repeat(200)].join("/"));
    std::fs::create_dir_all(root.join("root").join(&long[1..])).unwrap();
    let mounts = format!("27 1 8:1 / / rw - ext4 a rw\n28 27 8:2 / {long} rw - ext4 b rw\n");
    write("proc/1/mountinfo", &mounts);
    let mut interfaces = "head\nhead\n".to_owned();
    (0..1_500).for_each(|n| writeln!(interfaces, "en{n}: {n} 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0").unwrap());
    write("proc/1/net/dev", &interfaces);
}

#[test]
fn agent_of_an_odd_host_is_accepted_at_every_tick() {
    let folder = tempfile::tempdir().unwrap();
    write_odd_host(folder.path());
    let hub = TestHub::start(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (url, procfs, sysfs, rootfs) = (hub.url(""), path("proc"), path("sys"), path("root"));
    let arguments = [
        "--hub",
        &url,
        "--interval",
        "250ms",
        "--name",
        "odd",
        "--token",
        &hub.token,
        "--procfs",
        &procfs,
        "--sysfs",
        &sysfs,
        "--rootfs",
        &rootfs,
    ];
    let agent = Process::spawn(AGENT, folder.path(), "agent", &arguments);
    eventually("some ticks are recorded", || hub.seqs("odd").len() >= 5);
    assert!(has_consecutive_sequences(&hub.seqs("odd")), "{:?} {}", hub.seqs("odd"), agent.log());
    assert!(!agent.log().contains("rejected"), "{}", agent.log());
    let snapshots = hub.get("/api/metrics/recent?host=odd").body["snapshots"].clone();
    let last = snapshots.as_array().unwrap().last().unwrap();
    let sensors = last["temperature"]["sensor"].as_object().unwrap();
    let mut degrees: Vec<u64> = sensors.values().map(|sensor| sensor["sensor"].as_u64().unwrap()).collect();
    degrees.sort_unstable();
    assert_eq!(degrees, [41, 67], "{sensors:?}");
    assert_eq!(last["filesystem"]["mount"].as_object().unwrap().len(), 2);
    assert_eq!(last["processes"]["total"], 1);
    assert!(last["snapshot"]["columns_dropped"].as_u64().unwrap() > 1_000);
    assert!(last["errors"]["snapshot"].as_str().unwrap().contains("network."), "{}", last["errors"]);
}
