//! Tests of the block codec: round trips, golden blocks, corruption, and roll-up.

use crate::*;
use perfwatch_model::{BootId, CollectorError, Column, HostFacts, MISSING, ProcessRow, Shape, Snapshot};
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) fn shape(names: &[(&'static str, &str, u8)]) -> Arc<Shape> {
    let columns = names.iter().map(|&(metric, instance, decimals)| Column {
        metric: metric.into(),
        dimension: if instance.is_empty() { "".into() } else { "part".into() },
        instance: instance.into(),
        decimals,
    });
    Arc::new(Shape::new(columns.collect()))
}

pub(crate) fn snapshot(shape: &Arc<Shape>, seq: u64, at_ms: i64, values: Vec<i64>) -> Snapshot {
    Snapshot {
        boot: BootId::default(),
        seq,
        at_ms,
        interval_ms: 2_000,
        shape: shape.clone(),
        values,
        processes: vec![],
        facts: None,
        errors: vec![],
    }
}

/// One hour of deterministic snapshots.
fn hour() -> Vec<Arc<Snapshot>> {
    let shape = shape(&[
        ("cpu.usage", "", 2),
        ("memory.used", "", 0),
        ("disk.reads", "sda", 1),
        ("swap.used", "", 0),
    ]);
    let facts = HostFacts { os: "Debian".into(), cores: 2, ..HostFacts::default() };
    let row = |n: u64| {
        let noise = n.wrapping_mul(6_364_136_223_846_793_005).rotate_left(20) % 997;
        let noise = i64::try_from(noise).unwrap();
        let reads = if n.is_multiple_of(15) { noise } else { MISSING };
        let at = 1_763_719_200_000 + i64::try_from(n).unwrap() * 2_000 + noise % 7;
        let mut snapshot = snapshot(&shape, n + 10, at, vec![noise, noise * 4_096, reads, 0]);
        snapshot.processes = (0..3)
            .map(|p| ProcessRow {
                pid: 100 + p + u32::try_from(n / 200).unwrap(),
                name: format!("worker{p}").into(),
                user: "root".into(),
                command: format!("/usr/bin/worker --number {p}").into(),
                state: 'S',
                cpu_tenths: 300 - p * 100,
                memory_bytes: 1 << 20,
                threads: 4,
                open_files: (p != 1).then_some(9),
                read_bytes: None,
                write_bytes: Some(n),
                started_ms: 1_763_000_000_000,
                parent_pid: None,
            })
            .collect();
        if n % 100 < 3 {
            snapshot.errors.push(CollectorError { collector: "disk".into(), message: "gone".into() });
        }
        if n == 0 {
            snapshot.facts = Some(Arc::new(facts.clone()));
        }
        if n >= 900 {
            snapshot.boot = BootId::from_bytes(&[7; 16]).unwrap();
        }
        Arc::new(snapshot)
    };
    (0..1_800).map(row).collect()
}

/// Reads a block like a store: the header first, then part by part.
fn read(block: &Block, shape: &Arc<Shape>) -> Result<Table, FormatError> {
    let header = BlockHeader::parse(&block.bytes[..block.header_len])?;
    let part = |part| -> Result<&[u8], FormatError> {
        let range = header.byte_range(part)?;
        Ok(range.map_or(&[][..], |range| block.bytes.get(range).unwrap_or_default()))
    };
    let column = |column| header.decode_column(column, part(column)?);
    let (errors, facts) = header.decode_annotations(part(BlockPart::Annotations)?)?;
    Ok(Table {
        shape: shape.clone(),
        at_ms: column(BlockPart::Time)?,
        interval_ms: column(BlockPart::Interval)?,
        boots: header.decode_boots(part(BlockPart::Boot)?, part(BlockPart::Boots)?)?,
        seqs: column(BlockPart::Seq)?.iter().map(|seq| seq.cast_unsigned()).collect(),
        columns: (0..header.columns())
            .map(|index| column(BlockPart::Column(index)))
            .collect::<Result<_, _>>()?,
        processes: header.decode_processes(part(BlockPart::Processes)?)?,
        errors,
        facts,
    })
}

#[test]
fn block_round_trips() {
    let snapshots = hour();
    let tables = Table::from_snapshots(&snapshots);
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].snapshots(), snapshots);
    for level in [CompressionLevel::Fast, CompressionLevel::Best] {
        let block = block::encode(&tables[0], level);
        assert_eq!(read(&block, &tables[0].shape).unwrap(), tables[0], "{level:?}");
    }
    let fast = block::encode(&tables[0], CompressionLevel::Fast).bytes.len();
    let best = block::encode(&tables[0], CompressionLevel::Best).bytes.len();
    assert!(best <= fast, "{best} {fast}");
}

/// Header lengths of the two golden blocks, in bytes.
const GOLDEN_HEADER_LENS: [usize; 2] = [72, 90];

#[test]
fn version_1_blocks_decode() {
    let table = &Table::from_snapshots(&hour()[880..940])[0];
    let minutes = Buckets::from_table(table, 60_000, 0);
    let raw = block::encode(table, CompressionLevel::Best).bytes;
    let rolled_up = block::encode_buckets(&minutes, CompressionLevel::Best).bytes;
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for (name, bytes) in [("ticks.v1.block", &raw), ("minutes.v1.block", &rolled_up)] {
        let path = fixtures.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, bytes).unwrap();
        }
    }
    // Stores keep the header length beside a block.
    let [raw_header_len, minutes_header_len] = GOLDEN_HEADER_LENS;
    let golden = std::fs::read(fixtures.join("ticks.v1.block")).unwrap();
    let block =
        Block { bytes: golden, header_len: raw_header_len, ..block::encode(table, CompressionLevel::Best) };
    assert_eq!(&read(&block, &table.shape).unwrap(), table);
    let golden = std::fs::read(fixtures.join("minutes.v1.block")).unwrap();
    let header = BlockHeader::parse(&golden[..minutes_header_len]).unwrap();
    for (index, column) in minutes.columns.iter().enumerate() {
        let stored: Vec<Vec<i64>> = (0..BUCKET_STATS_LEN)
            .map(|stat| {
                let part = BlockPart::Stat(index, stat);
                let range = header.byte_range(part).unwrap().unwrap_or(0..0);
                header.decode_column(part, &golden[range]).unwrap()
            })
            .collect();
        assert_eq!(&BucketColumn::decode(&stored).unwrap(), column);
    }
}

#[test]
fn bit_flip_affects_one_part_and_is_reported() {
    let table = &Table::from_snapshots(&hour()[..150])[0];
    let block = block::encode(table, CompressionLevel::Fast);
    for offset in 0..block.bytes.len() {
        let mut changed = block.clone();
        changed.bytes[offset] ^= 4;
        // Every byte is covered by a checksum.
        let outcome = read(&changed, &table.shape);
        assert!(outcome.is_err(), "byte {offset} of {}", block.bytes.len());
    }
    for length in 0..block.bytes.len() {
        let mut truncated = block.clone();
        truncated.bytes.truncate(length);
        assert!(length < truncated.header_len || read(&truncated, &table.shape).is_err());
    }
    let mut newer = block.bytes[..block.header_len].to_vec();
    newer[4] = 2;
    assert_eq!(BlockHeader::parse(&newer).unwrap_err(), FormatError::UnsupportedVersion(2));
}

#[test]
fn mixed_shapes_share_a_block_and_duplicates_merge() {
    let (first, second) = (shape(&[("a", "", 0), ("b", "x", 0)]), shape(&[("b", "x", 0), ("c", "", 0)]));
    let rows = [
        Arc::new(snapshot(&first, 1, 1_000, vec![1, 2])),
        Arc::new(snapshot(&second, 3, 3_000, vec![5, 6])),
        Arc::new(snapshot(&first, 2, 2_000, vec![3, 4])),
        Arc::new(snapshot(&first, 2, 2_000, vec![3, 4])),
    ];
    let tables = Table::from_snapshots(&rows);
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].columns, [vec![1, 3, MISSING], vec![2, 4, 5], vec![MISSING, MISSING, 6]]);
    // A precision change of a series starts a new table.
    let finer = shape(&[("a", "", 2)]);
    let with_change = [rows[0].clone(), Arc::new(snapshot(&finer, 9, 9_000, vec![100]))];
    let split = Table::from_snapshots(&with_change);
    assert_eq!(split.len(), 2);
    let inputs: Vec<Table> = tables.iter().chain(&split).cloned().collect();
    let merged = Table::merge(inputs, 2_000);
    assert_eq!(merged.iter().map(Table::len).sum::<usize>(), 3);
    assert_eq!(merged[0].at_ms, [2_000, 3_000]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_bytes_are_rejected(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(BlockHeader::parse(&bytes).is_err());
        // Valid magic and checksum around arbitrary content.
        if bytes.len() > 60 {
            bytes[..5].copy_from_slice(b"PWB\x1a\x01");
            let checked_len = bytes.len() - 4;
            let checksum = crc32fast::hash(&bytes[..checked_len]).to_le_bytes();
            bytes[checked_len..].copy_from_slice(&checksum);
            let _ = BlockHeader::parse(&bytes);
        }
    }

    #[test]
    fn rollup_is_idempotent(
        values in proptest::collection::vec(
            (0i64..200_000, prop_oneof![4 => -500i64..500, 1 => Just(MISSING)]),
            1..200,
        )
    ) {
        let shape = shape(&[("a", "", 0)]);
        let mut seq = 0;
        let rows: Vec<Arc<Snapshot>> = values.iter().map(|&(at, value)| {
            seq += 1;
            Arc::new(snapshot(&shape, seq, at, vec![value]))
        }).collect();
        let tables = Table::from_snapshots(&rows);
        let minutes = Buckets::from_table(&tables[0], 60_000, 0);
        // Independent computation of the expected statistics.
        for (row, start) in minutes.start_ms.iter().enumerate() {
            let mut within: Vec<(i64, u64, i64)> = rows
                .iter()
                .filter(|s| s.at_ms.div_euclid(60_000) * 60_000 == *start && s.values[0] != MISSING)
                .map(|s| (s.at_ms, s.seq, s.values[0]))
                .collect();
            within.sort_unstable();
            let stats = minutes.columns[0].0[row];
            prop_assert_eq!(stats.count, within.len() as i64);
            if let Some(&(_, _, last)) = within.last() {
                prop_assert_eq!(stats.sum, within.iter().map(|w| i128::from(w.2)).sum::<i128>());
                prop_assert_eq!(Some(stats.min), within.iter().map(|w| w.2).min());
                prop_assert_eq!(Some(stats.max), within.iter().map(|w| w.2).max());
                prop_assert_eq!(stats.last, last);
            }
        }
        prop_assert_eq!(&minutes.downsample(60_000), &minutes);
        let halves = [minutes.slice(0, 60_000), minutes.slice(60_000, i64::MAX)];
        let merged = Buckets::merge(&halves);
        prop_assert_eq!(&merged[0], &minutes);
        let hours = minutes.downsample(3_600_000);
        prop_assert_eq!(&hours, &Buckets::from_table(&tables[0], 3_600_000, 0));
    }
}
