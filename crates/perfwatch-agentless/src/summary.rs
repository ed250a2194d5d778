//! Last values of each agentless host and the totals of all of them, cached for lists and overviews.

use crate::credentials::endpoint_bytes;
use crate::server::Server;
use data_encoding::HEXLOWER;
use perfwatch_auth::secret::hash_secret;
use perfwatch_live::cache::Cache;
use perfwatch_model::{Clock, Snapshot};
use perfwatch_rules::builtin_rules::REAL_MOUNTS;
use perfwatch_rules::condition::instance_matches;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Minimum time for which a summary is cached. With a longer collection interval: two intervals.
const SUMMARY_TTL: Duration = Duration::from_secs(3_600);
/// Time for which the totals are cached.
const TOTALS_TTL: Duration = Duration::from_secs(60);
/// Maximum number of top servers per resource.
const MAX_TOP_SERVERS: usize = 3;

/// Fullest filesystem of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FullestFilesystem {
    /// Mount point of the filesystem.
    mount: String,
    /// Used space in percent.
    percent: f64,
}

/// Values of the last collection: at most an hour old, or two intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerSummary {
    /// Time of the snapshot by the hub's clock, Unix milliseconds.
    at_ms: i64,
    /// CPU usage of all cores in percent.
    cpu: Option<f64>,
    /// Used memory in percent.
    memory: Option<f64>,
    /// Used memory in bytes.
    memory_used: Option<f64>,
    /// Total memory in bytes.
    memory_total: Option<f64>,
    /// Fullest filesystem, except mounts that are full by design.
    disk: Option<FullestFilesystem>,
    /// Used space of all filesystems in bytes.
    disk_used: Option<f64>,
    /// Size of all filesystems in bytes.
    disk_size: Option<f64>,
    /// Load average over one minute.
    load: Option<f64>,
    /// Uptime of the host in seconds.
    uptime_s: Option<f64>,
}

impl ServerSummary {
    /// Extracts the summary from the snapshot of a collection.
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let value = |metric| snapshot.value(metric, "");
        let mounts = |metric: &'static str| {
            let columns = snapshot.shape.columns().iter().filter(move |column| &*column.metric == metric);
            columns
                .filter(|column| instance_matches(Some(REAL_MOUNTS), &column.instance))
                .filter_map(move |column| Some((&column.instance, snapshot.value(metric, &column.instance)?)))
        };
        let sum = |metric| mounts(metric).map(|(_, value)| value).reduce(|sum, value| sum + value);
        let fullest = mounts("filesystem.used_percent").max_by(|a, b| a.1.total_cmp(&b.1));
        Self {
            at_ms: snapshot.at_ms,
            cpu: value("cpu.usage"),
            memory: value("memory.used_percent"),
            memory_used: value("memory.used"),
            memory_total: value("memory.total"),
            disk: fullest.map(|(mount, percent)| FullestFilesystem { mount: mount.to_string(), percent }),
            disk_used: sum("filesystem.used"),
            disk_size: sum("filesystem.size"),
            load: value("load.1m"),
            uptime_s: value("system.uptime"),
        }
    }
}

/// Usage of a resource by one server.
struct UsageShare<'a> {
    percent: f64,
    mount: Option<&'a str>,
}

/// Server with a high usage of a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopServer {
    /// Identifier of the server and its host.
    id: Uuid,
    /// Display name of the server.
    name: String,
    /// Mount point; only for disks.
    mount: Option<String>,
    /// Usage of the resource in percent.
    percent: f64,
}

/// Totals of the last collections of all servers; at most a minute old.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FleetTotals {
    /// Time of the computation, Unix milliseconds.
    computed_ms: i64,
    /// Number of servers with a summary.
    servers: usize,
    /// Mean CPU usage in percent.
    cpu: Option<f64>,
    /// Used memory in bytes.
    memory_used: f64,
    /// Total memory in bytes.
    memory_total: f64,
    /// Used disk space in bytes.
    disk_used: f64,
    /// Total disk space in bytes.
    disk_size: f64,
    /// Servers with the highest CPU usage.
    top_cpu: Vec<TopServer>,
    /// Servers with the highest memory usage.
    top_memory: Vec<TopServer>,
    /// Servers with the fullest filesystems.
    top_disk: Vec<TopServer>,
}

/// Server with its name and summary.
struct SummarizedServer<'a> {
    id: Uuid,
    name: &'a str,
    summary: &'a ServerSummary,
}

impl FleetTotals {
    /// Computes the totals of servers, given by id and name, from their summaries in the same order.
    fn from_summaries(
        computed_ms: i64,
        servers: &[(Uuid, String)],
        summaries: &[Option<ServerSummary>],
    ) -> Self {
        let summarized: Vec<SummarizedServer<'_>> = servers
            .iter()
            .zip(summaries)
            .filter_map(|((id, name), summary)| {
                Some(SummarizedServer { id: *id, name, summary: summary.as_ref()? })
            })
            .collect();
        let sum = |value: fn(&ServerSummary) -> Option<f64>| {
            summarized.iter().filter_map(|server| value(server.summary)).fold(0.0, |sum, value| sum + value)
        };
        let top = |usage: fn(&ServerSummary) -> Option<UsageShare<'_>>| {
            let top_server = |server: &SummarizedServer<'_>| {
                let UsageShare { percent, mount } = usage(server.summary)?;
                let (name, mount) = (server.name.to_owned(), mount.map(str::to_owned));
                Some(TopServer { id: server.id, name, mount, percent })
            };
            let mut servers: Vec<TopServer> = summarized.iter().filter_map(top_server).collect();
            servers.sort_by(|a, b| b.percent.total_cmp(&a.percent));
            servers.truncate(MAX_TOP_SERVERS);
            servers
        };
        let cpu: Vec<f64> = summarized.iter().filter_map(|server| server.summary.cpu).collect();
        #[expect(clippy::cast_precision_loss, reason = "at most some thousand servers")]
        let mean = (!cpu.is_empty()).then(|| cpu.iter().sum::<f64>() / cpu.len() as f64);
        Self {
            computed_ms,
            servers: summarized.len(),
            cpu: mean,
            memory_used: sum(|summary| summary.memory_used),
            memory_total: sum(|summary| summary.memory_total),
            disk_used: sum(|summary| summary.disk_used),
            disk_size: sum(|summary| summary.disk_size),
            top_cpu: top(|summary| Some(UsageShare { percent: summary.cpu?, mount: None })),
            top_memory: top(|summary| Some(UsageShare { percent: summary.memory?, mount: None })),
            top_disk: top(|summary| {
                let disk = summary.disk.as_ref()?;
                Some(UsageShare { percent: disk.percent, mount: Some(&disk.mount) })
            }),
        }
    }
}

/// Cache key of a summary. It contains a hash of address, user and jump host: after a change of the
/// address, the values of the former host are not shown.
fn cache_key(id: Uuid, server: &Server) -> String {
    let address = String::from_utf8_lossy(&endpoint_bytes(id, server)).into_owned();
    format!("latest:{id}:{}", &HEXLOWER.encode(&hash_secret(&address))[..16])
}

/// Cached summaries of servers and their totals.
pub struct ServerSummaries {
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
}

impl ServerSummaries {
    pub(crate) fn new(cache: Arc<Cache>, clock: Arc<dyn Clock>) -> Self {
        Self { cache, clock }
    }

    /// Caches the summary of a collection.
    pub(crate) async fn put(&self, id: Uuid, server: &Server, summary: &ServerSummary) {
        let interval = Duration::from_millis(u64::try_from(server.interval.ms()).unwrap_or_default());
        self.cache.put(&cache_key(id, server), summary, SUMMARY_TTL.max(interval * 2)).await;
    }

    /// Returns the summaries in the order of the servers; `None` without a recent collection.
    pub async fn get_many(&self, servers: &[(Uuid, Server)]) -> Vec<Option<ServerSummary>> {
        let keys: Vec<String> = servers.iter().map(|(id, server)| cache_key(*id, server)).collect();
        self.cache.get(&keys).await
    }

    /// Returns the totals of servers. The scope identifies the set of servers in the cache.
    pub async fn totals(&self, scope: &str, servers: &[(Uuid, Server)]) -> FleetTotals {
        let key = format!("summary:{scope}");
        let cached = self.cache.get(std::slice::from_ref(&key)).await.pop().flatten();
        if let Some(totals) = cached {
            return totals;
        }
        let summaries = self.get_many(servers).await;
        let names: Vec<(Uuid, String)> =
            servers.iter().map(|(id, server)| (*id, server.name.clone())).collect();
        let totals = FleetTotals::from_summaries(self.clock.wall_ms(), &names, &summaries);
        self.cache.put(&key, &totals, TOTALS_TTL).await;
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Column, Shape};

    fn snapshot(columns: &[(&'static str, &'static str, i64)]) -> Snapshot {
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
        let summary = ServerSummary::from_snapshot(&snapshot(&[
            ("cpu.usage", "", 31),
            ("filesystem.size", "/", 100),
            ("filesystem.size", "/snap/core/1", 100),
            ("filesystem.size", "/srv", 50),
            ("filesystem.used_percent", "/", 40),
            ("filesystem.used_percent", "/snap/core/1", 100),
            ("filesystem.used_percent", "/srv", 90),
        ]));
        assert_eq!((summary.cpu, summary.memory, summary.at_ms), (Some(31.0), None, 5));
        assert_eq!(summary.disk, Some(FullestFilesystem { mount: "/srv".to_owned(), percent: 90.0 }));
        assert_eq!((summary.disk_size, summary.disk_used), (Some(150.0), None));
    }

    #[test]
    fn totals_of_all_servers() {
        let servers: Vec<(Uuid, String)> =
            (0..5).map(|number| (Uuid::from_u128(number), format!("s{number}"))).collect();
        let summary = |cpu| {
            let columns = [("cpu.usage", "", cpu), ("memory.used", "", 10)];
            Some(ServerSummary::from_snapshot(&snapshot(&columns)))
        };
        let summaries = [summary(10), None, summary(90), summary(20), summary(30)];
        let totals = FleetTotals::from_summaries(7, &servers, &summaries);
        assert_eq!((totals.servers, totals.cpu, totals.memory_used), (4, Some(37.5), 40.0));
        let busiest: Vec<&str> = totals.top_cpu.iter().map(|top| top.name.as_str()).collect();
        assert_eq!(busiest, ["s2", "s4", "s3"]);
        assert_eq!((totals.top_disk.len(), totals.disk_size.to_string().as_str()), (0, "0"));
        assert_eq!(FleetTotals::from_summaries(7, &[], &[]).cpu, None);
    }
}
