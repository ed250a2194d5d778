//! Tables of the schema: names that depend on the tier, and the treatment of each table in backups.
//!
//! A new table needs one entry in [`TABLES`]; its columns are read from the database.

use perfwatch_tsdb::Tier;

/// Table of the blocks of a tier.
pub(crate) fn block_table(tier: Tier) -> &'static str {
    match tier {
        Tier::Raw => "block_raw",
        Tier::Minute => "block_minute",
        Tier::Hour => "block_hour",
    }
}

/// Treatment of a table in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupMode {
    /// All rows and columns are copied.
    Full,
    /// All rows are copied in the order of their `id` and receive new ids.
    Renumbered,
    /// All rows are copied and receive new ids. Blocks have no order, and sorting them would need their size
    /// in temporary space.
    Blocks,
    /// Rows of all hubs are copied and belong to the hub that restores them.
    Head,
    /// The shapes that head rows of any hub use are copied and belong to the hub that restores them.
    HeadShape,
    /// The lowest watermark of the hubs that share a host is copied. Rows that are restored twice are
    /// recognized by their sequence numbers.
    SealWatermark,
    /// The rows exist in an empty database and are updated. The first column is the key.
    Updated,
    /// No rows are copied. Sessions, leases and queues must not take effect again after a restore: pending
    /// notifications are not sent twice, and collection jobs are scheduled from the servers.
    Excluded,
}

/// A table and its treatment in a backup.
#[derive(Debug, Clone, Copy)]
pub struct TableInfo {
    /// Name of the table in both engines.
    pub name: &'static str,
    /// What a backup contains of it.
    pub backup: BackupMode,
}

const fn table(name: &'static str, backup: BackupMode) -> TableInfo {
    TableInfo { name, backup }
}

/// All tables of the schema. A test compares the list with the migrations of both engines.
pub const TABLES: [TableInfo; 36] = [
    table("host", BackupMode::Full),
    table("shape", BackupMode::Full),
    table("head", BackupMode::Head),
    table("head_shape", BackupMode::HeadShape),
    table("seal_watermark", BackupMode::SealWatermark),
    table("sequence_range", BackupMode::Full),
    table("block_raw", BackupMode::Blocks),
    table("block_minute", BackupMode::Blocks),
    table("block_hour", BackupMode::Blocks),
    table("dirty_window", BackupMode::Full),
    table("retention_watermark", BackupMode::Updated),
    table("host_watermark", BackupMode::Full),
    table("lease", BackupMode::Excluded),
    table("account", BackupMode::Full),
    table("session", BackupMode::Excluded),
    table("token", BackupMode::Full),
    table("enrollment_token", BackupMode::Full),
    table("agent", BackupMode::Full),
    table("host_tags", BackupMode::Full),
    table("audit", BackupMode::Renumbered),
    table("setting", BackupMode::Full),
    table("rule", BackupMode::Full),
    table("channel", BackupMode::Full),
    table("silence", BackupMode::Full),
    table("incident", BackupMode::Full),
    table("alert", BackupMode::Full),
    table("incident_event", BackupMode::Renumbered),
    table("notification", BackupMode::Excluded),
    table("host_last_seen", BackupMode::Full),
    table("server", BackupMode::Full),
    table("collection", BackupMode::Renumbered),
    table("collection_job", BackupMode::Excluded),
    table("saved_view", BackupMode::Full),
    table("status_page", BackupMode::Full),
    table("availability_day", BackupMode::Full),
    // The restoring program has created it.
    table("schema_compatibility", BackupMode::Excluded),
];

/// Tables whose rows are not part of a backup.
pub(crate) fn excluded_tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().filter(|table| table.backup == BackupMode::Excluded).map(|table| table.name)
}

/// Columns of a table that a backup copies.
pub fn backup_columns(table: &TableInfo, columns: Vec<String>) -> Vec<String> {
    let omitted = match table.backup {
        BackupMode::Renumbered | BackupMode::Blocks => "id",
        BackupMode::Head | BackupMode::HeadShape | BackupMode::SealWatermark => "hub",
        _ => return columns,
    };
    columns.into_iter().filter(|column| column != omitted).collect()
}

/// Statement that reads the rows of a table for a backup.
pub(crate) fn backup_select(table: &TableInfo, columns: &[String]) -> String {
    let (name, columns) = (table.name, columns.join(", "));
    match table.backup {
        BackupMode::HeadShape => format!("SELECT DISTINCT shape FROM {name}"),
        BackupMode::SealWatermark => format!("SELECT host, min(arrival) FROM {name} GROUP BY host"),
        BackupMode::Renumbered => format!("SELECT {columns} FROM {name} ORDER BY id"),
        _ => format!("SELECT {columns} FROM {name}"),
    }
}

/// Statement that writes a row of a backup. `mark` is the engine's sign of a parameter; rows with a hub take
/// it as the last parameter.
pub(crate) fn backup_insert(table: &TableInfo, columns: &[String], mark: char) -> String {
    let name = table.name;
    if table.backup == BackupMode::Updated {
        let set: Vec<String> = columns
            .iter()
            .enumerate()
            .skip(1)
            .map(|(at, column)| format!("{column} = {mark}{}", at + 1))
            .collect();
        return format!("UPDATE {name} SET {} WHERE {} = {mark}1", set.join(", "), columns[0]);
    }
    let mut names = columns.to_vec();
    if has_hub(table) {
        names.push("hub".to_owned());
    }
    let marks: Vec<String> = (1..=names.len()).map(|number| format!("{mark}{number}")).collect();
    format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), marks.join(", "))
}

/// Returns whether restored rows belong to the hub that restores them.
pub(crate) fn has_hub(table: &TableInfo) -> bool {
    matches!(table.backup, BackupMode::Head | BackupMode::HeadShape | BackupMode::SealWatermark)
}
