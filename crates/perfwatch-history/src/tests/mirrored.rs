//! Rows of other hubs are read once, before and after those hubs seal them.

use super::*;

/// Times of the rows of a host as a hub reads them.
async fn times(history: &History, host: HostId) -> Vec<i64> {
    let joined = history.read(host, Tier::Raw, (T0, T0 + HOUR), &Arc::new(Projection::full())).await.unwrap();
    let sealed = joined.sealed.slices.iter().filter_map(|slice| match &slice.content {
        Ok(BlockContent::Raw(table)) => Some(table),
        _ => None,
    });
    let mut times: Vec<i64> = sealed.chain(&joined.unsealed).flat_map(|table| table.at_ms.clone()).collect();
    times.sort_unstable();
    times
}

pub(super) async fn mirrored_rows_are_read_once(backend: TestBackend) {
    let mut site = TestHistory::new(backend, HistoryConfig::default()).await;
    let host = site.host;
    let (store, clock) = (site.history.backend.clone(), site.clock.clone());
    let other = History::open(store, clock, site.config.clone(), HistoryMetrics::default()).await.unwrap();
    let rows: Vec<Arc<Snapshot>> =
        (0..40_u64).map(|seq| site.row(1, seq, T0 + 1_000 * seq.cast_signed())).collect();
    site.advance_to(T0 + MINUTE);
    site.send(rows.clone()).await;
    for row in &rows {
        assert!(other.mirror(host, row).is_some());
        assert!(other.mirror(host, row).is_none(), "a repeated row");
    }
    let expected: Vec<i64> = rows.iter().map(|row| row.at_ms).collect();
    assert_eq!(times(&other, host).await, expected);
    // An agent that did not get the acknowledgment sends again, to the other hub.
    let retried = other.append(host, rows.clone()).await.unwrap();
    assert!(retried.rows.iter().all(Option::is_none));
    drop(retried);
    site.history.seal(true).await.unwrap();
    assert_eq!(times(&other, host).await, expected);
    assert!(other.head(host).has_mirrored_rows());
    other.remove_sealed_mirrored().await.unwrap();
    assert!(!other.head(host).has_mirrored_rows());
    assert_eq!(times(&other, host).await, expected);
    // Rows that follow, of which some are sealed.
    let late: Vec<Arc<Snapshot>> =
        (40..50_u64).map(|seq| site.row(1, seq, T0 + 1_000 * seq.cast_signed())).collect();
    site.send(late.clone()).await;
    late.iter().for_each(|row| assert!(other.mirror(host, row).is_some()));
    let expected: Vec<i64> = rows.iter().chain(&late).map(|row| row.at_ms).collect();
    assert_eq!(times(&other, host).await, expected);
}
