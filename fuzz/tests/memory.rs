//! Memory that hostile input takes while it is decoded.

use perfwatch_fuzz::measure::{MeasuringAllocator, peak_bytes};
use perfwatch_model::{Column, Shape, limits, wire};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

/// M2: lists of empty entries, two bytes each, became 16 to 100 times as much memory before the limits on
/// their number were checked.
#[test]
fn empty_wire_entries_are_counted_before_decoding() {
    let empty_shape = Arc::new(Shape::new(Vec::<Column>::new()));
    let id = [b"\n\x10", &[0; 16][..], b"*\x10", &empty_shape.id().0[..]].concat();
    let list = |entry: &[u8; 2], bytes: usize| entry.repeat(bytes / 2);
    for (name, message) in [
        ("snapshots of a batch", list(b"\"\0", limits::MAX_DECOMPRESSED_BYTES)),
        ("shapes of a batch", list(b"\x1a\0", limits::MAX_DECOMPRESSED_BYTES)),
        ("columns of a shape", list(b"\n\0", limits::MAX_SHAPE_BYTES)),
        (
            "processes of a snapshot",
            [id.clone(), list(b":\0", limits::MAX_SNAPSHOT_BYTES - id.len())].concat(),
        ),
        ("errors of a snapshot", [id.clone(), list(b"J\0", limits::MAX_SNAPSHOT_BYTES - id.len())].concat()),
    ] {
        let message = bytes::Bytes::from(message);
        let (is_rejected, peak) = peak_bytes(|| match name.rsplit(' ').next() {
            Some("batch") => wire::decode_batch(message.clone()).is_err(),
            Some("shape") => wire::decode_shape(message.clone()).is_err(),
            _ => {
                let shape = |_| Some(empty_shape.clone());
                wire::decode_snapshot(message.clone(), &shape, &|text| text.into()).is_err()
            }
        });
        assert!(is_rejected, "{name}");
        assert!(peak <= 64 << 10, "{name}: {peak} bytes of memory");
    }
}
