//! Renders notifications and sends them through the [`Notifier`] port.

use crate::channel_secrets::ChannelSecrets;
use crate::state::AlertingState;
use perfwatch_rules::channel::Channel;
use perfwatch_rules::notification::{Delivery, Notification, Notifier, RenderedNotification, SendError};
use perfwatch_rules::render;
use perfwatch_workers::{WorkKind, WorkRequest, WorkerPool};
use std::sync::Arc;

/// Sends notifications to channels with encrypted settings.
pub(crate) struct NotificationSender {
    pub(crate) notifier: Arc<dyn Notifier>,
    pub(crate) secrets: Arc<ChannelSecrets>,
    /// Mail server of the hub.
    pub(crate) state: Arc<AlertingState>,
    pub(crate) workers: Arc<WorkerPool>,
}

/// Temporary failure without a delay that the receiver requested.
fn retry(reason: String) -> SendError {
    SendError::Transient { reason, retry_after: None }
}

fn render_notification(
    notifier: &dyn Notifier,
    channel: &Channel,
    notification: &Notification,
) -> (String, String) {
    let notification = &notifier.escape_values(&channel.kind, notification);
    let render_template = |template: &str, default: String| match template {
        "" => default,
        // A notification with the default text is better than none because of an invalid template.
        template => notifier.render(template, notification).unwrap_or(default),
    };
    let title = render_template(&channel.template.title, render::render_title(notification));
    let text = render_template(&channel.template.text, render::render_text(notification));
    // A title is a single line.
    (title.split_whitespace().collect::<Vec<_>>().join(" "), text)
}

/// Renders a notification in the worker pool.
fn render_in_pool(
    workers: &WorkerPool,
    notifier: &Arc<dyn Notifier>,
    channel: &Channel,
    notification: &Notification,
) -> Result<(String, String), SendError> {
    let principal = format!("channel {}", channel.id);
    let input_bytes = channel.template.title.len() + channel.template.text.len();
    let request = WorkRequest { kind: WorkKind::Template, principal: &principal, input_bytes };
    let values = (notifier.clone(), channel.clone(), notification.clone());
    match workers.run_blocking(request, move |_| render_notification(&*values.0, &values.1, &values.2)) {
        Ok(texts) => Ok(texts),
        Err(error) if error.is_retryable() => Err(retry(error.to_string())),
        // As for an invalid template.
        Err(_) => {
            let escaped = notifier.escape_values(&channel.kind, notification);
            Ok((render::render_title(&escaped), render::render_text(&escaped)))
        }
    }
}

impl NotificationSender {
    /// Renders and sends a notification on a thread for blocking calls; templates run in the worker pool.
    ///
    /// # Errors
    /// Returns [`SendError::Transient`] if the receiver is unavailable or the settings cannot be decrypted,
    /// [`SendError::Permanent`] if the receiver rejects the notification.
    pub(crate) async fn send(
        &self,
        channel: &Channel,
        notification: &Notification,
    ) -> Result<Delivery, SendError> {
        // The delivery is retried, because the missing key may be added.
        let state = self.state.snapshot();
        let channel = self.secrets.decrypt_completed(channel, &state.definitions);
        let channel = channel.map_err(|error| retry(format!("channel settings: {error}")))?;
        let (notifier, notification, workers) =
            (self.notifier.clone(), notification.clone(), self.workers.clone());
        let send = move || {
            let (title, text) = render_in_pool(&workers, &notifier, &channel, &notification)?;
            let rendered = RenderedNotification { notification: &notification, title, text };
            notifier.send(&channel.kind, &channel.settings, &rendered)
        };
        tokio::task::spawn_blocking(send).await.unwrap_or_else(|error| Err(retry(error.to_string())))
    }
}
