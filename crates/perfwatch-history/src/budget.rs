//! Shares of the disk budget: which tier is deleted when space is short. Forecasts of the reach of a tier use them
//! too.

/// Disk usage, in percent of [`perfwatch_store::DiskUsage::target_bytes`], down to which data is deleted.
pub const EVICT_TO_PERCENT: u64 = 80;
/// Share of all blocks, in percent, above which the raw tier is deleted first.
pub const RAW_SHARE_PERCENT: u64 = 40;
/// Share of the minute and hour blocks, in percent, above which the minute tier is deleted next.
pub const MINUTE_SHARE_PERCENT: u64 = 60;
