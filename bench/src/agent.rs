//! Agent process compared with prometheus-node-exporter, scraped at the same interval on the same
//! machine in the same run.

use crate::competitors;
use crate::fleet::BenchHub;
use crate::process::{Running, spawn_sleepers};
use crate::store::Scratch;
use crate::tiny::shorten;
use anyhow::Context as _;
use perfwatch_model::{Clock, SystemClock};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const STARTUP_DELAY: Duration = Duration::from_secs(5);
const EXPORTER_ADDRESS: &str = "127.0.0.1:19100";

pub(crate) fn run(seconds: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let scratch = Scratch::new("agent")?;
    let hub = BenchHub::start(&runtime, scratch.sqlite(clock.clone())?, &clock, 10 << 30)?;
    let sleepers = spawn_sleepers(300)?;
    let program = std::env::current_exe()?.with_file_name("perfwatch-agent");
    println!(
        "{seconds} s each, with 300 additional processes; CPU time of the process in percent of one core"
    );
    for interval in [1, 2] {
        let folder = std::env::temp_dir().join(format!("perfwatch-bench-{}-{interval}", std::process::id()));
        let interval_text = format!("{interval}s");
        let agent_process = Running::start(
            Command::new(&program)
                .args(["--hub", &hub.url, "--interval", &interval_text, "--token", &hub.token])
                .env("PERFWATCH_DATA", &folder)
                // As in the unit of the service and in the image.
                .env("MALLOC_ARENA_MAX", "1"),
        )
        .with_context(|| format!("{}: not built; run make bench", program.display()))?;
        let exporter_process = if let Some(exporter) = competitors::program("prometheus-node-exporter") {
            Some(Running::start(
                Command::new(exporter).arg(format!("--web.listen-address={EXPORTER_ADDRESS}")),
            )?)
        } else {
            println!("prometheus-node-exporter is not installed; run scripts/ensure-competitors");
            None
        };
        let stop = Arc::new(AtomicBool::new(false));
        let scraped = Arc::new(AtomicU64::new(0));
        let scraper = {
            let (stop, scraped) = (stop.clone(), scraped.clone());
            let scrape = exporter_process.is_some();
            std::thread::spawn(move || {
                let http = ureq::agent();
                while scrape && !stop.load(Ordering::Relaxed) {
                    if let Ok(mut response) = http.get(format!("http://{EXPORTER_ADDRESS}/metrics")).call() {
                        scraped.store(
                            response.body_mut().read_to_string().map_or(0, |text| text.len() as u64),
                            Ordering::Relaxed,
                        );
                    }
                    std::thread::sleep(Duration::from_secs(interval));
                }
            })
        };
        // Excludes the startup from the measurement.
        std::thread::sleep(shorten(STARTUP_DELAY));
        let cpu = |process: &Running| process.cpu_seconds();
        let before = (cpu(&agent_process)?, exporter_process.as_ref().map(cpu).transpose()?);
        std::thread::sleep(Duration::from_secs(seconds));
        let share =
            |before: f64, after: f64| (after - before) / Duration::from_secs(seconds).as_secs_f64() * 100.0;
        println!(
            "every {interval} s: perfwatch-agent  {:.2} % of a core, {:.1} MB resident",
            share(before.0, cpu(&agent_process)?),
            agent_process.resident_mb()?
        );
        if let (Some(exporter_process), Some(before)) = (&exporter_process, before.1) {
            println!(
                "           node-exporter    {:.2} % of a core, {:.1} MB resident \
         ({} kB per scrape, without processes)",
                share(before, cpu(exporter_process)?),
                exporter_process.resident_mb()?,
                scraped.load(Ordering::Relaxed) / 1000
            );
        }
        stop.store(true, Ordering::Relaxed);
        let _ = scraper.join();
        drop(agent_process);
        let _ = std::fs::remove_dir_all(folder);
    }
    drop(sleepers);
    hub.stop();
    Ok(())
}
