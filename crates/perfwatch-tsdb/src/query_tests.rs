//! Tests of step widths, downsampling to points, and gap detection.

use crate::block_tests::{shape, snapshot};
use crate::query::*;
use crate::{Buckets, Table};
use perfwatch_model::BootId;
use std::sync::Arc;

#[test]
fn step_widths_are_round() {
    let day = 86_400_000;
    for (range_ms, points, step, tier) in [
        (300_000, 1_000, 1_000, Tier::Raw),
        (3_600_000, 1_000, 5_000, Tier::Raw),
        (day, 1_000, 120_000, Tier::Minute),
        (30 * day, 1_000, 3_600_000, Tier::Hour),
        (30 * day, 2_000, 1_800_000, Tier::Minute),
        (365 * day, 500, 86_400_000, Tier::Hour),
        (100, 10, 1_000, Tier::Raw),
    ] {
        assert_eq!((step_ms(range_ms, points), tier_for(step)), (step, tier), "{range_ms} ms in {points}");
        assert!(range_ms / step_ms(range_ms, points) <= points as i64);
    }
    assert!(step_ms(i64::MAX / 4, 10) > 0);
}

#[test]
fn short_spike_survives_downsampling() {
    let shape = shape(&[("cpu.usage", "", 2)]);
    let rows: Vec<_> = (0..7_200)
        .map(|n| Arc::new(snapshot(&shape, n, n as i64 * 1_000, vec![if n == 4_321 { 9_900 } else { 100 }])))
        .collect();
    let table = &Table::from_snapshots(&rows)[0];
    let hours = Buckets::from_table(table, 60_000, 0).downsample(3_600_000);
    let mut points = Points::new(0, 30 * 86_400_000, 3_600_000);
    points.add_buckets(&hours, 0, 0, i64::MAX);
    assert_eq!(points.stats()[1].max, 9_900);
    assert_eq!(points.stats()[1].min, 100);
    assert_eq!(average(&points.stats()[0], points.decimals()), Some(1.0));
    assert_eq!(points.stats()[5].count, 0);
}

#[test]
fn precision_changes_and_ranges_join() {
    let (coarse, fine) = (shape(&[("a", "", 0)]), shape(&[("a", "", 2)]));
    let integers = &Table::from_snapshots(&[Arc::new(snapshot(&coarse, 1, 1_000, vec![3]))])[0];
    let decimals = &Table::from_snapshots(&[
        Arc::new(snapshot(&fine, 2, 11_000, vec![250])),
        Arc::new(snapshot(&fine, 3, 12_000, vec![350])),
    ])[0];
    let mut points = Points::new(0, 20_000, 10_000);
    points.add_ticks(integers, 0, 0, 10_000);
    points.add_ticks(decimals, 0, 0, 12_000);
    assert_eq!(points.decimals(), 2);
    let averages: Vec<_> = points.stats().iter().map(|stats| average(stats, 2)).collect();
    // The row at 12 s is outside of the range.
    assert_eq!(averages, [Some(3.0), Some(2.5), None]);
}

#[test]
fn gap_reason_is_derived_from_boot_and_sequence() {
    let boot = |n: u8| BootId::from_bytes(&[n; 16]).unwrap();
    let marker = |at_s: i64, boot_n: u8, seq: u64| GapMarker {
        at_ms: at_s * 1_000,
        interval_ms: 2_000,
        sequence: Some((boot(boot_n), seq)),
    };
    let markers = [
        marker(0, 1, 0),
        marker(2, 1, 1),
        marker(60, 1, 2),
        marker(62, 1, 3),
        marker(120, 1, 32),
        marker(200, 2, 0),
        GapMarker { at_ms: 300_000, interval_ms: 60_000, sequence: None },
    ];
    let kinds: Vec<_> = find_gaps(&markers).iter().map(|gap| (gap.from_ms / 1_000, gap.kind)).collect();
    assert_eq!(
        kinds,
        [
            (2, GapKind::AgentStopped),
            (62, GapKind::DataLost),
            (120, GapKind::HostRestarted),
            (200, GapKind::Unknown)
        ]
    );
}
