//! Availability of a host from the rows that it sent, the gaps between them, and silences. Pure.

use perfwatch_rules::silence::Silence;
use perfwatch_store::status_pages::AvailabilityDay;
use perfwatch_tsdb::query::{Gap, GapKind};

/// Length of a day in milliseconds.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// Width of the steps in which hours of the week are followed: windows start and end at full minutes.
const STEP_MS: i64 = 60_000;
/// Maximum number of silences of a host that count as maintenance.
const MAX_SILENCES: usize = 200;

/// Number of the day in UTC that contains a time.
pub(crate) fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}

/// Times of a window by state, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Availability {
    pub(crate) up_ms: i64,
    pub(crate) down_ms: i64,
    pub(crate) maintenance_ms: i64,
    pub(crate) unknown_ms: i64,
}

impl Availability {
    /// Sum of two disjoint windows.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            up_ms: self.up_ms + other.up_ms,
            down_ms: self.down_ms + other.down_ms,
            maintenance_ms: self.maintenance_ms + other.maintenance_ms,
            unknown_ms: self.unknown_ms + other.unknown_ms,
        }
    }

    /// Share of the time up in the time up or down, in percent with three decimals, rounded down; `None` without
    /// such time. Maintenance and unknown time do not count.
    #[expect(clippy::cast_precision_loss, reason = "at most 100,000")]
    pub(crate) fn percent(self) -> Option<f64> {
        let known_ms = self.up_ms + self.down_ms;
        (known_ms > 0).then(|| (self.up_ms.saturating_mul(100_000) / known_ms) as f64 / 1_000.0)
    }

    /// Row of the store.
    pub(crate) fn to_day(self, day: i64, settled: bool) -> AvailabilityDay {
        let Self { up_ms, down_ms, maintenance_ms, unknown_ms } = self;
        AvailabilityDay { day, up_ms, down_ms, maintenance_ms, unknown_ms, settled }
    }
}

impl From<&AvailabilityDay> for Availability {
    fn from(day: &AvailabilityDay) -> Self {
        Self {
            up_ms: day.up_ms,
            down_ms: day.down_ms,
            maintenance_ms: day.maintenance_ms,
            unknown_ms: day.unknown_ms,
        }
    }
}

/// State of a host in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanState {
    Up,
    Down,
    Unknown,
}

/// Time range in which a host had the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) state: SpanState,
}

/// Rows of a host in a window and around it.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    /// Times of the first and of the last row; `None` if the host has sent nothing.
    pub(crate) rows_ms: Option<(i64, i64)>,
    /// Gaps between these rows, oldest first.
    pub(crate) gaps: Vec<Gap>,
    /// Set if there were more gaps before the first: what was before is unknown.
    pub(crate) is_truncated: bool,
}

/// Time after the last row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trailing<'a> {
    /// Time after the last row in which a host counts as up.
    pub(crate) grace_ms: i64,
    /// Set if no rows are expected, because collection is disabled.
    pub(crate) is_disabled: bool,
    /// Times in which no hub ran, which could have received rows.
    pub(crate) hub_gaps: &'a [(i64, i64)],
}

/// State of a host during a gap. A host that was booted again was down. The same boot shows that the host ran: it was
/// up while its agent collected, and nothing is known while the agent did not run.
fn gap_state(kind: GapKind) -> SpanState {
    match kind {
        GapKind::HostRestarted => SpanState::Down,
        GapKind::DataLost => SpanState::Up,
        GapKind::AgentStopped | GapKind::Unknown => SpanState::Unknown,
    }
}

impl Observation {
    /// Spans of a window, which they fill.
    pub(crate) fn spans(&self, (from_ms, to_ms): (i64, i64), trailing: Trailing<'_>) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut add = |start_ms: i64, end_ms: i64, state: SpanState| {
            let (start_ms, end_ms) = (start_ms.max(from_ms), end_ms.min(to_ms));
            if start_ms < end_ms {
                spans.push(Span { from_ms: start_ms, to_ms: end_ms, state });
            }
        };
        let Some((first_ms, last_ms)) = self.rows_ms else {
            add(from_ms, to_ms, SpanState::Unknown);
            return spans;
        };
        add(from_ms, first_ms, SpanState::Unknown);
        let mut at_ms = first_ms;
        for (index, gap) in self.gaps.iter().enumerate() {
            let is_known = index > 0 || !self.is_truncated;
            add(at_ms, gap.from_ms, if is_known { SpanState::Up } else { SpanState::Unknown });
            add(gap.from_ms, gap.to_ms, gap_state(gap.kind));
            at_ms = gap.to_ms;
        }
        add(at_ms, last_ms, SpanState::Up);
        match to_ms - last_ms {
            silent_ms if silent_ms <= trailing.grace_ms => add(last_ms, to_ms, SpanState::Up),
            _ if trailing.is_disabled => add(last_ms, to_ms, SpanState::Unknown),
            _ => {
                let mut at_ms = last_ms;
                for (gap_from_ms, gap_to_ms) in trailing.hub_gaps.iter().filter(|(_, end)| *end > last_ms) {
                    add(at_ms, *gap_from_ms, SpanState::Down);
                    add((*gap_from_ms).max(last_ms), *gap_to_ms, SpanState::Unknown);
                    at_ms = *gap_to_ms;
                }
                add(at_ms, to_ms, SpanState::Down);
            }
        }
        spans
    }
}

/// Silences of a host that count as maintenance: those of all rules.
pub(crate) fn host_silences<'a>(
    silences: impl Iterator<Item = &'a Silence>,
    host: uuid::Uuid,
    tags: &[String],
) -> Vec<&'a Silence> {
    let covers = |silence: &&Silence| {
        let matcher = &silence.matcher;
        matcher.rules.is_empty()
            && (matcher.hosts.is_empty() || matcher.hosts.contains(&host))
            && (matcher.tags.is_empty() || tags.iter().any(|tag| matcher.tags.contains(tag)))
    };
    silences.filter(covers).take(MAX_SILENCES).collect()
}

/// End of a silence that is in effect at a time.
fn active_until(silence: &Silence, at_ms: i64) -> Option<i64> {
    if !silence.is_active(at_ms) {
        return None;
    }
    let end_ms = silence.ends_ms.unwrap_or(i64::MAX);
    Some(match &silence.weekly {
        Some(weekly) => weekly.active_until(at_ms)?.min(end_ms),
        None => end_ms,
    })
}

/// Time of a range that silences cover, in milliseconds.
pub(crate) fn silenced_ms(silences: &[&Silence], (from_ms, to_ms): (i64, i64)) -> i64 {
    let overlaps = |silence: &&&Silence| {
        silence.starts_ms < to_ms && silence.ends_ms.is_none_or(|ends_ms| ends_ms > from_ms)
    };
    let relevant: Vec<&&Silence> = silences.iter().filter(overlaps).collect();
    if relevant.is_empty() {
        return 0;
    }
    let (mut at_ms, mut total_ms) = (from_ms, 0);
    while at_ms < to_ms {
        let until_ms = relevant.iter().filter_map(|silence| active_until(silence, at_ms)).max();
        match until_ms.filter(|until_ms| *until_ms > at_ms) {
            Some(until_ms) => {
                let until_ms = until_ms.min(to_ms);
                total_ms += until_ms - at_ms;
                at_ms = until_ms;
            }
            None => {
                let next_minute_ms = (at_ms.div_euclid(STEP_MS) + 1) * STEP_MS;
                let starts = relevant.iter().map(|silence| silence.starts_ms);
                let next_start_ms = starts.filter(|start_ms| *start_ms > at_ms).min().unwrap_or(i64::MAX);
                at_ms = next_minute_ms.min(next_start_ms);
            }
        }
    }
    total_ms
}

/// Adds up the spans. Time down that a silence covers is maintenance.
pub(crate) fn add_up(spans: &[Span], silences: &[&Silence]) -> Availability {
    let mut total = Availability::default();
    for span in spans {
        let length_ms = span.to_ms - span.from_ms;
        match span.state {
            SpanState::Up => total.up_ms += length_ms,
            SpanState::Unknown => total.unknown_ms += length_ms,
            SpanState::Down => {
                let maintenance_ms = silenced_ms(silences, (span.from_ms, span.to_ms));
                total.maintenance_ms += maintenance_ms;
                total.down_ms += length_ms - maintenance_ms;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_rules::silence::Matcher;
    use perfwatch_rules::weekly_window::WeeklyWindow;
    use uuid::Uuid;

    const TRAILING: Trailing<'_> = Trailing { grace_ms: 10, is_disabled: false, hub_gaps: &[] };

    fn gap(from_ms: i64, to_ms: i64, kind: GapKind) -> Gap {
        Gap { from_ms, to_ms, kind }
    }

    fn silence(starts_ms: i64, ends_ms: Option<i64>, weekly: Option<WeeklyWindow>) -> Silence {
        Silence {
            id: Uuid::from_u128(1),
            matcher: Matcher::default(),
            comment: String::new(),
            created_by: String::new(),
            created_ms: 0,
            starts_ms,
            ends_ms,
            weekly,
        }
    }

    /// Times of a window of 1,000: up, down, unknown.
    fn times(observation: &Observation, trailing: Trailing<'_>) -> [i64; 3] {
        let spans = observation.spans((1_000, 2_000), trailing);
        assert!(spans.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms), "{spans:?}");
        let total = add_up(&spans, &[]);
        assert_eq!(total.up_ms + total.down_ms + total.unknown_ms, 1_000, "{spans:?}");
        [total.up_ms, total.down_ms, total.unknown_ms]
    }

    #[test]
    fn spans_follow_rows_and_reasons_of_gaps() {
        use GapKind::{AgentStopped, DataLost, HostRestarted, Unknown};
        let rows = |first_ms, last_ms, gaps: &[Gap]| Observation {
            rows_ms: Some((first_ms, last_ms)),
            gaps: gaps.to_vec(),
            is_truncated: false,
        };
        for (observation, expected) in [
            (Observation::default(), [0, 0, 1_000]),
            (rows(900, 2_100, &[]), [1_000, 0, 0]),
            // The host was added in the window.
            (rows(1_300, 2_100, &[]), [700, 0, 300]),
            (rows(900, 2_100, &[gap(1_100, 1_300, HostRestarted)]), [800, 200, 0]),
            (rows(900, 2_100, &[gap(1_100, 1_300, AgentStopped)]), [800, 0, 200]),
            (rows(900, 2_100, &[gap(1_100, 1_300, DataLost)]), [1_000, 0, 0]),
            (rows(900, 2_100, &[gap(1_100, 1_300, Unknown)]), [800, 0, 200]),
            // Gaps over both bounds.
            (
                rows(500, 2_500, &[gap(600, 1_200, HostRestarted), gap(1_900, 2_400, AgentStopped)]),
                [700, 200, 100],
            ),
            (rows(900, 1_995, &[]), [1_000, 0, 0]),
            (rows(900, 1_600, &[]), [600, 400, 0]),
            // The last row is before the window.
            (rows(400, 600, &[]), [0, 1_000, 0]),
        ] {
            assert_eq!(times(&observation, TRAILING), expected, "{observation:?}");
        }
        let truncated =
            Observation { is_truncated: true, ..rows(900, 2_100, &[gap(1_400, 1_500, HostRestarted)]) };
        assert_eq!(times(&truncated, TRAILING), [500, 100, 400]);
    }

    #[test]
    fn time_without_a_hub_or_collection_is_unknown() {
        let silent = Observation { rows_ms: Some((900, 1_500)), gaps: Vec::new(), is_truncated: false };
        let disabled = Trailing { is_disabled: true, ..TRAILING };
        assert_eq!(times(&silent, disabled), [500, 0, 500]);
        let hub_gaps = [(1_000, 1_100), (1_450, 1_600), (1_900, 3_000)];
        assert_eq!(times(&silent, Trailing { hub_gaps: &hub_gaps, ..TRAILING }), [500, 300, 200]);
    }

    #[test]
    fn maintenance_covers_time_down_only() {
        let minute = 60_000;
        let span = |from_ms, to_ms, state| Span { from_ms, to_ms, state };
        let spans = [
            span(0, 10 * minute, SpanState::Up),
            span(10 * minute, 20 * minute, SpanState::Down),
            span(20 * minute, 30 * minute, SpanState::Unknown),
        ];
        let total = add_up(&spans, &[&silence(5 * minute, Some(15 * minute + 1), None)]);
        assert_eq!(
            total,
            Availability {
                up_ms: 10 * minute,
                down_ms: 5 * minute - 1,
                maintenance_ms: 5 * minute + 1,
                unknown_ms: 10 * minute
            }
        );
        // Hours of the week, and a silence that starts within a minute.
        let weekly =
            WeeklyWindow { days: vec![], from: "02:00".into(), to: "03:30".into(), timezone: String::new() };
        let (nightly, short) =
            (silence(0, None, Some(weekly)), silence(240 * minute + 500, Some(240 * minute + 900), None));
        assert_eq!(silenced_ms(&[&nightly], (0, DAY_MS)), 90 * minute);
        assert_eq!(silenced_ms(&[&nightly, &short], (150 * minute + 7, DAY_MS)), 60 * minute - 7 + 400);
        assert_eq!(silenced_ms(&[&short], (0, 240 * minute)), 0);
    }

    #[test]
    fn silences_of_a_host_cover_all_its_rules() {
        let host = Uuid::from_u128(7);
        let matcher = |hosts: &[Uuid], tags: &[&str], rules: &[Uuid]| Silence {
            matcher: Matcher {
                hosts: hosts.to_vec(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                rules: rules.to_vec(),
            },
            ..silence(0, None, None)
        };
        for (silence, expected) in [
            (matcher(&[], &[], &[]), true),
            (matcher(&[host], &["web"], &[]), true),
            (matcher(&[Uuid::nil()], &[], &[]), false),
            (matcher(&[], &["db"], &[]), false),
            (matcher(&[host], &[], &[Uuid::nil()]), false),
        ] {
            let covered = host_silences([&silence].into_iter(), host, &["web".to_owned()]).len() == 1;
            assert_eq!(covered, expected, "{silence:?}");
        }
    }

    #[test]
    fn percent_counts_known_time_only_and_is_rounded_down() {
        for (times, expected) in [
            ([0, 0, 5, 5], None),
            ([5, 0, 5, 5], Some(100.0)),
            ([0, 5, 0, 0], Some(0.0)),
            ([3, 1, 100, 100], Some(75.0)),
            ([9_999_999, 1, 0, 0], Some(99.999)),
        ] {
            let [up_ms, down_ms, maintenance_ms, unknown_ms] = times;
            let total = Availability { up_ms, down_ms, maintenance_ms, unknown_ms };
            assert_eq!(total.percent(), expected, "{times:?}");
        }
    }
}
