//! Shutdown on SIGINT or SIGTERM: the first signal shuts down in order, the second exits at once.

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Installed handlers of SIGINT and SIGTERM.
pub(crate) struct Shutdown(Signals);

impl Shutdown {
    /// Installs the handlers. Must run before other threads start: a signal that arrives earlier
    /// ends the process.
    pub(crate) fn install() -> anyhow::Result<Self> {
        Ok(Self(Signals::new([SIGINT, SIGTERM]).context("signals")?))
    }

    /// Sets the flag at the first signal, for loops that poll it.
    #[cfg(feature = "hub")]
    pub(crate) fn set_flag(self, flag: &std::sync::Arc<std::sync::atomic::AtomicBool>) {
        let flag = flag.clone();
        std::thread::spawn(move || {
            self.wait();
            flag.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    /// Returns a function that ends [`Self::wait`] without a signal.
    pub(crate) fn trigger(&self) -> impl FnOnce() + Send + use<> {
        let handle = self.0.handle();
        move || handle.close()
    }

    /// Blocks until the first signal or until [`Self::trigger`].
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
