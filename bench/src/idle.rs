//! Hub, dashboard and agent of a single machine in one process, without viewers: CPU usage and resident memory.

use crate::hub_process;
use crate::process::Running;
use crate::store::Scratch;
use crate::tiny::shorten;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Time after which the startup is over and the allocator has returned its memory.
const SETTLE_TIME: Duration = Duration::from_secs(30);

/// Measures a program, such as the program of a release; the default is in the folder of the benchmark.
pub(crate) fn run(seconds: u64, program: Option<&str>) -> anyhow::Result<()> {
    let program = match program {
        Some(program) => PathBuf::from(program),
        None => hub_process::program()?,
    };
    let scratch = Scratch::new("idle")?;
    println!("{} without a command, {seconds} s at each interval:", program.display());
    for interval in ["2s", "1s"] {
        let mut command = Command::new(&program);
        command.env("PERFWATCH_DATA", scratch.0.join(interval));
        let mut process = Running::start(
            command.env("PERFWATCH_HUB_LISTEN", "127.0.0.1:0").env("PERFWATCH_AGENT_INTERVAL", interval),
        )?;
        std::thread::sleep(shorten(SETTLE_TIME));
        let before = process.cpu_seconds()?;
        std::thread::sleep(Duration::from_secs(seconds));
        let cpu_percent =
            (process.cpu_seconds()? - before) / Duration::from_secs(seconds).as_secs_f64() * 100.0;
        if let Some(status) = process.0.try_wait()? {
            anyhow::bail!("{} ended: {status}", program.display());
        }
        println!("  {interval}: {cpu_percent:.2} % of a core, {:.1} MB resident", process.resident_mb()?);
    }
    Ok(())
}
