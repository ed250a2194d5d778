//! Signals of the long-running commands. SIGINT and SIGTERM shut down: the first signal in order, the second
//! at once. SIGHUP reloads. SIGUSR1 and SIGUSR2, whose default action ends a process, are ignored. The
//! standard library ignores SIGPIPE.

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

/// Installed signal handlers.
pub(crate) struct Shutdown(Signals);

impl Shutdown {
    /// Installs the handlers. Must run before other threads start: a signal that arrives earlier
    /// ends the process.
    pub(crate) fn install() -> anyhow::Result<Self> {
        Ok(Self(Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]).context("signals")?))
    }

    /// Sets the flag at the first signal that shuts down, for loops that poll it.
    #[cfg(feature = "hub")]
    pub(crate) fn set_flag(self, flag: &std::sync::Arc<std::sync::atomic::AtomicBool>) {
        let flag = flag.clone();
        std::thread::spawn(move || {
            self.wait(|| {});
            flag.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    /// Returns a function that ends [`Self::wait`] without a signal.
    pub(crate) fn trigger(&self) -> impl FnOnce() + Send + use<> {
        let handle = self.0.handle();
        move || handle.close()
    }

    /// Blocks until the first signal that shuts down, or until [`Self::trigger`]. Calls `reload` at SIGHUP.
    pub(crate) fn wait(mut self, reload: impl Fn()) {
        for signal in self.0.forever() {
            match signal {
                SIGHUP => {
                    tracing::info!(signal = "SIGHUP", "signal received; reloading");
                    crate::reload::reload_log_level();
                    reload();
                }
                SIGINT | SIGTERM => {
                    tracing::info!(signal = signal_name(signal), "signal received; shutting down");
                    break;
                }
                _ => tracing::info!(signal = signal_name(signal), "signal ignored"),
            }
        }
        std::thread::spawn(move || {
            if self.0.forever().any(|signal| matches!(signal, SIGINT | SIGTERM)) {
                std::process::exit(130);
            }
        });
    }
}
