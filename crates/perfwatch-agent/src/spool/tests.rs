//! Tests of the spool's invariants, and against a model queue.

use super::*;
use perfwatch_model::Column;
use proptest::prelude::*;
use std::fs;
use std::sync::Arc;

fn snapshot(seq: u64, columns: usize) -> Snapshot {
    let column = |n: usize| Column {
        metric: format!("m{n}").into(),
        dimension: "".into(),
        instance: "".into(),
        decimals: 0,
    };
    let shape = Arc::new(perfwatch_model::Shape::new((0..columns).map(column).collect()));
    Snapshot {
        boot: "00000000-0000-0000-0000-000000000009".parse().unwrap(),
        seq,
        at_ms: 0,
        interval_ms: 0,
        values: vec![i64::MAX; columns],
        shape,
        processes: vec![],
        facts: None,
        errors: vec![],
    }
}

fn next_batch(spool: &Spool, max_entries: usize) -> Option<SpoolBatch> {
    spool.pending_batch(max_entries).map(|pending| read_batch(pending, max_entries, 1 << 20))
}

fn seqs(batch: &SpoolBatch) -> Vec<u64> {
    batch.entries.iter().map(|entry| entry.seq).collect()
}

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    paths.sort();
    paths
}

#[test]
fn acked_entries_are_not_resent() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), 64 << 20);
    for seq in 1..=5 {
        spool.append(&snapshot(seq, 3));
    }
    let first = next_batch(&spool, 2).unwrap();
    assert_eq!(seqs(&first), [1, 2]);
    spool.ack(&first);
    // Read but not acknowledged: read again.
    assert_eq!(seqs(&next_batch(&spool, 1).unwrap()), [3]);
    drop(spool);
    let spool = Spool::open(directory.path(), 64 << 20);
    assert_eq!(spool.last_sequence().unwrap().1, 5);
    assert_eq!(seqs(&next_batch(&spool, 100).unwrap()), [3, 4, 5]);
    assert_eq!(spool.pending(), 3);
}

#[test]
fn last_sequence_survives_an_empty_spool() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..4_u64 {
        let mut spool = Spool::open(directory.path(), 64 << 20);
        assert_eq!(spool.last_sequence().map_or(0, |last| last.1), round * 10);
        for seq in round * 10 + 1..=round * 10 + 10 {
            spool.append(&snapshot(seq, 3));
        }
        let batch = next_batch(&spool, 100).unwrap();
        spool.ack(&batch);
        assert!(next_batch(&spool, 100).is_none());
    }
    // Acknowledged segments do not accumulate.
    drop(Spool::open(directory.path(), 64 << 20));
    assert!(segments(directory.path()).len() <= 2);
}

#[test]
fn torn_tail_is_truncated_at_every_byte() {
    let source = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(source.path(), 64 << 20);
    for seq in 1..=3 {
        spool.append(&snapshot(seq, 2));
    }
    drop(spool);
    let complete = fs::read(&segments(source.path())[0]).unwrap();
    for length in 0..=complete.len() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("00000000000000000001.seg"), &complete[..length]).unwrap();
        let mut spool = Spool::open(directory.path(), 64 << 20);
        let before = next_batch(&spool, 10).map(|batch| seqs(&batch)).unwrap_or_default();
        assert!([&[][..], &[1], &[1, 2], &[1, 2, 3]].contains(&&before[..]), "{length}: {before:?}");
        // A snapshot appended after the truncated record is intact.
        spool.append(&snapshot(9, 2));
        let after = next_batch(&spool, 10).unwrap();
        assert_eq!(seqs(&after), [before, vec![9]].concat());
        assert_eq!(after.shapes().len(), 1);
    }
}

#[test]
fn corrupt_byte_never_yields_a_snapshot() {
    let source = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(source.path(), 64 << 20);
    (1..=3).for_each(|seq| spool.append(&snapshot(seq, 2)));
    let intact: Vec<SpoolEntry> = next_batch(&spool, 10).unwrap().entries;
    drop(spool);
    let complete = fs::read(&segments(source.path())[0]).unwrap();
    for offset in 0..complete.len() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = complete.clone();
        bytes[offset] ^= 0x41;
        fs::write(directory.path().join("00000000000000000001.seg"), bytes).unwrap();
        let spool = Spool::open(directory.path(), 64 << 20);
        for entry in next_batch(&spool, 10).map(|batch| batch.entries).unwrap_or_default() {
            assert!(intact.contains(&entry), "byte {offset}");
        }
    }
}

#[test]
fn full_spool_drops_oldest_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let max_bytes = 4 << 20;
    let mut spool = Spool::open(directory.path(), max_bytes);
    for seq in 1..=800 {
        spool.append(&snapshot(seq, 1000));
        let on_disk: u64 =
            segments(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(on_disk <= max_bytes, "{on_disk}");
        assert_eq!(on_disk, spool.bytes());
    }
    assert!(spool.dropped() > 0);
    assert_eq!(spool.pending() + spool.dropped(), 800);
    let oldest = next_batch(&spool, 1).unwrap();
    assert_eq!(oldest.entries[0].seq, spool.dropped() + 1);
}

#[test]
fn unwritable_disk_falls_back_to_memory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("not-a-directory");
    fs::write(&file, "").unwrap();
    let mut spool = Spool::open(&file, 64 << 20);
    for seq in 1..=MAX_MEMORY_SNAPSHOTS as u64 + 5 {
        spool.append(&snapshot(seq, 1));
    }
    assert_eq!((spool.pending(), spool.dropped()), (MAX_MEMORY_SNAPSHOTS as u64, 5));
    let first = next_batch(&spool, 2).unwrap();
    assert_eq!(seqs(&first), [6, 7]);
    assert_eq!(first.shapes().len(), 1);
    // The oldest entry, already read, is dropped before its acknowledgment, which must not delete others.
    spool.append(&snapshot(999, 1));
    spool.ack(&first);
    assert_eq!(seqs(&next_batch(&spool, 1).unwrap()), [8]);
}

#[test]
fn shapes_are_found_for_old_and_new_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), 64 << 20);
    spool.append(&snapshot(1, 1));
    drop(spool);
    let mut spool = Spool::open(directory.path(), 64 << 20);
    spool.append(&snapshot(2, 2));
    let batch = next_batch(&spool, 10).unwrap();
    let mut shapes: Vec<usize> =
        batch.shapes().into_iter().map(|bytes| wire::decode_shape(bytes).unwrap().columns().len()).collect();
    shapes.sort_unstable();
    assert_eq!(shapes, [1, 2]);
}

#[test]
fn memory_sequences_are_not_reused() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("spool");
    let mut spool = Spool::open(&directory, 64 << 20);
    spool.append(&snapshot(1, 1));
    // Not writable: a directory has the name of the next segment.
    for id in 2..40 {
        let _ = fs::create_dir(directory.join(format!("{id:020}.seg")));
    }
    for segment in segments(&directory).into_iter().filter(|path| path.is_file()) {
        fs::remove_file(segment).unwrap();
    }
    spool.append(&snapshot(2, 1));
    assert_eq!(spool.memory.len(), 1);
    drop(spool);
    // Snapshot 2 may have been sent: the sequence must start above it.
    assert_eq!(Spool::open(&directory, 64 << 20).last_sequence(), None);
}

#[test]
fn spool_returns_to_disk_when_writable() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("spool");
    fs::write(&directory, "not a directory").unwrap();
    let mut spool = Spool::open(&directory, 64 << 20);
    spool.append(&snapshot(1, 1));
    assert!(spool.log.is_none());
    fs::remove_file(&directory).unwrap();
    for seq in 2..10 {
        spool.append(&snapshot(seq, 1));
    }
    assert!(spool.log.is_some() && spool.memory.is_empty());
    assert_eq!(seqs(&next_batch(&spool, 100).unwrap()), (1..10).collect::<Vec<_>>());
}

#[test]
fn deleted_spool_directory_loses_only_its_entries() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("spool");
    let mut spool = Spool::open(&directory, 64 << 20);
    spool.append(&snapshot(1, 1));
    fs::remove_dir_all(&directory).unwrap();
    // Nothing can be read, so nothing is acknowledged and the pusher waits.
    assert!(!next_batch(&spool, 10).unwrap().makes_progress());
    spool.append(&snapshot(2, 1));
    let batch = next_batch(&spool, 10).unwrap();
    assert_eq!((seqs(&batch), batch.makes_progress()), (vec![2], true));
    spool.ack(&batch);
    assert_eq!(spool.pending(), 0);
}

#[derive(Debug, Clone)]
enum SpoolStep {
    Append(usize),
    Send(usize, bool),
    Restart,
    Truncate(usize),
}

fn any_step() -> impl Strategy<Value = SpoolStep> {
    prop_oneof![
        4 => (1usize..40).prop_map(SpoolStep::Append),
        4 => (1usize..60, any::<bool>()).prop_map(|(max_entries, acked)| SpoolStep::Send(max_entries, acked)),
        1 => Just(SpoolStep::Restart),
        1 => (0usize..12).prop_map(SpoolStep::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The spool contains the entries of a plain queue, in order, after any sequence of steps. Only
    /// a truncated end may lose the newest entries or restore acknowledged entries.
    #[test]
    fn behaves_like_a_queue(steps in proptest::collection::vec(any_step(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 64 << 20);
        let (mut queue, mut seq, mut truncated) = (VecDeque::new(), 0_u64, false);
        for step in steps {
            match step {
                SpoolStep::Append(columns) => {
                    seq = seq.max(spool.last_sequence().map_or(0, |last| last.1)) + 1;
                    spool.append(&snapshot(seq, columns));
                    queue.push_back(seq);
                }
                SpoolStep::Send(max_entries, acked) => {
                    let batch = next_batch(&spool, max_entries);
                    let sent = batch.as_ref().map(seqs).unwrap_or_default();
                    let expected: Vec<u64> = queue.iter().copied().take(max_entries).collect();
                    prop_assert_eq!(&sent, &expected);
                    if let Some(batch) = batch.filter(|_| acked) {
                        spool.ack(&batch);
                        queue.drain(..sent.len());
                    }
                }
                SpoolStep::Restart => {
                    drop(spool);
                    spool = Spool::open(directory.path(), 64 << 20);
                }
                SpoolStep::Truncate(bytes) => {
                    drop(spool);
                    let newest = segments(directory.path()).pop().unwrap();
                    let length = fs::metadata(&newest).unwrap().len();
                    fs::OpenOptions::new().write(true).open(&newest).unwrap().set_len(length.saturating_sub(bytes as u64)).unwrap();
                    spool = Spool::open(directory.path(), 64 << 20);
                    truncated = bytes > 0;
                }
            }
            let stored = next_batch(&spool, usize::MAX).as_ref().map(seqs).unwrap_or_default();
            prop_assert!(stored.is_sorted_by(|a, b| a < b), "{:?}", stored);
            if truncated {
                // The model adopts the result of the truncation.
                queue = stored.into();
                truncated = false;
            } else {
                prop_assert_eq!(&stored, &Vec::from(queue.clone()));
            }
        }
    }
}
