//! Effect of retention and disk budget: how far each tier reaches back once the store no longer grows.
//!
//! The disk budget deletes the tier that is above its share (see `perfwatch-history`): raw rows above 40 % of all
//! blocks, then minutes above 60 % of the rest, then hours. The forecast is the size at which this ends.

use crate::volume::Volumes;
use perfwatch_history::HistoryConfig;
use perfwatch_history::budget::{EVICT_TO_PERCENT, MINUTE_SHARE_PERCENT, RAW_SHARE_PERCENT};
use perfwatch_store::DiskUsage;
use perfwatch_tsdb::Tier;
use serde::Serialize;

/// Measured time below which the forecast is marked as uncertain.
const SHORT_MEASUREMENT_MS: i64 = 6 * 3_600_000;
/// Size of all blocks from which indexes and free pages are counted in proportion to the blocks.
const PROPORTIONAL_BYTES: u64 = 64 << 20;
const DAY_S: f64 = 86_400.0;

/// Storage as it is now.
pub(crate) struct CurrentStorage {
    pub(crate) usage: DiskUsage,
    pub(crate) config: HistoryConfig,
    /// Free space of the file system, if the store has its own files.
    pub(crate) free_bytes: Option<u64>,
}

/// Tier of the history with its forecast.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TierPreview {
    /// Tier: `raw`, `1m` or `1h`.
    pub tier: &'static str,
    /// Size of its blocks.
    pub bytes: u64,
    /// Bytes that all hosts write per day; `null` until blocks exist.
    pub bytes_per_day: Option<u64>,
    /// Time of the oldest row, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Retention.
    pub retention_s: u64,
    /// How far the tier will reach back; `null` until blocks exist.
    pub reach_s: Option<u64>,
}

/// Kind of a warning of a preview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PreviewWarningCode {
    /// No host has written blocks yet.
    NoData,
    /// The volume was measured over a short time: `seconds`.
    ShortMeasurement,
    /// The disk budget ends before the retention of the tier.
    BudgetLimits,
    /// Saving deletes rows of the tier at once: `seconds` of history.
    DeletesHistory,
    /// The file system is too small for the disk budget: `bytes` are missing.
    DiskTooSmall,
}

/// Consequence that needs attention before settings are saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewWarning {
    /// Kind of the warning.
    pub code: PreviewWarningCode,
    /// Tier that is concerned.
    pub tier: Option<&'static str>,
    /// Time, by the kind.
    pub seconds: Option<u64>,
    /// Size, by the kind.
    pub bytes: Option<u64>,
}

/// Effect of settings on storage.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewResponse {
    /// Hosts that write history.
    pub hosts: u64,
    /// Time over which the volume was measured.
    pub measured_s: u64,
    /// Used disk space.
    pub used_bytes: u64,
    /// Used disk space that is not blocks: rows that are not sealed, alerts, audit log, indexes.
    pub other_bytes: u64,
    /// Disk budget in effect.
    pub current_budget_bytes: u64,
    /// Disk budget of the preview.
    pub budget_bytes: u64,
    /// Free space of the file system; `null` if the database is on another machine.
    pub free_bytes: Option<u64>,
    /// The tiers, finest first.
    pub tiers: Vec<TierPreview>,
    /// Used disk space at which the store stops growing; `null` until all tiers were measured.
    pub level_off_bytes: Option<u64>,
    /// Time at which it stops growing, Unix milliseconds.
    pub level_off_at_ms: Option<i64>,
    /// How far raw rows could reach back within the budget, whatever their retention; `null` until blocks exist.
    pub raw_space_s: Option<u64>,
    /// Hosts like these for which the budget has space besides, with full retention.
    pub more_hosts: Option<u64>,
    /// Consequences that need attention.
    pub warnings: Vec<PreviewWarning>,
}

fn retention_s(config: &HistoryConfig, tier: Tier) -> u64 {
    match tier {
        Tier::Raw => config.raw_retention.as_secs(),
        Tier::Minute => config.minute_retention.as_secs(),
        Tier::Hour => config.hour_retention.as_secs(),
    }
}

/// Sizes of the tiers within `limit`, if each needs `needed`.
fn shared_sizes(needed: [f64; 3], limit: f64) -> [f64; 3] {
    let share = |percent: u64| f64::from(u32::try_from(percent).unwrap_or(100)) / 100.0;
    let [raw, minutes, hours] = needed;
    if raw + minutes + hours <= limit {
        return needed;
    }
    let raw = raw.min((limit - minutes - hours).max(limit * share(RAW_SHARE_PERCENT)));
    let rest = limit - raw;
    if minutes + hours <= rest {
        return [raw, minutes, hours];
    }
    let minutes = minutes.min((rest - hours).max(rest * share(MINUTE_SHARE_PERCENT)));
    [raw, minutes, hours.min(rest - minutes)]
}

/// Space of the blocks within a budget, and the factor by which indexes and free pages enlarge them.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn block_space(current: &CurrentStorage, budget_bytes: u64) -> (f64, f64, u64) {
    let usage = &current.usage;
    let blocks: u64 = usage.tier_bytes.iter().sum();
    let other = usage.used_bytes.saturating_sub(blocks);
    let scale = budget_bytes as f64 / current.config.budget_bytes.max(1) as f64;
    let target = usage.target_bytes as f64 * scale / 100.0 * EVICT_TO_PERCENT as f64;
    if blocks < PROPORTIONAL_BYTES {
        return ((target - other as f64).max(0.0), 1.0, other);
    }
    let factor = (usage.used_bytes.saturating_sub(usage.head_bytes)) as f64 / blocks as f64;
    (((target - usage.head_bytes as f64) / factor.max(1.0)).max(0.0), factor.max(1.0), other)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; never negative"
)]
pub(crate) fn preview(
    volumes: &Volumes,
    current: &CurrentStorage,
    proposed: &HistoryConfig,
    now_ms: i64,
) -> PreviewResponse {
    let usage = &current.usage;
    // Before the first measurement of the store, nothing can be said.
    let unmeasured = Volumes::default();
    let volumes = if usage.target_bytes == 0 { &unmeasured } else { volumes };
    let (space, factor, other_bytes) = block_space(current, proposed.budget_bytes);
    let retention: [u64; 3] = Tier::ALL.map(|tier| retention_s(proposed, tier));
    let per_second: [Option<f64>; 3] = volumes.map(|volume| volume.bytes_per_day.map(|bytes| bytes / DAY_S));
    let needed: [f64; 3] =
        std::array::from_fn(|tier| per_second[tier].unwrap_or_default() * retention[tier] as f64);
    let sizes = shared_sizes(needed, space);
    let reach: [Option<u64>; 3] = std::array::from_fn(|tier| {
        let rate = per_second[tier].filter(|rate| *rate > 0.0)?;
        Some(((sizes[tier] / rate).round() as u64).min(retention[tier]))
    });
    let raw_rate = per_second[0].filter(|rate| *rate > 0.0);
    let raw_space_s =
        raw_rate.map(|rate| (shared_sizes([f64::MAX, needed[1], needed[2]], space)[0] / rate) as u64);
    let hosts = volumes.iter().map(|volume| volume.hosts).max().unwrap_or_default();
    let total_needed: f64 = needed.iter().sum();
    let all_measured = per_second.iter().all(Option::is_some);
    let is_measured = per_second[0].is_some();
    let more_hosts = (is_measured && hosts > 0 && total_needed > 0.0)
        .then(|| ((space - total_needed).max(0.0) / (total_needed / hosts as f64)) as u64);
    let used_elsewhere =
        usage.used_bytes.saturating_sub((usage.tier_bytes.iter().sum::<u64>() as f64 * factor) as u64);
    let level_off_bytes = all_measured.then(|| (sizes.iter().sum::<f64>() * factor) as u64 + used_elsewhere);
    let tiers: Vec<TierPreview> = Tier::ALL
        .into_iter()
        .enumerate()
        .map(|(index, tier)| TierPreview {
            tier: tier.name(),
            bytes: usage.tier_bytes[index],
            bytes_per_day: volumes[index].bytes_per_day.map(|bytes| bytes as u64),
            oldest_ms: volumes[index].oldest_ms,
            retention_s: retention[index],
            reach_s: reach[index],
        })
        .collect();
    let level_off_at_ms = all_measured.then(|| level_off_at_ms(&tiers, now_ms));
    PreviewResponse {
        hosts,
        measured_s: (volumes[0].covered_ms / 1_000).cast_unsigned(),
        used_bytes: usage.used_bytes,
        other_bytes,
        current_budget_bytes: current.config.budget_bytes,
        budget_bytes: proposed.budget_bytes,
        free_bytes: current.free_bytes,
        warnings: warnings(&tiers, volumes, current, proposed, now_ms),
        tiers,
        level_off_bytes,
        level_off_at_ms,
        raw_space_s,
        more_hosts,
    }
}

/// Time at which the last tier reaches back as far as it ever will.
fn level_off_at_ms(tiers: &[TierPreview], now_ms: i64) -> i64 {
    let remaining = tiers.iter().map(|tier| {
        let reach_ms = i64::try_from(tier.reach_s.unwrap_or_default()).unwrap_or(0).saturating_mul(1_000);
        reach_ms - (now_ms - tier.oldest_ms.unwrap_or(now_ms))
    });
    now_ms + remaining.max().unwrap_or_default().max(0)
}

fn warnings(
    tiers: &[TierPreview],
    volumes: &Volumes,
    current: &CurrentStorage,
    proposed: &HistoryConfig,
    now_ms: i64,
) -> Vec<PreviewWarning> {
    use PreviewWarningCode::{BudgetLimits, DeletesHistory, DiskTooSmall, NoData, ShortMeasurement};
    let warning = |code| PreviewWarning { code, tier: None, seconds: None, bytes: None };
    let mut warnings = Vec::new();
    match volumes[0].bytes_per_day {
        None => warnings.push(warning(NoData)),
        Some(_) if volumes[0].covered_ms < SHORT_MEASUREMENT_MS => {
            let seconds = Some((volumes[0].covered_ms / 1_000).cast_unsigned());
            warnings.push(PreviewWarning { seconds, ..warning(ShortMeasurement) });
        }
        Some(_) => {}
    }
    for (tier, info) in Tier::ALL.into_iter().zip(tiers) {
        if info.reach_s.is_some_and(|reach| reach < info.retention_s) {
            warnings.push(PreviewWarning { tier: Some(info.tier), ..warning(BudgetLimits) });
        }
        let stored_s = info.oldest_ms.map_or(0, |oldest| (now_ms - oldest).max(0).cast_unsigned() / 1_000);
        let is_shorter = info.retention_s < retention_s(&current.config, tier);
        if is_shorter && stored_s > info.retention_s {
            let seconds = Some(stored_s - info.retention_s);
            warnings.push(PreviewWarning { tier: Some(info.tier), seconds, ..warning(DeletesHistory) });
        }
    }
    if let Some(free) = current.free_bytes {
        let available = current.usage.disk_bytes + free.saturating_sub(proposed.min_free_bytes);
        if proposed.budget_bytes > available {
            let bytes = Some(proposed.budget_bytes - available);
            warnings.push(PreviewWarning { bytes, ..warning(DiskTooSmall) });
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::MeasuredTier;
    use std::time::Duration;

    const DAY_MS: i64 = 86_400_000;
    const GB: u64 = 1 << 30;
    const NOW_MS: i64 = 1_000 * DAY_MS;

    fn measured(gb_per_day: f64, days: i64) -> MeasuredTier {
        MeasuredTier {
            bytes_per_day: Some(gb_per_day * 1_073_741_824.0),
            covered_ms: DAY_MS,
            hosts: 12,
            oldest_ms: Some(NOW_MS - days * DAY_MS),
        }
    }

    fn storage(budget_gb: u64) -> CurrentStorage {
        let config = HistoryConfig { budget_bytes: budget_gb * GB, ..HistoryConfig::default() };
        let usage = DiskUsage {
            disk_bytes: 5 * GB,
            used_bytes: 4 * GB,
            target_bytes: budget_gb * GB,
            tier_bytes: [3 * GB, GB / 2, GB / 2],
            head_bytes: 0,
        };
        CurrentStorage { usage, config, free_bytes: Some(100 * GB) }
    }

    fn days(value: Option<u64>) -> u64 {
        value.unwrap() / 86_400
    }

    #[test]
    fn enough_space_keeps_every_retention() {
        let volumes = [measured(0.25, 10), measured(0.005, 10), measured(0.0002, 10)];
        let shown = preview(&volumes, &storage(100), &storage(100).config, NOW_MS);
        let reach: Vec<u64> = shown.tiers.iter().map(|tier| days(tier.reach_s)).collect();
        assert_eq!((reach, shown.hosts), (vec![14, 90, 730], 12));
        // 80 of 100 GB without 0.6 GB of minutes and hours hold 317 days at 0.25 GB a day.
        assert_eq!(days(shown.raw_space_s), 317);
        // 80 of 100 GB; 14 days of raw rows, 90 of minutes and 730 of hours take 4.1 GB for 12 hosts.
        assert_eq!(shown.more_hosts, Some(222));
        assert_eq!((shown.level_off_at_ms.unwrap() - NOW_MS) / DAY_MS, 720);
        assert!(shown.warnings.is_empty(), "{:?}", shown.warnings);
    }

    #[test]
    fn budget_reduces_detail_first() {
        let volumes = [measured(1.0, 10), measured(0.02, 10), measured(0.0002, 10)];
        let config = HistoryConfig { budget_bytes: 10 * GB, ..HistoryConfig::default() };
        let shown = preview(&volumes, &storage(20), &config, NOW_MS);
        // 8 GB for blocks: 1.9 GB of minutes and hours stay, raw rows have the rest.
        let reach: Vec<u64> = shown.tiers.iter().map(|tier| days(tier.reach_s)).collect();
        assert_eq!((reach, shown.more_hosts), (vec![6, 90, 730], Some(0)));
        assert_eq!(shown.level_off_bytes.unwrap() / GB, 8);
        let codes: Vec<PreviewWarningCode> = shown.warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, [PreviewWarningCode::BudgetLimits]);
    }

    #[test]
    fn each_tier_keeps_its_share_of_a_small_budget() {
        assert_eq!(shared_sizes([500.0, 500.0, 500.0], 100.0), [40.0, 36.0, 24.0]);
        assert_eq!(shared_sizes([10.0, 500.0, 5.0], 100.0), [10.0, 85.0, 5.0]);
        assert_eq!(shared_sizes([10.0, 20.0, 5.0], 100.0), [10.0, 20.0, 5.0]);
    }

    #[test]
    fn consequences_are_warned_about() {
        let volumes = [
            MeasuredTier { covered_ms: 3_600_000, ..measured(0.1, 10) },
            measured(0.01, 10),
            MeasuredTier::default(),
        ];
        let raw_retention = Duration::from_secs(7 * 86_400);
        let config = HistoryConfig { raw_retention, budget_bytes: 200 * GB, ..HistoryConfig::default() };
        let shown = preview(&volumes, &storage(20), &config, NOW_MS);
        let codes: Vec<_> = shown.warnings.iter().map(|warning| (warning.code, warning.seconds)).collect();
        use PreviewWarningCode::{DeletesHistory, DiskTooSmall, ShortMeasurement};
        let deleted = Some(3 * 86_400);
        let want = [(ShortMeasurement, Some(3_600)), (DeletesHistory, deleted), (DiskTooSmall, None)];
        assert_eq!(codes, want);
        // Hours were not measured yet: the end of the growth is unknown.
        assert_eq!((shown.level_off_bytes, shown.tiers[2].reach_s), (None, None));
        let empty = preview(&Volumes::default(), &storage(20), &storage(20).config, NOW_MS);
        assert_eq!(empty.warnings[0].code, PreviewWarningCode::NoData);
        assert_eq!(empty.more_hosts, None);
    }
}
