//! Waiting for the end: Ctrl-C or SIGTERM ends in order, a second one at once.

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Listens from now on.
pub(crate) struct Shutdown(Signals);

impl Shutdown {
    /// Must be made before threads that could be asked to stop.
    pub(crate) fn install() -> anyhow::Result<Self> {
        Ok(Self(Signals::new([SIGINT, SIGTERM]).context("signals")?))
    }

    /// Sets the flag when it is time to leave, for work that looks at it.
    #[cfg(feature = "hub")]
    pub(crate) fn set_flag(self, flag: &std::sync::Arc<std::sync::atomic::AtomicBool>) {
        let flag = flag.clone();
        std::thread::spawn(move || {
            self.wait();
            flag.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    /// Ends the wait as a signal would.
    pub(crate) fn trigger(&self) -> impl FnOnce() + Send + use<> {
        let handle = self.0.handle();
        move || handle.close()
    }

    /// Returns when it is time to leave.
    pub(crate) fn wait(mut self) {
        if let Some(signal) = self.0.forever().next() {
            tracing::info!(
                signal = signal_hook::low_level::signal_name(signal),
                "signal received; shutting down"
            );
        }
        std::thread::spawn(move || {
            if self.0.forever().next().is_some() {
                std::process::exit(130);
            }
        });
    }
}
