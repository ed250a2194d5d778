//! Incident capsules: container, document, series and processes.
//!
//! Checksums would refuse nearly all mutations of a file: an input is a file, or by its first byte a decompressed
//! section.

use crate::{MemoryBound, Target};
use perfwatch_capsule::{Capsule, CapsuleDocument, decode_processes, decode_series};

/// Rows, series and processes of the sections.
const MAX_COUNT: usize = 64;

pub(crate) const CAPSULE: Target = Target {
    name: "capsule",
    run: decode,
    seeds,
    dictionary: &["PWCAP\r\n\u{1a}", "\"hosts\":", "\"rows\":", "\"series\":", "\"incidents\":"],
    max_len: 16 << 10,
    // Compression state, and sections with little content that decompress to much more: at most 1,032 times.
    memory: MemoryBound { fixed_bytes: 2 << 20, per_byte: 2_200 },
};

const GOLDEN: &[u8] = include_bytes!("../../crates/perfwatch-capsule/src/golden/small.pwcap");

fn seeds() -> Vec<Vec<u8>> {
    // Times 10 and 12 s, intervals of 2 s, and a column with the values 5, missing.
    let series = [b'S', 2, 1, 0xa0, 0x9c, 1, 0xa0, 0x1f, 0xa0, 0x1f, 0, 0, 1, 1, 10];
    // Row at 10 s with the process 7 "a" of the user "b".
    let processes =
        [b'P', 0xa0, 0x9c, 1, 1, 0, 7, 2, 0, 0, 1, b'a', 1, 1, b'b', 2, 0, 0x53, 9, 100, 1, 0, 1, 0];
    let document = serde_json::to_vec(Capsule::parse(GOLDEN).expect("golden file").document());
    let document = [b"D", document.expect("JSON").as_slice()].concat();
    vec![[b"F", GOLDEN].concat(), series.to_vec(), processes.to_vec(), document]
}

fn decode(data: &[u8]) -> bool {
    let Some((kind, content)) = data.split_first() else { return false };
    match kind {
        b'S' => decode_series(content, 2, MAX_COUNT).is_ok_and(|series| {
            assert_eq!((series.at_ms.len(), series.interval_ms.len()), (2, 2));
            assert!(series.at_ms.is_sorted());
            assert!(series.columns.iter().all(|column| matches!(column.len(), 0 | 2)));
            true
        }),
        b'P' => decode_processes(content, 1).is_ok_and(|table| {
            assert_eq!(table.samples.len(), 1);
            true
        }),
        b'D' => CapsuleDocument::parse(content).is_ok_and(|document| {
            let json = serde_json::to_vec(&document).expect("JSON");
            assert_eq!(CapsuleDocument::parse(&json).as_ref(), Ok(&document));
            true
        }),
        _ => Capsule::parse(content).is_ok_and(|capsule| capsule.verify().is_ok()),
    }
}
