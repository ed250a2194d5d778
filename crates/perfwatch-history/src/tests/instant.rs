//! Newest row of a host at a time, from the head, blocks and both roll-ups.

use super::*;
use crate::instant::{InstantRequest, InstantRow};
use perfwatch_model::ProcessRow;

fn process(name: &str) -> ProcessRow {
    ProcessRow {
        pid: 7,
        parent_pid: None,
        name: name.into(),
        user: "root".into(),
        command: name.into(),
        state: 'R',
        cpu_tenths: 420,
        memory_bytes: 4_096,
        threads: 1,
        open_files: None,
        read_bytes: None,
        write_bytes: None,
        started_ms: T0,
    }
}

impl TestHistory {
    fn instant(&self, at_ms: i64) -> InstantRequest {
        let selector = SeriesSelector { metric: "cpu.usage".into(), instance: None };
        InstantRequest {
            host: self.host,
            at_ms,
            max_age_ms: 5 * MINUTE,
            projection: InstantRequest::projection(vec![selector]),
            max_cells: 1 << 20,
            held: None,
        }
    }

    async fn row_at(&self, at_ms: i64) -> InstantRow {
        self.history.row_at(self.instant(at_ms)).await.unwrap()
    }
}

/// Time, width and value of a row.
fn summary(found: &InstantRow) -> Option<(i64, i64, i64)> {
    let row = found.row.as_ref()?;
    Some((row.snapshot.at_ms, row.width_ms, row.snapshot.values[0]))
}

pub(super) async fn row_at_a_time_is_read_from_the_finest_tier(backend: TestBackend) {
    let config = HistoryConfig { raw_retention: Duration::from_secs(2 * 3_600), ..HistoryConfig::default() };
    let mut site = TestHistory::new(backend, config).await;
    site.run(1, T0, T0 + 6 * HOUR).await;
    site.history.seal(true).await.unwrap();
    let mut newest = Arc::unwrap_or_clone(site.row(1, 9_000, T0 + 6 * HOUR));
    newest.processes = vec![process("burner")];
    site.advance_to(T0 + 6 * HOUR + 5_000);
    site.send(vec![Arc::new(newest.clone())]).await;
    let value_at = |site: &TestHistory, at_ms: i64| {
        site.sent.iter().find(|row| row.at_ms == at_ms).map(|row| row.values[0]).unwrap()
    };

    let unsealed = site.row_at(T0 + 6 * HOUR + 4_000).await;
    assert_eq!(summary(&unsealed), Some((T0 + 6 * HOUR, 0, newest.values[0])));
    assert!(unsealed.has_processes && unsealed.cells == 0);
    let at_ms = T0 + 5 * HOUR + 7 * MINUTE;
    let raw = site.row_at(at_ms + 9_999).await;
    assert_eq!(summary(&raw), Some((at_ms, 0, value_at(&site, at_ms))));
    assert!(!raw.has_processes && raw.cells > 0 && !raw.is_unreadable);
    assert_eq!(raw.row.unwrap().snapshot.values.len(), 1, "only the selected column");
    // Rows that are too old are not returned; a time before the first row has none.
    assert_eq!(summary(&site.row_at(T0 + 7 * HOUR).await), None);
    assert_eq!(summary(&site.row_at(T0 - 1).await), None);
    let too_large = InstantRequest { max_cells: 1, ..site.instant(at_ms) };
    assert!(matches!(site.history.row_at(too_large).await, Err(StoreError::TooLarge(_))));

    site.history.seal(true).await.unwrap();
    let sealed = site.row_at(T0 + 6 * HOUR).await;
    assert_eq!((summary(&sealed), sealed.has_processes), (summary(&unsealed), false));
    let request = site.instant(T0 + 6 * HOUR);
    let (processes, cells) = site.history.processes_at(request).await.unwrap();
    assert_eq!((&*processes[0].name, processes.len()), ("burner", 1));
    assert!(cells > 0);

    assert!(site.history.apply_retention().await.unwrap() > 0);
    let mean = |site: &TestHistory, from_ms: i64, width_ms: i64| {
        let rows = site.sent.iter().filter(|row| (from_ms..from_ms + width_ms).contains(&row.at_ms));
        let values: Vec<i64> =
            rows.map(|row| row.values[0]).filter(|value| *value != perfwatch_model::MISSING).collect();
        values.iter().sum::<i64>() / i64::try_from(values.len()).unwrap()
    };
    let minute_ms = T0 + 2 * HOUR + 3 * MINUTE;
    let expected = (minute_ms, MINUTE, mean(&site, minute_ms, MINUTE));
    assert_eq!(summary(&site.row_at(minute_ms + 59_999).await), Some(expected));

    site.advance_to(T0 + 100 * DAY);
    site.history.roll_up().await.unwrap();
    site.history.apply_retention().await.unwrap();
    let hour_ms = T0 + 2 * HOUR;
    let expected = (hour_ms, HOUR, mean(&site, hour_ms, HOUR));
    assert_eq!(summary(&site.row_at(hour_ms + 50 * MINUTE).await), Some(expected));
    let retained_ms = site.clock.wall_ms() - 730 * DAY;
    assert_eq!(site.history.deleted_before_ms().await.unwrap(), bucket_start(retained_ms, DAY));
    assert_eq!(site.history.host_deleted_before_ms(site.host).await.unwrap(), bucket_start(retained_ms, DAY));
}
