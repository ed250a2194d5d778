//! Competitors that receive the same series in the same run: VictoriaMetrics and Prometheus from
//! Debian packages, over the Prometheus remote-write protocol 1.0, in batches of equal size. They
//! receive no process rows.

use crate::fleet::{self, SendReport};
use crate::process::{Running, percentiles};
use crate::store::Scratch;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_model::{Catalog, Clock, Snapshot, unscale};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Start command and endpoints of a competitor.
pub(crate) struct Competitor {
    pub(crate) name: &'static str,
    program: &'static str,
    /// Arguments for a data directory and a listen address.
    arguments: fn(&Path, &str) -> Vec<String>,
    write: &'static str,
    ready: &'static str,
    /// Durability of an acknowledged write.
    acked: &'static str,
    /// Flushes the data to disk and prints its size.
    print_size: fn(&str, &Path, u64) -> anyhow::Result<()>,
}

pub(crate) const COMPETITORS: [Competitor; 2] = [
    Competitor {
        name: "VictoriaMetrics",
        program: "victoria-metrics",
        arguments: |folder, address| {
            vec![format!("-storageDataPath={}", folder.display()), format!("-httpListenAddr={address}")]
        },
        write: "/api/v1/write",
        ready: "/health",
        acked: "acknowledged when in memory, on disk seconds later",
        print_size: print_victoria_size,
    },
    Competitor {
        name: "Prometheus",
        program: "prometheus",
        arguments: |folder, address| {
            vec![
                format!("--config.file={}", folder.join("prometheus.yml").display()),
                format!("--storage.tsdb.path={}", folder.join("data").display()),
                format!("--web.listen-address={address}"),
                "--web.enable-remote-write-receiver".to_owned(),
                "--web.enable-admin-api".to_owned(),
            ]
        },
        write: "/api/v1/write",
        ready: "/-/ready",
        acked: "acknowledged when written to the log, not synced",
        print_size: print_prometheus_size,
    },
];

/// Sends the fleet to one competitor; prints a note if it is not installed.
pub(crate) fn measure(
    competitor: &Competitor,
    catalog: &Catalog,
    clock: &dyn Clock,
    start_ms: i64,
    seconds: u64,
) -> anyhow::Result<()> {
    let Some(program) = program(competitor.program) else {
        println!("{}: not installed; run scripts/ensure-competitors", competitor.name);
        return Ok(());
    };
    let scratch = Scratch::new(competitor.program)?;
    // Senders are not synchronized, so that samples arrive out of order by hours of simulated time.
    let config = "storage:\n  tsdb:\n    out_of_order_time_window: 12h\n";
    std::fs::write(scratch.0.join("prometheus.yml"), config)?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let url = format!("http://{address}");
    let running = Running::start(Command::new(program).args((competitor.arguments)(&scratch.0, &address)))?;
    let started = clock.monotonic();
    while get(&format!("{url}{}", competitor.ready)).is_err() {
        let waited = clock.monotonic().saturating_sub(started);
        anyhow::ensure!(waited < Duration::from_secs(60), "{} did not start", competitor.name);
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{}:", competitor.name);
    let write = format!("{url}{}", competitor.write);
    let report = fleet::feed(catalog, clock, start_ms, seconds, || {
        let http = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let write = write.clone();
        move |host: &SimHost, ticks: &[Snapshot]| {
            let body = snap::raw::Encoder::new().compress_vec(&write_request(host, ticks))?;
            let mut response = http
                .post(&write)
                .header("Content-Type", "application/x-protobuf")
                .header("Content-Encoding", "snappy")
                .header("X-Prometheus-Remote-Write-Version", "0.1.0")
                .send(&body[..])?;
            let mut text = String::new();
            response.body_mut().as_reader().read_to_string(&mut text)?;
            anyhow::ensure!(response.status().is_success(), "{} {text}", response.status());
            Ok(())
        }
    });
    report.print(competitor.acked);
    println!(
        "  {:.0} µs of CPU time per snapshot, {:.0} MB resident",
        running.cpu_seconds()? * 1e6 / report.snapshots as f64,
        running.resident_mb()?
    );
    (competitor.print_size)(&url, &scratch.0, report.samples)?;
    measure_query(&url, catalog, start_ms, &report, clock)
}

/// Returns the path of a program: installed, or unpacked by `scripts/ensure-competitors`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/competitors/usr/bin");
    [Path::new("/usr/bin"), &unpacked].iter().map(|folder| folder.join(name)).find(|path| path.exists())
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

fn series_name(metric: &str) -> String {
    metric.replace('.', "_")
}

/// Encodes the ticks of a host; the protocol requires sorted labels.
fn write_request(host: &SimHost, ticks: &[Snapshot]) -> Vec<u8> {
    let columns = host.shape().columns().iter().enumerate();
    let timeseries = columns.map(|(index, column)| {
        let label = |name: &str, value: String| Label { name: name.to_owned(), value };
        let mut labels =
            vec![label("__name__", series_name(&column.metric)), label("host", host.name.clone())];
        if !column.dimension.is_empty() {
            labels.push(label(&column.dimension, column.instance.to_string()));
        }
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        let samples = ticks.iter().filter_map(|tick| {
            let value = unscale(tick.values[index], column.decimals)?;
            Some(Sample { value, timestamp: tick.at_ms })
        });
        TimeSeries { labels, samples: samples.collect() }
    });
    prost::Message::encode_to_vec(&WriteRequest { timeseries: timeseries.collect() })
}

fn get(url: &str) -> anyhow::Result<String> {
    Ok(ureq::get(url).call()?.body_mut().read_to_string()?)
}

/// Returns the total size of the files below a directory.
pub(crate) fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_below(&entry.path()),
            // A database may delete a file during the walk.
            _ => entry.metadata().map_or(0, |data| data.len()),
        })
        .sum()
}

fn print_victoria_size(url: &str, folder: &Path, samples: u64) -> anyhow::Result<()> {
    get(&format!("{url}/internal/force_flush"))?;
    get(&format!("{url}/internal/force_merge"))?;
    let (mut previous, mut rounds) = (0, 0);
    loop {
        std::thread::sleep(Duration::from_secs(5));
        rounds += 1;
        let bytes = bytes_below(folder);
        if bytes == previous || rounds > 60 {
            println!(
                "  bytes per sample: {:.2} after merging, whole directory ({} MB)",
                bytes as f64 / samples as f64,
                bytes >> 20
            );
            return Ok(());
        }
        previous = bytes;
    }
}

fn print_prometheus_size(url: &str, folder: &Path, samples: u64) -> anyhow::Result<()> {
    let data = folder.join("data");
    let directory_bytes = bytes_below(&data);
    // A snapshot writes the head as blocks.
    ureq::post(format!("{url}/api/v1/admin/tsdb/snapshot"))
        .config()
        .timeout_global(Some(Duration::from_secs(600)))
        .build()
        .send_empty()
        .context("snapshot")?;
    println!(
        "  bytes per sample: {:.2} in blocks; {:.2} whole directory with its log ({} MB)",
        bytes_below(&data.join("snapshots")) as f64 / samples as f64,
        directory_bytes as f64 / samples as f64,
        directory_bytes >> 20
    );
    Ok(())
}

/// Measures the query that all systems support.
fn measure_query(
    url: &str,
    catalog: &Catalog,
    start_ms: i64,
    report: &SendReport,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let end_ms = start_ms + report.covered_ms;
    let http = ureq::Agent::new_with_defaults();
    let mut times = Vec::new();
    for number in 0..100 {
        let host = SimHost::new(catalog, 1, number % fleet::HOSTS);
        let started = clock.monotonic();
        let mut response = http
            .get(format!("{url}/api/v1/query_range"))
            .query("query", format!("{}{{host=\"{}\"}}", series_name("cpu.usage"), host.name))
            .query("start", ((end_ms - 3_600_000) / 1_000).to_string())
            .query("end", (end_ms / 1_000).to_string())
            .query("step", (fleet::INTERVAL_MS / 1_000).to_string())
            .call()?;
        let text = response.body_mut().read_to_string()?;
        anyhow::ensure!(text.contains("\"values\""), "empty response: {text}");
        times.push(clock.monotonic().saturating_sub(started).as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    let (p50, ..) = percentiles(times.clone());
    println!("  1 metric, 1 hour: p50 {p50:.1} ms, p95 {:.1} ms", times[95]);
    Ok(())
}
