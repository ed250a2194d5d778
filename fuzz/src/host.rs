//! Output of watched hosts: captures of agentless hosts, and command lines of their processes.

use crate::ingest::{NOW_MS, catalog};
use crate::{MemoryBound, Target};
use perfwatch_collect::{
    Capture, CollectorCache, CollectorOptions, CollectorSet, Deriver, SnapshotBuilder, read_all,
};
use perfwatch_model::validation::{remove_invalid_values, validate_snapshot};
use perfwatch_model::{Clock as _, Snapshot, limits, wire};
use std::sync::Arc;

const DEBIAN: [&[u8]; 2] = [
    include_bytes!("../../crates/perfwatch-collect/fixtures/hosts/debian12-vm.1.capture"),
    include_bytes!("../../crates/perfwatch-collect/fixtures/hosts/debian12-vm.2.capture"),
];
const RASPBERRY: [&[u8]; 2] = [
    include_bytes!("../../crates/perfwatch-collect/fixtures/hosts/raspberry-pi.1.capture"),
    include_bytes!("../../crates/perfwatch-collect/fixtures/hosts/raspberry-pi.2.capture"),
];
const OLD_KERNEL: &[u8] = include_bytes!("../../crates/perfwatch-collect/fixtures/hosts/kernel-2.6.capture");
const MALFORMED: &[u8] = include_bytes!("../../crates/perfwatch-collect/fixtures/hosts/malformed.capture");

pub(crate) const CAPTURE: Target = Target {
    name: "capture",
    run: capture,
    seeds: || {
        let mut seeds = [RASPBERRY[0], RASPBERRY[1], OLD_KERNEL, MALFORMED].map(<[u8]>::to_vec).to_vec();
        // The processes of a large capture are more of the same.
        seeds.push(DEBIAN[0][..DEBIAN[0].len().min(12 << 10)].to_vec());
        seeds
    },
    dictionary: &[
        "\n=== ",
        " hex\n",
        " list\n",
        " count\n",
        " link\n",
        " usage\n",
        " error\n",
        "@files\n",
        "@counts\n",
        "@links\n",
        "@statfs\n",
        "/proc/stat",
        "/proc/meminfo",
        "/sys/block/",
        "\\=== ",
        "cpu",
        "kB",
    ],
    max_len: 64 << 10,
    memory: MemoryBound { fixed_bytes: 2 << 20, per_byte: 60 },
};

pub(crate) const COMMAND_LINE: Target = Target {
    name: "command_line",
    run: command_line,
    seeds: || {
        [
            "mysqld\0--password=hunter2\0-u\0root",
            "sh\0-c\0PGPASSWORD='a b' psql postgres://u:p@db/x",
            "curl\0-H\0Authorization: Bearer abc.def.ghi\0https://user:pass@host/?token=x",
            "java\0-Dspring.datasource.password=x\0-jar\0/srv/app.jar",
            "sqlcmd\0-S\0db\0-P\0x\0-Q\0ALTER LOGIN a WITH PASSWORD = 'x'",
            "mysql\0-phunter2",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    dictionary: &[
        "--password",
        "=",
        "://",
        "@",
        "\0-c\0",
        "'",
        "\"",
        "$(",
        "|",
        ";",
        "IDENTIFIED BY ",
        "token",
    ],
    max_len: 8 << 10,
    memory: MemoryBound { fixed_bytes: 1 << 20, per_byte: 100 },
};

/// Readings of one host, in the order of time.
fn snapshots(captures: &[&[u8]]) -> Vec<Snapshot> {
    let set = CollectorSet::new(&[], CollectorOptions::default());
    let (mut deriver, mut builder) = (Deriver::default(), SnapshotBuilder::default());
    let mut snapshots = Vec::new();
    for (capture, seq) in captures.iter().filter_map(|bytes| Capture::parse(bytes).ok()).zip(1..) {
        let clock = capture.clock();
        let reading = read_all(&capture, &set, &mut CollectorCache::default(), &clock);
        let derived = deriver.derive(&reading, &set.options);
        snapshots.push(builder.build(reading.boot, seq, clock.wall_ms(), 2_000, derived));
    }
    snapshots
}

/// Snapshots of a fixture host.
pub(crate) fn fixture_snapshots() -> Vec<Snapshot> {
    let mut snapshots = snapshots(&RASPBERRY);
    for (index, snapshot) in snapshots.iter_mut().enumerate() {
        snapshot.at_ms = NOW_MS - 2_000 + 2_000 * index as i64;
    }
    snapshots
}

fn capture(data: &[u8]) -> bool {
    let parsed = Capture::parse(data);
    if let Ok(parsed) = &parsed {
        let text = parsed.to_text();
        let again = Capture::parse(&text).expect("the text form of a capture is a capture");
        assert!(again.to_text() == text, "the text form of a capture is stable");
    }
    // Between two honest readings: what was read before and after stays usable.
    for mut snapshot in snapshots(&[RASPBERRY[0], data, RASPBERRY[1]]) {
        let shape = wire::decode_shape(wire::encode_shape(&snapshot.shape)).expect("a hub accepts the shape");
        assert_eq!(shape.id(), snapshot.shape.id());
        let shape = Arc::new(shape);
        let encoded = wire::encode_snapshot(&snapshot);
        assert!(encoded.len() <= limits::MAX_SNAPSHOT_BYTES);
        let decoded = wire::decode_snapshot(encoded, &|_| Some(shape.clone()), &|text| text.into());
        assert_eq!(decoded.as_ref(), Ok(&snapshot), "a hub accepts the snapshot");
        remove_invalid_values(&mut snapshot, catalog());
        if let Err(reason) = validate_snapshot(&snapshot, catalog(), NOW_MS) {
            assert_ne!(reason.code, "value_out_of_range", "{}", reason.message);
        }
    }
    parsed.is_ok()
}

fn command_line(data: &[u8]) -> bool {
    for text in [perfwatch_redact::mask_secrets(data), perfwatch_redact::unmasked(data)] {
        // An ellipsis marks what was cut.
        assert!(text.chars().count() <= limits::MAX_COMMAND_CHARS + 1, "{}", text.chars().count());
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    true
}
