//! The spool against a model, and its named invariants.

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

fn next(spool: &Spool, most: usize) -> Option<SpoolBatch> {
    spool.pending_batch(most).map(|source| read_batch(source, most, 1 << 20))
}

fn seqs(take: &SpoolBatch) -> Vec<u64> {
    take.entries.iter().map(|entry| entry.seq).collect()
}

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    paths.sort();
    paths
}

#[test]
fn acked_entries_are_not_resent() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 64 << 20);
    for seq in 1..=5 {
        spool.append(&snapshot(seq, 3));
    }
    let first = next(&spool, 2).unwrap();
    assert_eq!(seqs(&first), [1, 2]);
    spool.ack(&first);
    // Taken and not acked: sent again.
    assert_eq!(seqs(&next(&spool, 1).unwrap()), [3]);
    drop(spool);
    let spool = Spool::open(folder.path(), 64 << 20);
    assert_eq!(spool.last_sequence().unwrap().1, 5);
    assert_eq!(seqs(&next(&spool, 100).unwrap()), [3, 4, 5]);
    assert_eq!(spool.pending(), 3);
}

#[test]
fn last_sequence_survives_an_empty_spool() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4_u64 {
        let mut spool = Spool::open(folder.path(), 64 << 20);
        assert_eq!(spool.last_sequence().map_or(0, |last| last.1), round * 10);
        for seq in round * 10 + 1..=round * 10 + 10 {
            spool.append(&snapshot(seq, 3));
        }
        let all = next(&spool, 100).unwrap();
        spool.ack(&all);
        assert!(next(&spool, 100).is_none());
    }
    // Acked segments don't pile up.
    drop(Spool::open(folder.path(), 64 << 20));
    assert!(segments(folder.path()).len() <= 2);
}

#[test]
fn torn_tail_is_truncated_at_every_byte() {
    let source = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(source.path(), 64 << 20);
    for seq in 1..=3 {
        spool.append(&snapshot(seq, 2));
    }
    drop(spool);
    let whole = fs::read(&segments(source.path())[0]).unwrap();
    for length in 0..=whole.len() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("00000000000000000001.seg"), &whole[..length]).unwrap();
        let mut spool = Spool::open(folder.path(), 64 << 20);
        let before = next(&spool, 10).map(|take| seqs(&take)).unwrap_or_default();
        assert!([&[][..], &[1], &[1, 2], &[1, 2, 3]].contains(&&before[..]), "{length}: {before:?}");
        // What comes after the tear is whole.
        spool.append(&snapshot(9, 2));
        let after = next(&spool, 10).unwrap();
        assert_eq!(seqs(&after), [before, vec![9]].concat());
        assert_eq!(after.shapes().len(), 1);
    }
}

#[test]
fn corrupt_byte_never_yields_a_snapshot() {
    let source = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(source.path(), 64 << 20);
    (1..=3).for_each(|seq| spool.append(&snapshot(seq, 2)));
    let good: Vec<SpoolEntry> = next(&spool, 10).unwrap().entries;
    drop(spool);
    let whole = fs::read(&segments(source.path())[0]).unwrap();
    for at in 0..whole.len() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        fs::write(folder.path().join("00000000000000000001.seg"), bytes).unwrap();
        let spool = Spool::open(folder.path(), 64 << 20);
        for entry in next(&spool, 10).map(|take| take.entries).unwrap_or_default() {
            assert!(good.contains(&entry), "byte {at}");
        }
    }
}

#[test]
fn full_spool_drops_oldest_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let cap = 4 << 20;
    let mut spool = Spool::open(folder.path(), cap);
    for seq in 1..=800 {
        spool.append(&snapshot(seq, 1000));
        let on_disk: u64 = segments(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(on_disk <= cap, "{on_disk}");
        assert_eq!(on_disk, spool.bytes());
    }
    assert!(spool.dropped() > 0);
    assert_eq!(spool.pending() + spool.dropped(), 800);
    let left = next(&spool, 1).unwrap();
    assert_eq!(left.entries[0].seq, spool.dropped() + 1);
}

#[test]
fn unwritable_disk_falls_back_to_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not-a-folder");
    fs::write(&file, "").unwrap();
    let mut spool = Spool::open(&file, 64 << 20);
    for seq in 1..=MAX_MEMORY_SNAPSHOTS as u64 + 5 {
        spool.append(&snapshot(seq, 1));
    }
    assert_eq!((spool.pending(), spool.dropped()), (MAX_MEMORY_SNAPSHOTS as u64, 5));
    let first = next(&spool, 2).unwrap();
    assert_eq!(seqs(&first), [6, 7]);
    assert_eq!(first.shapes().len(), 1);
    // Meanwhile the oldest, already taken, fell out: its ack must not take others along.
    spool.append(&snapshot(999, 1));
    spool.ack(&first);
    assert_eq!(seqs(&next(&spool, 1).unwrap()), [8]);
}

#[test]
fn shapes_are_found_for_old_and_new_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 64 << 20);
    spool.append(&snapshot(1, 1));
    drop(spool);
    let mut spool = Spool::open(folder.path(), 64 << 20);
    spool.append(&snapshot(2, 2));
    let all = next(&spool, 10).unwrap();
    let mut shapes: Vec<usize> =
        all.shapes().into_iter().map(|bytes| wire::decode_shape(bytes).unwrap().columns().len()).collect();
    shapes.sort_unstable();
    assert_eq!(shapes, [1, 2]);
}

#[test]
fn memory_sequences_are_not_reused() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let mut spool = Spool::open(&folder, 64 << 20);
    spool.append(&snapshot(1, 1));
    // The disk refuses: a folder stands where the next segment should be.
    for id in 2..40 {
        let _ = fs::create_dir(folder.join(format!("{id:020}.seg")));
    }
    for segment in segments(&folder).into_iter().filter(|path| path.is_file()) {
        fs::remove_file(segment).unwrap();
    }
    spool.append(&snapshot(2, 1));
    assert_eq!(spool.memory.len(), 1);
    drop(spool);
    // Nobody knows whether 2 was sent: counting must start beyond it.
    assert_eq!(Spool::open(&folder, 64 << 20).last_sequence(), None);
}

#[test]
fn spool_returns_to_disk_when_writable() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    fs::write(&folder, "in the way").unwrap();
    let mut spool = Spool::open(&folder, 64 << 20);
    spool.append(&snapshot(1, 1));
    assert!(spool.log.is_none());
    fs::remove_file(&folder).unwrap();
    for seq in 2..10 {
        spool.append(&snapshot(seq, 1));
    }
    assert!(spool.log.is_some() && spool.memory.is_empty());
    assert_eq!(seqs(&next(&spool, 100).unwrap()), (1..10).collect::<Vec<_>>());
}

#[test]
fn deleted_spool_directory_loses_only_its_entries() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let mut spool = Spool::open(&folder, 64 << 20);
    spool.append(&snapshot(1, 1));
    fs::remove_dir_all(&folder).unwrap();
    // Nothing can be read, so nothing is acked, and nothing spins.
    assert!(!next(&spool, 10).unwrap().makes_progress());
    spool.append(&snapshot(2, 1));
    let rest = next(&spool, 10).unwrap();
    assert_eq!((seqs(&rest), rest.makes_progress()), (vec![2], true));
    spool.ack(&rest);
    assert_eq!(spool.pending(), 0);
}

#[derive(Debug, Clone)]
enum CollectionStep {
    Append(usize),
    Send(usize, bool),
    Restart,
    Tear(usize),
}

fn any_step() -> impl Strategy<Value = CollectionStep> {
    prop_oneof![
        4 => (1usize..40).prop_map(CollectionStep::Append),
        4 => (1usize..60, any::<bool>()).prop_map(|(most, acked)| CollectionStep::Send(most, acked)),
        1 => Just(CollectionStep::Restart),
        1 => (0usize..12).prop_map(CollectionStep::Tear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a plain queue: after any sequence of steps the spool holds what the queue
    /// holds, in order; only a torn tail may cost the newest, or bring back an acked one.
    #[test]
    fn behaves_like_a_queue(steps in proptest::collection::vec(any_step(), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 64 << 20);
        let (mut queue, mut seq, mut torn) = (VecDeque::new(), 0_u64, false);
        for step in steps {
            match step {
                CollectionStep::Append(columns) => {
                    seq = seq.max(spool.last_sequence().map_or(0, |last| last.1)) + 1;
                    spool.append(&snapshot(seq, columns));
                    queue.push_back(seq);
                }
                CollectionStep::Send(most, acked) => {
                    let taken = next(&spool, most);
                    let sent = taken.as_ref().map(seqs).unwrap_or_default();
                    let expected: Vec<u64> = queue.iter().copied().take(most).collect();
                    prop_assert_eq!(&sent, &expected);
                    if let Some(taken) = taken.filter(|_| acked) {
                        spool.ack(&taken);
                        queue.drain(..sent.len());
                    }
                }
                CollectionStep::Restart => {
                    drop(spool);
                    spool = Spool::open(folder.path(), 64 << 20);
                }
                CollectionStep::Tear(bytes) => {
                    drop(spool);
                    let newest = segments(folder.path()).pop().unwrap();
                    let length = fs::metadata(&newest).unwrap().len();
                    fs::OpenOptions::new().write(true).open(&newest).unwrap().set_len(length.saturating_sub(bytes as u64)).unwrap();
                    spool = Spool::open(folder.path(), 64 << 20);
                    torn = bytes > 0;
                }
            }
            let held = next(&spool, usize::MAX).as_ref().map(seqs).unwrap_or_default();
            prop_assert!(held.is_sorted_by(|a, b| a < b), "{:?}", held);
            if torn {
                // The model learns what the tear did.
                queue = held.into();
                torn = false;
            } else {
                prop_assert_eq!(&held, &Vec::from(queue.clone()));
            }
        }
    }
}
