//! Tests of derivation: tables per metric kind, and the property that no rate is negative or
//! infinite.

use super::*;
use perfwatch_model::Unit;
use proptest::prelude::*;

static GAUGE: MetricDef = MetricDef::gauge("t.gauge", Unit::Count, 0, "");
static RATE: MetricDef = MetricDef::rate("t.rate", Unit::PerSecond, 0, "").with_dimension("x");
static SHARE: MetricDef = MetricDef::ratio("t.share", Unit::Percent, 2, "").with_dimension("x");
static UTILIZATION: MetricDef =
    MetricDef::rate("t.utilization", Unit::Percent, 1, "").with_dimension("x").with_factor(0.1);
static LATENCY: MetricDef = MetricDef::ratio("t.latency", Unit::Milliseconds, 2, "").with_dimension("x");
static EVENTS: MetricDef = MetricDef::events("t.events", "");
static TOTAL: MetricDef = MetricDef::rate("t.total", Unit::PerSecond, 0, "").summed();

static BOOT_TEXT: &str = "00000000-0000-0000-0000-000000000001";

fn boot() -> BootId {
    BOOT_TEXT.parse().unwrap()
}

fn reading(boot: BootId, seconds: f64, samples: Vec<(&'static MetricDef, &str, Raw)>) -> Reading {
    let sample = |(metric, instance, raw): (&'static MetricDef, &str, Raw)| RawSample {
        metric,
        instance: instance.into(),
        raw,
    };
    let part = Part { samples: samples.into_iter().map(sample).collect(), ..Part::default() };
    let read_at = Duration::from_secs_f64(seconds);
    let part = PartReading {
        collector: "t",
        started_at: read_at,
        duration: Duration::ZERO,
        result: Ok(Arc::new(part)),
    };
    Reading { boot, wall_ms: 0, monotonic: read_at, parts: vec![part] }
}

fn values(deriver: &mut Deriver, reading: &Reading) -> Vec<f64> {
    deriver.derive(reading, &CollectorOptions::default()).samples.iter().map(|p| p.value).collect()
}

/// Checks the sample derived from two raw values; `None` expects a missing sample.
fn check(metric: &'static MetricDef, from: Raw, to: Raw, expected: Option<f64>) {
    let mut deriver = Deriver::default();
    values(&mut deriver, &reading(boot(), 10.0, vec![(metric, "a", from)]));
    let value = values(&mut deriver, &reading(boot(), 12.0, vec![(metric, "a", to)]))[0];
    assert_eq!((!value.is_nan()).then_some(value), expected, "{} {from:?} → {to:?}", metric.name);
}

#[test]
fn each_metric_kind_is_derived() {
    let ratio = |numerator, denominator| Raw::Ratio { numerator, denominator, max_rate: 100 };
    check(&GAUGE, Raw::Gauge(1.0), Raw::Gauge(-5.0), Some(0.0));
    check(&GAUGE, Raw::Gauge(1.0), Raw::Gauge(f64::INFINITY), None);
    check(&RATE, Raw::Counter(100), Raw::Counter(300), Some(100.0));
    check(&RATE, Raw::Counter(5), Raw::Counter(5), Some(0.0));
    // After a reset or a wrap of 32 or 64 bits, the sample is missing.
    check(&RATE, Raw::Counter(300), Raw::Counter(10), None);
    check(&RATE, Raw::Counter(u64::from(u32::MAX)), Raw::Counter(10), None);
    check(&RATE, Raw::Counter(u64::MAX), Raw::Counter(1), None);
    check(&EVENTS, Raw::Counter(3), Raw::Counter(5), Some(2.0));
    check(&SHARE, ratio(10, 100), ratio(60, 300), Some(25.0));
    // Slightly above the maximum: the counters were read at different moments.
    check(&SHARE, ratio(10, 100), ratio(115, 200), Some(100.0));
    check(&UTILIZATION, Raw::Counter(100), Raw::Counter(2_400), Some(100.0));
    // Far above: a counter jumped.
    check(&SHARE, ratio(10, 100), ratio(500, 110), None);
    check(&SHARE, ratio(10, 100), ratio(80, 150), None);
    check(&EVENTS, Raw::Counter(0), Raw::Counter(u64::from(u32::MAX)), None);
    check(&SHARE, ratio(10, 100), ratio(1_844_674_407_370, 1_844_674_407_460), None);
    check(&UTILIZATION, Raw::Counter(100), Raw::Counter(1 << 32), None);
    check(&RATE, Raw::Counter(100), Raw::Counter(u64::MAX - 5), None);
    // iowait decreased while total time increased; then all counters were reset.
    check(&SHARE, ratio(10, 100), ratio(8, 300), Some(0.0));
    check(&SHARE, ratio(10, 100), ratio(0, 5), None);
    check(&SHARE, ratio(10_000, 20_000), ratio(10, 20_100), None);
    check(&LATENCY, ratio(10, 100), ratio(10, 100), Some(0.0));
    check(&LATENCY, ratio(10, 100), ratio(40, 110), Some(3.0));
    check(&LATENCY, ratio(10, 100), ratio(40, 100), None);
    // The kernel's milliseconds wrapped at 32 bits.
    check(&LATENCY, ratio(u64::from(u32::MAX), 100), ratio(40, 110), None);
}

#[test]
fn counters_are_not_compared_across_boots() {
    let mut deriver = Deriver::default();
    values(&mut deriver, &reading(boot(), 10.0, vec![(&RATE, "a", Raw::Counter(5))]));
    let after = reading(BootId::generate(), 12.0, vec![(&RATE, "a", Raw::Counter(9))]);
    assert!(values(&mut deriver, &after)[0].is_nan());
}

#[test]
fn totals_do_not_jump_when_instances_change() {
    let mut deriver = Deriver::default();
    let c = Raw::Counter;
    values(&mut deriver, &reading(boot(), 0.0, vec![(&TOTAL, "a", c(100)), (&TOTAL, "b", c(1 << 50))]));
    let both = reading(boot(), 1.0, vec![(&TOTAL, "a", c(110)), (&TOTAL, "b", c((1 << 50) + 5))]);
    assert_eq!(values(&mut deriver, &both), [15.0]);
    let replaced = reading(boot(), 2.0, vec![(&TOTAL, "a", c(120)), (&TOTAL, "c", c(1 << 60))]);
    assert_eq!(values(&mut deriver, &replaced), [10.0]);
    let reordered = reading(boot(), 3.0, vec![(&TOTAL, "c", c((1 << 60) + 7)), (&TOTAL, "a", c(121))]);
    assert_eq!(values(&mut deriver, &reordered), [8.0]);
    // A counter of the sum wrapped: without it, the sum would drop.
    let wrapped = reading(boot(), 4.0, vec![(&TOTAL, "c", c(3)), (&TOTAL, "a", c(130))]);
    assert!(values(&mut deriver, &wrapped)[0].is_nan());
    let after = reading(boot(), 5.0, vec![(&TOTAL, "c", c(4)), (&TOTAL, "a", c(131))]);
    assert_eq!(values(&mut deriver, &after), [2.0]);
}

#[test]
fn failed_collector_leaves_a_gap_and_an_error() {
    let mut deriver = Deriver::default();
    values(&mut deriver, &reading(boot(), 0.0, vec![(&GAUGE, "", Raw::Gauge(1.0))]));
    let mut failed = reading(boot(), 1.0, vec![]);
    failed.parts[0].result = Err(CollectError::Failed("broken".into()));
    let derived = deriver.derive(&failed, &CollectorOptions::default());
    assert!(derived.samples.len() == 1 && derived.samples[0].value.is_nan());
    assert_eq!(derived.errors, [CollectorError { collector: "t".into(), message: "broken".into() }]);
    failed.parts[0].result = Err(CollectError::NotAvailable);
    assert!(deriver.derive(&failed, &CollectorOptions::default()).errors.is_empty());
}

#[test]
fn skipped_part_repeats_last_samples() {
    let mut deriver = Deriver::default();
    values(&mut deriver, &reading(boot(), 0.0, vec![(&RATE, "", Raw::Counter(0))]));
    let mut second = reading(boot(), 1.0, vec![(&RATE, "", Raw::Counter(7))]);
    assert_eq!(values(&mut deriver, &second), [7.0]);
    second.monotonic = Duration::from_secs(2);
    assert_eq!(values(&mut deriver, &second), [7.0]);
    // Events are not repeated.
    let kills = reading(boot(), 3.0, vec![(&EVENTS, "", Raw::Counter(4))]);
    values(&mut deriver, &kills);
    let more = reading(boot(), 4.0, vec![(&EVENTS, "", Raw::Counter(6))]);
    assert_eq!([values(&mut deriver, &more), values(&mut deriver, &more)], [[2.0], [0.0]]);
}

#[test]
fn excluded_metrics_are_dropped() {
    let options = CollectorOptions { exclude_metrics: vec!["t.r*".into()], ..CollectorOptions::default() };
    let derived = Deriver::default().derive(
        &reading(boot(), 0.0, vec![(&RATE, "", Raw::Counter(0)), (&GAUGE, "", Raw::Gauge(1.0))]),
        &options,
    );
    assert_eq!(derived.samples.len(), 1);
}

fn process(pid: u32, start: u64, ticks: u64, memory: u64, io: Option<(u64, u64)>) -> RawProcess {
    RawProcess {
        pid,
        start_ticks: start,
        cpu_ticks: ticks,
        memory_bytes: memory,
        io,
        state: 'S',
        ..RawProcess::default()
    }
}

#[test]
fn top_processes_by_cpu_memory_and_io() {
    let mut deriver = Deriver::default();
    let mut derive = |seconds: f64, processes: Vec<RawProcess>| {
        let mut reading = reading(boot(), seconds, vec![]);
        reading.parts[0].result = Ok(Arc::new(Part { processes, ..Part::default() }));
        deriver
            .derive(&reading, &CollectorOptions { top_processes: 1, ..CollectorOptions::default() })
            .processes
    };
    derive(
        0.0,
        vec![
            process(1, 1, 0, 5, Some((0, 0))),
            process(2, 1, 50, 900, None),
            process(3, 1, 9, 5, Some((0, 0))),
            process(4, 9, 999, 1, None),
        ],
    );
    let rows = derive(
        2.0,
        vec![
            process(1, 1, 100, 5, Some((0, 0))),
            process(2, 1, 50, 900, None),
            process(3, 1, 9, 5, Some((1000, 3000))),
            process(4, 10, 5, 1, None),
        ],
    );
    let ids: Vec<u32> = rows.iter().map(|row| row.pid).collect();
    // Process 4 reuses a pid, so it has no rates yet.
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!((rows[0].cpu_tenths, rows[1].cpu_tenths), (500, 0));
    assert_eq!((rows[2].read_bytes, rows[2].write_bytes, rows[1].read_bytes), (Some(500), Some(1500), None));
}

/// Generates readings with wraps, resets, hot-plug, reboots, stopped or reversed clocks, and
/// changing instances in any order.
fn any_reading() -> impl Strategy<Value = Reading> {
    let counter = prop_oneof![any::<u64>(), 0u64..1000, Just(u64::MAX), Just(u64::from(u32::MAX)), Just(0)];
    let sample = (0usize..6, 0u8..4, counter.clone(), counter, any::<f64>()).prop_map(
        |(metric, instance, a, b, gauge)| {
            let metric = [&GAUGE, &RATE, &SHARE, &LATENCY, &EVENTS, &TOTAL][metric];
            let raw = match metric.kind {
                MetricKind::Gauge => Raw::Gauge(gauge),
                MetricKind::Ratio => Raw::Ratio { numerator: a, denominator: b, max_rate: u64::MAX },
                _ => Raw::Counter(a),
            };
            (metric, ["", "a", "b", "c"][usize::from(instance)], raw)
        },
    );
    (0u8..3, 0.0..1e6f64, proptest::collection::vec(sample, 0..12)).prop_map(
        |(boot_choice, seconds, samples)| {
            let boot = if boot_choice == 0 { boot() } else { BootId::default() };
            reading(boot, seconds, samples)
        },
    )
}

proptest! {
    #[test]
    fn samples_are_never_negative_or_infinite(readings in proptest::collection::vec(any_reading(), 1..12)) {
        let mut deriver = Deriver::default();
        let mut builder = crate::SnapshotBuilder::default();
        for (seq, reading) in (0..).zip(&readings) {
            let derived = deriver.derive(reading, &CollectorOptions::default());
            for sample in &derived.samples {
                let value = sample.value;
                let is_valid = value.is_nan() || (value >= 0.0 && value.is_finite());
                prop_assert!(is_valid, "{} {value}", sample.metric.name);
                prop_assert!(sample.metric.max.is_none_or(|max| value.is_nan() || value <= max));
            }
            let snapshot = builder.build(reading.boot, seq, 0, 0, derived);
            prop_assert_eq!(snapshot.values.len(), snapshot.shape.columns().len());
        }
    }
}
