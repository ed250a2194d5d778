//! `perfwatch capture`: records everything the collectors read.

use crate::config::Settings;
use crate::stdout::write_stdout;
use anyhow::Context as _;
use perfwatch_collect::{CollectorCache, CollectorOptions, CollectorSet, RecordingSource, read_all};
use perfwatch_model::SystemClock;
use std::path::Path;

/// Runs all collectors once and writes their input to the file or to standard output.
pub(crate) fn capture(settings: &Settings, file: Option<&Path>) -> anyhow::Result<()> {
    let source = settings.local_source();
    let clock = SystemClock::new();
    let recorder = RecordingSource::new(&source);
    // All processes in detail, so that every process can be analyzed from the capture.
    let options = CollectorOptions { top_processes: usize::MAX, ..settings.collector_options() };
    let set = CollectorSet::new(&settings.agent.collectors.disabled, options);
    let reading = read_all(&recorder, &set, &mut CollectorCache::default(), &clock);
    let monotonic_ms = i64::try_from(reading.monotonic.as_millis()).unwrap_or(i64::MAX);
    let text = recorder.finish(reading.wall_ms, monotonic_ms).to_text();
    match file {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string()),
        None => write_stdout(&text),
    }
}
