//! Notifications to the service manager, for units with `Type=notify` (sd_notify(3)). Without the environment
//! variable `NOTIFY_SOCKET` they have no effect.

use sd_notify::NotifyState;

/// Reports that the process serves.
pub(crate) fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the process shuts down.
pub(crate) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        // A unit of the type notify is stopped when its start times out.
        tracing::warn!(%error, "failed to notify the service manager");
    }
}
