//! Snapshots of this machine from collectors in this process, with the recent past in memory.

use perfwatch_agent::Sampler;
use perfwatch_collect::{CollectorOptions, CollectorSet, Source};
use perfwatch_model::Clock;
use perfwatch_terminal::{HostFrame, HostSource, RecentPast, Ribbon, SeekTarget};
use std::sync::Arc;
use std::time::Duration;

/// Source of this machine.
pub(super) struct LocalSource {
    sampler: Sampler,
    past: RecentPast,
    first_delay: Duration,
}

impl LocalSource {
    /// Starts the collectors.
    ///
    /// # Errors
    /// Fails if the collector threads cannot be started.
    pub(super) fn start(
        source: Arc<dyn Source>,
        disabled: &[String],
        options: CollectorOptions,
        first_delay: Duration,
        clock: &Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let set = CollectorSet::new(disabled, options);
        let sampler = Sampler::start(source, &set, clock)?;
        Ok(Self { sampler, past: RecentPast::default(), first_delay })
    }
}

impl HostSource for LocalSource {
    fn start_delay(&self) -> Duration {
        self.first_delay
    }

    fn poll(&mut self) -> Result<Option<HostFrame>, String> {
        let snapshot = Arc::new(self.sampler.sample());
        self.past.push(snapshot.clone());
        Ok(Some(HostFrame::from_snapshot(snapshot)))
    }

    fn seek(&mut self, target: SeekTarget) -> Result<Option<HostFrame>, String> {
        Ok(self.past.seek(target))
    }

    fn ribbon(&mut self, from_ms: i64, to_ms: i64) -> Result<Ribbon, String> {
        Ok(self.past.ribbon(from_ms, to_ms))
    }
}
