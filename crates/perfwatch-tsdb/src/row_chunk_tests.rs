//! Tests of the rows in memory: round trips of every part, sharing of chunks, and size.

use crate::block_tests::{shape, snapshot};
use crate::{EncodedRow, RowEncoder, decode_rows};
use perfwatch_model::{BootId, CollectorError, HostFacts, MISSING, ProcessRow, Shape, Snapshot};
use proptest::prelude::*;
use std::sync::Arc;

const T0: i64 = 1_763_719_200_000;

fn encode(encoder: &mut RowEncoder, rows: &[Snapshot]) -> Vec<EncodedRow> {
    rows.iter().map(|row| encoder.encode(row)).collect()
}

fn assert_round_trip(rows: &[Snapshot]) {
    let encoded = encode(&mut RowEncoder::default(), rows);
    let decoded = decode_rows(&encoded);
    assert_eq!(decoded.len(), rows.len());
    decoded.iter().zip(rows).for_each(|(decoded, row)| assert_eq!(**decoded, *row));
    // A single row, and rows in another order.
    for index in [0, rows.len() / 2, rows.len() - 1] {
        assert_eq!(*decode_rows([&encoded[index]])[0], rows[index]);
    }
    let reversed = decode_rows(encoded.iter().rev());
    assert!(reversed.iter().eq(decoded.iter().rev()));
}

fn process(pid: u32, name: &str, memory_bytes: u64) -> ProcessRow {
    ProcessRow {
        pid,
        parent_pid: (pid > 1).then_some(1),
        name: name.into(),
        user: "root".into(),
        command: format!("/usr/sbin/{name}").into(),
        state: 'S',
        cpu_tenths: pid * 3,
        memory_bytes,
        threads: 2,
        open_files: pid.is_multiple_of(2).then_some(pid),
        read_bytes: None,
        write_bytes: Some(memory_bytes / 7),
        started_ms: T0 - 1_000,
    }
}

#[test]
fn every_part_of_a_row_survives() {
    let wide = shape(&[("cpu.usage", "", 2), ("memory.used", "", 0), ("disk.reads", "sda", 1)]);
    let narrow = shape(&[("cpu.usage", "", 2)]);
    let extremes = [0, 1, -1, MISSING, i64::MAX, i64::MIN + 1, MISSING, i64::MAX, 1 << 40];
    let mut rows: Vec<Snapshot> = (0..100_usize)
        .map(|n| {
            let value = extremes[n % extremes.len()];
            let at_ms = T0 + 2_000 * i64::try_from(n).unwrap() - if n == 40 { 900_000 } else { 0 };
            snapshot(&wide, n as u64, at_ms, vec![value, 7, -value.saturating_abs()])
        })
        .collect();
    rows[3].errors = vec![CollectorError { collector: "disk".into(), message: "gone".into() }];
    rows[4].errors = rows[3].errors.clone();
    rows[6].facts = Some(Arc::new(HostFacts { os: "Debian".into(), ..HostFacts::default() }));
    rows[7].interval_ms = 0;
    rows[8].boot = BootId::from_bytes(&[9; 16]).unwrap();
    rows[9].seq = u64::MAX;
    (rows[50].shape, rows[50].values) = (narrow, vec![1]);
    rows[60].processes = vec![process(9, "nginx", u64::MAX >> 1), process(1, "init", 0)];
    rows[61].processes = vec![process(1, "init", 1), process(9, "nginx", 4_096), process(9, "nginx", 5)];
    // The process runs another program under the same pid (execve(2)).
    rows[62].processes = vec![process(9, "sh", 1), process(9, "nginx", 2)];
    rows[63].processes = vec![ProcessRow { parent_pid: None, state: 'Z', ..process(9, "sh", 1) }];
    assert_round_trip(&rows);
    assert_round_trip(&[snapshot(&Arc::new(Shape::new(vec![])), 0, 0, vec![])]);
}

#[test]
fn chunk_lives_as_long_as_its_rows() {
    let shape = shape(&[("cpu.usage", "", 2)]);
    let row = |n: u64| snapshot(&shape, n, T0, vec![n.cast_signed()]);
    let mut encoder = RowEncoder::default();
    let mut encoded = encode(&mut encoder, &(0..100).map(row).collect::<Vec<_>>());
    let owners = |shape: &Arc<Shape>| Arc::strong_count(shape) - 1;
    let chunks = owners(&shape);
    assert!((2..=10).contains(&chunks), "{chunks} chunks of 100 rows");
    let last = encoded.pop().unwrap();
    drop((encoded, encoder));
    assert_eq!(owners(&shape), 1, "the chunk of the last row");
    assert_eq!(decode_rows([&last])[0].values, [99]);
}

#[test]
fn usual_row_takes_a_small_part_of_its_snapshot() {
    let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let columns: Vec<(&str, &str, u8)> = names.iter().map(|name| ("cpu.core.usage", &**name, 2)).collect();
    let shape = shape(&columns);
    let processes: Vec<ProcessRow> = (1..16).map(|pid| process(pid, "worker", 1 << 20)).collect();
    let rows: Vec<Snapshot> = (0..150)
        .map(|n: i64| {
            // Half of the values change, by less than a hundred.
            let value =
                |column: i64| if column % 2 == 0 { 5_000 } else { 5_000 + (n * 37 + column * 11) % 100 };
            let mut row = snapshot(&shape, n.cast_unsigned(), T0 + n * 2_000, (0..200).map(value).collect());
            row.processes.clone_from(&processes);
            for process in &mut row.processes {
                process.cpu_tenths += u32::try_from(n).unwrap() % 7;
            }
            row
        })
        .collect();
    let bytes: usize = encode(&mut RowEncoder::default(), &rows).iter().map(EncodedRow::bytes).sum();
    let plain = rows.len() * (200 * size_of::<i64>() + 15 * size_of::<ProcessRow>());
    assert!(bytes * 8 < plain, "{bytes} of {plain} bytes");
}

fn any_row(shape: Arc<Shape>) -> impl Strategy<Value = Snapshot> {
    let value = prop_oneof![Just(MISSING), Just(0), -500_i64..500, any::<i64>()];
    let process =
        (1_u32..6, 0_usize..3, any::<u32>(), prop_oneof![0_u64..9_000, any::<u64>().prop_map(|n| n >> 1)]);
    let processes = prop::collection::vec(process, 0..6);
    let values = prop::collection::vec(value, shape.columns().len());
    (any::<u64>(), any::<i64>(), any::<u32>(), 0_u8..3, values, processes).prop_map(
        move |(seq, at_ms, interval_ms, boot, values, processes)| Snapshot {
            boot: BootId::from_bytes(&[boot; 16]).unwrap_or_default(),
            interval_ms,
            processes: processes
                .into_iter()
                .map(|(pid, name, cpu_tenths, memory)| ProcessRow {
                    cpu_tenths,
                    ..process_named(pid, name, memory)
                })
                .collect(),
            ..snapshot(&shape, seq, at_ms, values)
        },
    )
}

fn process_named(pid: u32, name: usize, memory_bytes: u64) -> ProcessRow {
    process(pid, ["init", "nginx", "sh"][name], memory_bytes)
}

proptest! {
    #[test]
    fn any_rows_survive(rows in prop::collection::vec(
        prop_oneof![
            4 => any_row(shape(&[("cpu.usage", "", 2), ("memory.used", "", 0), ("disk.reads", "sda", 1)])),
            1 => any_row(shape(&[("cpu.usage", "", 2)])),
        ],
        1..90,
    )) {
        assert_round_trip(&rows);
    }
}
