//! Tests of the evaluation of a host.

use super::*;
use perfwatch_model::{BootId, Column, HumanDuration};

fn rule(id: u128, condition: &str) -> Arc<Rule> {
    Arc::new(Rule {
        id: Uuid::from_u128(id),
        condition: serde_json::from_str(condition).unwrap(),
        hold_for: HumanDuration::default(),
        ..crate::builtin_rules::builtin_rules().remove(0)
    })
}

fn shape(columns: &[(&'static str, &str)]) -> Arc<Shape> {
    let column = |(metric, instance): &(&'static str, &str)| Column {
        metric: (*metric).into(),
        dimension: "".into(),
        instance: (*instance).into(),
        decimals: 1,
    };
    Arc::new(Shape::new(columns.iter().map(column).collect()))
}

fn snapshot(shape: &Arc<Shape>, s: i64, values: &[i64]) -> Snapshot {
    Snapshot {
        boot: BootId::default(),
        seq: s.unsigned_abs(),
        at_ms: 1_000_000_000 + s * 1_000,
        interval_ms: 1_000,
        shape: shape.clone(),
        values: values.to_vec(),
        processes: vec![],
        facts: None,
        errors: vec![],
    }
}

#[test]
fn each_instance_has_its_own_alert() {
    let full = rule(
        1,
        r#"{"kind":"threshold","metric":"filesystem.used_percent","instance":"!/boot*","threshold":90}"#,
    );
    let skew = rule(2, r#"{"kind":"threshold","metric":"clock.skew","threshold":5000}"#);
    let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
    evaluator.set_rules(vec![full, skew], 0, &mut events);
    let columns = [
        ("filesystem.used_percent", "/"),
        ("filesystem.used_percent", "/boot"),
        ("filesystem.used_percent", "/srv"),
    ];
    let full_shape = shape(&columns);
    evaluator.evaluate_snapshot(&snapshot(&full_shape, 0, &[950, 990, 100]), Some(-9_000), 0, &mut events);
    let fired: Vec<&str> = events.iter().map(|event| &*event.instance).collect();
    assert_eq!(fired, ["/", ""]);
    // An unmounted filesystem resolves its alert after the timeout.
    events.clear();
    let reduced_shape = shape(&columns[2..]);
    for s in 1..400 {
        evaluator.evaluate_snapshot(&snapshot(&reduced_shape, s, &[100]), None, 0, &mut events);
    }
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].kind, &*events[0].instance),
        (TransitionKind::Resolved(ResolveReason::InstanceGone), "/")
    );
}

/// Sibling of findings H2 and H5: a host that alternated between two shapes made the hub bind all their
/// columns for each snapshot.
#[test]
fn alternating_shapes_keep_their_bindings() {
    let full = rule(1, r#"{"kind":"threshold","metric":"filesystem.used_percent","threshold":90}"#);
    let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
    evaluator.set_rules(vec![full], 0, &mut events);
    let [root, both] = [&["/"][..], &["/", "/srv"]]
        .map(|mounts| shape(&mounts.iter().map(|m| ("filesystem.used_percent", *m)).collect::<Vec<_>>()));
    let ids = |evaluator: &HostEvaluator| {
        let address = |bound: &BoundShape| bound.columns.as_ptr();
        let mut addresses: Vec<_> = evaluator.bound_shapes.iter().map(address).collect();
        addresses.sort_unstable();
        addresses
    };
    let mut bound = Vec::new();
    for s in 0..40 {
        let (shape, values) = if s % 2 == 0 { (&root, &[100][..]) } else { (&both, &[100, 950][..]) };
        evaluator.evaluate_snapshot(&snapshot(shape, s, values), None, 0, &mut events);
        match s {
            0 => {}
            1 => bound = ids(&evaluator),
            _ => assert_eq!(ids(&evaluator), bound, "columns are bound once"),
        }
    }
    assert_eq!(bound.len(), 2);
    let fired: Vec<&str> = events.iter().map(|event| &*event.instance).collect();
    assert_eq!(fired, ["/srv"]);
    // An alert that the second shape created is absent from the first.
    assert_eq!(evaluator.bound_shapes[0].absent[..], [1]);
    for n in 0..10 {
        let other = shape(&[("filesystem.used_percent", format!("/{n}").as_str())]);
        evaluator.evaluate_snapshot(&snapshot(&other, 50 + n, &[100]), None, 0, &mut events);
    }
    assert_eq!(evaluator.bound_shapes.len(), MAX_BOUND_SHAPES);
}

/// Each new instance of a host became an alert.
#[test]
fn alerts_of_a_host_are_bounded() {
    let full = rule(1, r#"{"kind":"threshold","metric":"filesystem.used_percent","threshold":90}"#);
    let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
    evaluator.set_rules(vec![full], 0, &mut events);
    for s in 0..9 {
        let names: Vec<String> = (0..8_000).map(|n| format!("/{s}/{n}")).collect();
        let columns: Vec<_> = names.iter().map(|n| ("filesystem.used_percent", n.as_str())).collect();
        evaluator.evaluate_snapshot(&snapshot(&shape(&columns), s, &vec![1; 8_000]), None, 0, &mut events);
    }
    assert_eq!(evaluator.instances().len(), limits::MAX_ALERTS_PER_HOST);
    assert!(limit_table::ALERTS_PER_HOST.refusals() > 0);
}

#[test]
fn rule_change_keeps_or_resolves_alerts() {
    let cpu = |threshold: f64| {
        rule(1, &format!(r#"{{"kind":"threshold","metric":"cpu.usage","threshold":{threshold}}}"#))
    };
    let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
    evaluator.set_rules(vec![cpu(50.0)], 0, &mut events);
    let shape = shape(&[("cpu.usage", "")]);
    evaluator.evaluate_snapshot(&snapshot(&shape, 0, &[700]), None, 0, &mut events);
    assert_eq!(events.pop().unwrap().kind, TransitionKind::Fired);
    evaluator.set_rules(vec![cpu(60.0)], 0, &mut events);
    evaluator.evaluate_snapshot(&snapshot(&shape, 1, &[700]), None, 0, &mut events);
    assert!(events.is_empty(), "still firing");
    evaluator.set_rules(vec![cpu(80.0)], 0, &mut events);
    evaluator.evaluate_snapshot(&snapshot(&shape, 2, &[700]), None, 0, &mut events);
    assert_eq!(events.pop().unwrap().kind, TransitionKind::Resolved(ResolveReason::ConditionCleared));
    evaluator.evaluate_snapshot(&snapshot(&shape, 3, &[900]), None, 0, &mut events);
    events.clear();
    evaluator.set_rules(Vec::new(), 0, &mut events);
    assert_eq!(events.pop().unwrap().kind, TransitionKind::Resolved(ResolveReason::RuleDeleted));
}

#[test]
fn replay_emits_only_active_transitions() {
    let cpu = rule(1, r#"{"kind":"threshold","metric":"cpu.usage","threshold":50}"#);
    let shape = shape(&[("cpu.usage", "")]);
    let replay = |is_restored: bool, values: &[i64], recorded_until_ms: i64| {
        let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
        evaluator.set_rules(vec![cpu.clone()], 0, &mut events);
        if is_restored {
            evaluator.restore(cpu.id, "", (1_000_000_000, 1_000_000_000), None);
        }
        for (s, value) in (1..).zip(values) {
            evaluator.evaluate_snapshot(&snapshot(&shape, s, &[*value]), None, 0, &mut events);
        }
        retain_active_transitions(&mut events, recorded_until_ms);
        events.iter().map(|event| event.kind).collect::<Vec<_>>()
    };
    let resolved = TransitionKind::Resolved(ResolveReason::ConditionCleared);
    let forever = i64::MAX;
    assert_eq!(replay(false, &[100, 900, 100], forever), []);
    assert_eq!(replay(false, &[100, 900, 100], 0), [TransitionKind::Backfilled], "not recorded before");
    assert_eq!(replay(false, &[900, 100, 900], forever), [TransitionKind::Fired]);
    assert_eq!(replay(true, &[900, 100, 900, 100], forever), [resolved]);
    assert_eq!(replay(true, &[900, 100, 900], forever), [resolved, TransitionKind::Fired]);
    assert_eq!(replay(true, &[900], forever), []);
}

#[test]
fn no_data_fires_once_and_resolves() {
    let (mut evaluator, mut events) = (HostEvaluator::default(), Vec::new());
    evaluator.set_rules(vec![rule(1, r#"{"kind":"no_data","grace":"30s"}"#)], 0, &mut events);
    for s in 0..100_i64 {
        evaluator.evaluate_no_data(s * 1_000, true, 1_000_000 + s * 1_000, &mut events);
    }
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].observed_at_ms, 1_031_000);
    evaluator.evaluate_no_data(500, true, 1_200_000, &mut events);
    assert_eq!(events[1].kind, TransitionKind::Resolved(ResolveReason::ConditionCleared));
    assert!(
        evaluator.restore(Uuid::from_u128(1), "", (5, 6), None)
            && !evaluator.restore(Uuid::from_u128(9), "", (5, 6), None)
    );
}
