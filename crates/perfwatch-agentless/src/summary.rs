//! What the last look at each server saw, for lists: kept for an hour, or as long as looks are apart;
//! and what all of them come to together, kept for a minute.

use super::{Agentless, Server};
use data_encoding::HEXLOWER;
use perfwatch_auth::secret::hash_secret;
use perfwatch_model::Snapshot;
use perfwatch_rules::builtin_rules::REAL_MOUNTS;
use perfwatch_rules::condition::instance_matches;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Older figures say nothing of now, where looks are not further apart.
const SUMMARY_TTL: Duration = Duration::from_secs(3_600);
/// Whoever asks for all together gets the same for so long.
const TOTALS_TTL: Duration = Duration::from_secs(60);
/// Of each kind, in a summary.
const MAX_TOP_SERVERS: usize = 3;

/// A filesystem that is fuller than the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FullestFilesystem {
    mount: String,
    percent: f64,
}

/// What the last look saw, of the last hour or of two intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerSummary {
    /// When, by the hub's clock.
    at_ms: i64,
    /// Of all processors' time, percent.
    cpu: Option<f64>,
    /// Percent.
    memory: Option<f64>,
    /// Bytes.
    memory_used: Option<f64>,
    /// Bytes.
    memory_total: Option<f64>,
    /// Those that are full by design left out.
    disk: Option<FullestFilesystem>,
    /// Of all filesystems, bytes.
    disk_used: Option<f64>,
    /// Of all filesystems, bytes.
    disk_size: Option<f64>,
    /// Of the last minute.
    load: Option<f64>,
    /// Since it started.
    uptime_s: Option<f64>,
}

impl ServerSummary {
    /// Of one look.
    pub fn from_snapshot(seen: &Snapshot) -> Self {
        let one = |metric| seen.value(metric, "");
        let mounts = |metric: &'static str| {
            let columns = seen.shape.columns().iter().filter(move |column| &*column.metric == metric);
            columns
                .filter(|column| instance_matches(Some(REAL_MOUNTS), &column.instance))
                .filter_map(move |column| Some((&column.instance, seen.value(metric, &column.instance)?)))
        };
        let sum = |metric| mounts(metric).map(|(_, value)| value).reduce(|sum, value| sum + value);
        let fullest = mounts("filesystem.used_percent").max_by(|a, b| a.1.total_cmp(&b.1));
        Self {
            at_ms: seen.at_ms,
            cpu: one("cpu.usage"),
            memory: one("memory.used_percent"),
            memory_used: one("memory.used"),
            memory_total: one("memory.total"),
            disk: fullest.map(|(mount, percent)| FullestFilesystem { mount: mount.to_string(), percent }),
            disk_used: sum("filesystem.used"),
            disk_size: sum("filesystem.size"),
            load: one("load.1m"),
            uptime_s: one("system.uptime"),
        }
    }
}

/// Percent, and of which mount.
type UsageShare<'a> = (f64, Option<&'a str>);

/// A server that has most of something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopServer {
    id: Uuid,
    name: String,
    /// Of disks: which.
    mount: Option<String>,
    percent: f64,
}

/// What servers come to together, by their last looks; at most a minute old.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FleetTotals {
    /// When it was made.
    computed_ms: i64,
    /// Of how many there are figures.
    servers: usize,
    /// The mean of all, percent.
    cpu: Option<f64>,
    /// Bytes.
    memory_used: f64,
    /// Bytes.
    memory_total: f64,
    /// Bytes.
    disk_used: f64,
    /// Bytes.
    disk_size: f64,
    /// The busiest.
    top_cpu: Vec<TopServer>,
    /// Those with least memory left.
    top_memory: Vec<TopServer>,
    /// Those with the fullest filesystem.
    top_disk: Vec<TopServer>,
}

impl FleetTotals {
    /// Of these servers, by id and name.
    fn from_summaries(
        computed_ms: i64,
        servers: &[(Uuid, String)],
        latest: &[Option<ServerSummary>],
    ) -> Self {
        let known: Vec<(&(Uuid, String), &ServerSummary)> = servers
            .iter()
            .zip(latest)
            .filter_map(|(server, latest)| Some((server, latest.as_ref()?)))
            .collect();
        let sum = |of: fn(&ServerSummary) -> Option<f64>| {
            known.iter().filter_map(|(_, latest)| of(latest)).fold(0.0, |sum, one| sum + one)
        };
        let top = |of: fn(&ServerSummary) -> Option<UsageShare<'_>>| {
            let one = |((id, name), latest): &(&(Uuid, String), &ServerSummary)| {
                let (percent, mount) = of(latest)?;
                Some(TopServer { id: *id, name: name.clone(), mount: mount.map(str::to_owned), percent })
            };
            let mut all: Vec<TopServer> = known.iter().filter_map(one).collect();
            all.sort_by(|a, b| b.percent.total_cmp(&a.percent));
            all.truncate(MAX_TOP_SERVERS);
            all
        };
        let cpu: Vec<f64> = known.iter().filter_map(|(_, latest)| latest.cpu).collect();
        #[expect(clippy::cast_precision_loss, reason = "some thousand servers")]
        let mean = (!cpu.is_empty()).then(|| cpu.iter().sum::<f64>() / cpu.len() as f64);
        Self {
            computed_ms,
            servers: known.len(),
            cpu: mean,
            memory_used: sum(|latest| latest.memory_used),
            memory_total: sum(|latest| latest.memory_total),
            disk_used: sum(|latest| latest.disk_used),
            disk_size: sum(|latest| latest.disk_size),
            top_cpu: top(|latest| Some((latest.cpu?, None))),
            top_memory: top(|latest| Some((latest.memory?, None))),
            top_disk: top(|latest| latest.disk.as_ref().map(|disk| (disk.percent, Some(&*disk.mount)))),
        }
    }
}

/// Of a server as it stands: at another place, it is another one.
fn cache_key(id: Uuid, server: &Server) -> String {
    let door = String::from_utf8_lossy(&Agentless::credentials_aad(id, server)).into_owned();
    format!("latest:{id}:{}", &HEXLOWER.encode(&hash_secret(&door))[..16])
}

impl Agentless {
    /// What a look saw.
    pub(super) async fn put(&self, id: Uuid, server: &Server, latest: &ServerSummary) {
        let apart = Duration::from_millis(u64::try_from(server.interval.ms()).unwrap_or_default());
        self.deps.cache.put(&cache_key(id, server), latest, SUMMARY_TTL.max(apart * 2)).await;
    }

    /// What the last looks saw, in the order of the servers.
    pub async fn get_many(&self, servers: &[(Uuid, Server)]) -> Vec<Option<ServerSummary>> {
        let keys: Vec<String> = servers.iter().map(|(id, server)| cache_key(*id, server)).collect();
        self.deps.cache.get(&keys).await
    }

    /// What servers come to together; `who` names those who see just these.
    pub async fn totals(&self, who: &str, servers: &[(Uuid, Server)]) -> FleetTotals {
        let key = format!("summary:{who}");
        let known = self.deps.cache.get(std::slice::from_ref(&key)).await.pop().flatten();
        if let Some(summary) = known {
            return summary;
        }
        let latest = self.get_many(servers).await;
        let named: Vec<(Uuid, String)> =
            servers.iter().map(|(id, server)| (*id, server.name.clone())).collect();
        let summary = FleetTotals::from_summaries(self.deps.clock.wall_ms(), &named, &latest);
        self.deps.cache.put(&key, &summary, TOTALS_TTL).await;
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Column, Shape};
    use std::sync::Arc;

    fn seen(columns: &[(&'static str, &'static str, i64)]) -> Snapshot {
        let column = |(metric, instance, _): &(&'static str, &'static str, i64)| Column {
            metric: (*metric).into(),
            dimension: if instance.is_empty() { "" } else { "mount" }.into(),
            instance: (*instance).into(),
            decimals: 0,
        };
        let mut sorted = columns.to_vec();
        sorted.sort();
        Snapshot {
            boot: BootId::from_bytes(&[1; 16]).unwrap(),
            seq: 1,
            at_ms: 5,
            interval_ms: 0,
            shape: Arc::new(Shape::new(sorted.iter().map(column).collect())),
            values: sorted.iter().map(|(_, _, value)| *value).collect(),
            processes: vec![],
            facts: None,
            errors: vec![],
        }
    }

    #[test]
    fn summary_of_a_snapshot() {
        let latest = ServerSummary::from_snapshot(&seen(&[
            ("cpu.usage", "", 31),
            ("filesystem.size", "/", 100),
            ("filesystem.size", "/snap/core/1", 100),
            ("filesystem.size", "/srv", 50),
            ("filesystem.used_percent", "/", 40),
            ("filesystem.used_percent", "/snap/core/1", 100),
            ("filesystem.used_percent", "/srv", 90),
        ]));
        assert_eq!((latest.cpu, latest.memory, latest.at_ms), (Some(31.0), None, 5));
        assert_eq!(latest.disk, Some(FullestFilesystem { mount: "/srv".to_owned(), percent: 90.0 }));
        assert_eq!((latest.disk_size, latest.disk_used), (Some(150.0), None));
    }

    #[test]
    fn totals_of_all_servers() {
        let servers: Vec<(Uuid, String)> = (0..5).map(|at| (Uuid::from_u128(at), format!("s{at}"))).collect();
        let of = |cpu| {
            Some(ServerSummary::from_snapshot(&seen(&[("cpu.usage", "", cpu), ("memory.used", "", 10)])))
        };
        let summary = FleetTotals::from_summaries(7, &servers, &[of(10), None, of(90), of(20), of(30)]);
        assert_eq!((summary.servers, summary.cpu, summary.memory_used), (4, Some(37.5), 40.0));
        let busiest: Vec<&str> = summary.top_cpu.iter().map(|top| top.name.as_str()).collect();
        assert_eq!(busiest, ["s2", "s4", "s3"]);
        assert_eq!((summary.top_disk.len(), summary.disk_size.to_string().as_str()), (0, "0"));
        assert_eq!(FleetTotals::from_summaries(7, &[], &[]).cpu, None);
    }
}
