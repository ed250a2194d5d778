//! Tests of the wire format: round trips, golden bytes that must always decode, hostile bytes.

use super::*;
use crate::MISSING;
use crate::printable::is_hidden;
use proptest::prelude::*;

fn sample() -> Snapshot {
    let column = |metric: &'static str, dimension: &'static str, instance: &str, decimals| Column {
        metric: metric.into(),
        dimension: dimension.into(),
        instance: instance.into(),
        decimals,
    };
    Snapshot {
        boot: BootId(Uuid::from_u128(7)),
        seq: 42,
        at_ms: 1_763_720_000_123,
        interval_ms: 2000,
        shape: Arc::new(Shape::new(vec![
            column("cpu.usage", "", "", 2),
            column("network.rx_bytes", "interface", "eth0", 0),
        ])),
        values: vec![1234, MISSING],
        processes: vec![ProcessRow {
            pid: 1,
            name: "init".into(),
            user: "root".into(),
            command: "/sbin/init".into(),
            state: 'S',
            cpu_tenths: 5,
            memory_bytes: 1 << 20,
            threads: 1,
            open_files: Some(9),
            read_bytes: None,
            write_bytes: Some(0),
            started_ms: 1_763_000_000_000,
            parent_pid: None,
        }],
        facts: Some(Arc::new(HostFacts { os: "Debian".into(), cores: 2, ..HostFacts::default() })),
        errors: vec![CollectorError { collector: "disk".into(), message: "no".into() }],
    }
}

#[test]
fn wire_round_trips() {
    let snapshot = sample();
    let shape = Arc::new(decode_shape(encode_shape(&snapshot.shape)).unwrap());
    assert_eq!(shape.id(), snapshot.shape.id());
    let bytes = encode_snapshot(&snapshot);
    let decoded =
        decode_snapshot(bytes, &|id| (id == shape.id()).then(|| shape.clone()), &|text| text.into()).unwrap();
    assert_eq!(decoded, snapshot);
}

#[test]
fn equal_texts_of_a_process_are_shared_with_the_snapshot_before() {
    let (first, mut changed) = (sample(), sample());
    changed.processes[0].command = "/usr/bin/other".into();
    let shapes = |_| Some(first.shape.clone());
    let decode = |snapshot: &Snapshot, previous: &[ProcessRow]| {
        decode_next_snapshot(previous, encode_snapshot(snapshot), &shapes, &|text| text.into()).unwrap().0
    };
    let next = decode(&changed, &first.processes);
    assert_eq!(next, changed);
    assert!(Arc::ptr_eq(&next.processes[0].name, &first.processes[0].name));
    // Another process with the same id.
    changed.processes[0].started_ms += 1;
    let next = decode(&changed, &first.processes);
    assert!(next == changed && !Arc::ptr_eq(&next.processes[0].name, &first.processes[0].name));
}

#[test]
fn bytes_with_unknown_fields_are_not_canonical() {
    let snapshot = sample();
    let shapes = |_| Some(snapshot.shape.clone());
    let decode = |bytes: Vec<u8>| {
        let decoded = decode_next_snapshot(&[], bytes.into(), &shapes, &|text| text.into()).unwrap();
        (decoded.0 == snapshot).then_some(decoded.1)
    };
    let plain = encode_snapshot(&snapshot).to_vec();
    // A field of a later version, of the snapshot and of a process, and a number that takes more bytes than it needs.
    let later = [&plain[..], &[15 << 3, 1]].concat();
    let process = ProcessMessage::new(&snapshot.processes[0]).encode_to_vec();
    let later_process = [&process[..], &[15 << 3, 1]].concat();
    let with_process = |process: &[u8]| {
        let rest = SnapshotMessage { processes: Vec::new(), ..SnapshotMessage::decode(&plain[..]).unwrap() };
        let length = u8::try_from(process.len()).unwrap();
        assert!(length < 0x80, "a varint of a byte");
        [&rest.encode_to_vec()[..], &[7 << 3 | 2, length][..], process].concat()
    };
    assert_eq!(snapshot.processes.len(), 1);
    for (bytes, is_canonical) in [
        (plain.clone(), true),
        (with_process(&process), true),
        (later, false),
        (with_process(&later_process), false),
        ([&plain[..], &[2 << 3, 0x80 | u8::try_from(snapshot.seq).unwrap(), 0]].concat(), false),
    ] {
        assert_eq!(decode(bytes), Some(is_canonical));
    }
}

/// Bytes written by version 0.1.0. If this test fails, the hub cannot decode those agents.
#[test]
fn golden_bytes_decode() {
    let unhex = |text: &str| -> Bytes {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let shape = Arc::new(decode_shape(unhex(include_str!("../fixtures/shape.v1.hex"))).unwrap());
    let golden = unhex(include_str!("../fixtures/snapshot.v1.hex"));
    assert_eq!(
        decode_snapshot(golden.clone(), &|_| Some(shape.clone()), &|text| text.into()).unwrap(),
        sample()
    );
    assert_eq!(encode_snapshot(&sample()), golden);
}

#[test]
fn parents_of_processes_are_an_optional_field() {
    let mut snapshot = sample();
    let earlier = encode_snapshot(&snapshot);
    snapshot.processes[0].parent_pid = Some(7);
    let bytes = encode_snapshot(&snapshot);
    let shapes = |_| Some(snapshot.shape.clone());
    let parent = |bytes: &Bytes| {
        decode_snapshot(bytes.clone(), &shapes, &|text| text.into()).unwrap().processes[0].parent_pid
    };
    assert_eq!((parent(&earlier), parent(&bytes)), (None, Some(7)));
}

#[test]
fn unknown_shape_is_reported() {
    let snapshot = sample();
    let error = decode_snapshot(encode_snapshot(&snapshot), &|_| None, &|text| text.into()).unwrap_err();
    assert_eq!(error, WireError::UnknownShape(snapshot.shape.id()));
}

#[test]
fn invalid_shapes_are_rejected() {
    let shape = |metric: &str, instance: &str, decimals| {
        let column = ColumnMessage {
            metric: metric.into(),
            dimension: String::new(),
            instance: instance.into(),
            decimals,
        };
        decode_shape(ShapeMessage { columns: vec![column] }.encode_to_vec().into())
    };
    assert!(shape("cpu.usage", "", 2).is_ok());
    for (metric, instance, decimals) in [
        ("", "", 0),
        ("cpu..usage", "", 0),
        ("Cpu", "", 0),
        ("host", "", 0),
        ("errors.x", "", 0),
        ("cpu.usage", &"x".repeat(256), 0),
        ("cpu.usage", "", 7),
    ] {
        assert!(matches!(shape(metric, instance, decimals), Err(WireError::Invalid(_))), "{metric:?}");
    }
}

/// Finding L8: texts of an agent. The id of a shape is that of the columns as sent.
#[test]
fn hidden_characters_of_agents_are_escaped() {
    let hidden = "\x1b]0;x\u{202e}";
    let column = |instance: &str| Column {
        metric: "disk.used".into(),
        dimension: "device".into(),
        instance: instance.into(),
        decimals: 0,
    };
    let sent = Arc::new(Shape::new(vec![column(hidden), column("sda")]));
    let (id, shape) = decode_sent_shape(encode_shape(&sent)).unwrap();
    assert_eq!(id, sent.id());
    let instances: Vec<&str> = shape.columns().iter().map(|column| &*column.instance).collect();
    assert_eq!(instances, ["\\u{1b}]0;x\\u{202e}", "sda"]);
    assert_eq!(decode_sent_shape(encode_shape(&shape)).unwrap().0, shape.id());
    // A shape that was stored before is still read.
    assert_eq!(decode_shape(encode_shape(&sent)).unwrap().id(), sent.id());
    let doubled = Shape::new(vec![column("a\tb"), column("a b")]);
    assert!(matches!(decode_sent_shape(encode_shape(&doubled)), Err(WireError::Invalid(_))));
    let many =
        Shape::new((0..limits::MAX_COLUMNS).map(|n| column(&format!("{n}{}", "\u{1}".repeat(90)))).collect());
    assert!(
        matches!(decode_sent_shape(encode_shape(&many)), Err(WireError::Invalid(_))),
        "too large to store"
    );

    let mut snapshot = sample();
    let row = ProcessRow {
        name: hidden.into(),
        user: hidden.into(),
        command: hidden.into(),
        state: '\u{9b}',
        ..ProcessRow::default()
    };
    snapshot.processes = vec![row];
    snapshot.errors = vec![CollectorError { collector: hidden.into(), message: hidden.repeat(100) }];
    snapshot.facts = Some(Arc::new(HostFacts { os: hidden.into(), ..HostFacts::default() }));
    let shape = snapshot.shape.clone();
    let decoded =
        decode_snapshot(encode_snapshot(&snapshot), &|_| Some(shape.clone()), &|text| text.into()).unwrap();
    let (row, error) = (&decoded.processes[0], &decoded.errors[0]);
    let facts = decoded.facts.as_ref().unwrap();
    for text in [&*row.name, &row.user, &row.command, &error.collector, &error.message, &facts.os] {
        assert!(text.starts_with("\\u{1b}]0;x\\u{202e}") && !text.contains(is_hidden), "{text:?}");
    }
    assert_eq!(row.state, '?');
    assert!(error.message.len() <= limits::MAX_TEXT_BYTES);
}

#[test]
fn values_must_fit_the_shape() {
    let mut snapshot = sample();
    let shape = snapshot.shape.clone();
    snapshot.values.push(1);
    let error = decode_snapshot(encode_snapshot(&snapshot), &|_| Some(shape.clone()), &|text| text.into())
        .unwrap_err();
    assert_eq!(error, WireError::Invalid("3 values for 2 columns".into()));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let shape = sample().shape;
        let _ = decode_batch(bytes.clone().into());
        let _ = decode_shape(bytes.clone().into());
        let _ = decode_snapshot(bytes.into(), &|_| Some(shape.clone()), &|text| text.into());
    }

    #[test]
    fn corrupt_snapshot_never_panics(at in 0usize..200, byte in any::<u8>(), removed in 0usize..200) {
        let snapshot = sample();
        let mut bytes = encode_snapshot(&snapshot).to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - removed.min(bytes.len()));
        let _ = decode_snapshot(bytes.into(), &|_| Some(snapshot.shape.clone()), &|text| text.into());
    }
}
