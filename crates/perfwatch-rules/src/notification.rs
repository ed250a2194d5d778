//! What is told, and the port through which it goes out.

use crate::incident::NotificationReason;
use crate::rule::Severity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// One alert of an incident, in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertSummary {
    /// The rule's name.
    pub rule: String,
    /// The host's name.
    pub host: String,
    /// Which instance; empty where there are none.
    pub instance: String,
    /// The metric, where it is about one.
    pub metric: String,
    /// How bad.
    pub severity: Severity,
    /// Whether it fires still.
    pub firing: bool,
    /// What is so: `cpu.usage 97.2 %, above 90 % for 10s`.
    pub summary: String,
    /// What to do.
    pub runbook: String,
    /// When it fired, RFC 3339.
    pub fired_at: String,
    /// When it ended.
    pub resolved_at: Option<String>,
    /// Largest first: `burner (pid 9, root) 99.8 %`.
    pub consumers: Vec<String>,
    /// Furthest first: `load.1m 0.3 → 4.1`.
    pub movers: Vec<String>,
    /// That instant on the host's page.
    pub url: String,
}

/// One message, as it was when it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// Its own number: whoever hears it twice knows it by this.
    pub id: Uuid,
    /// What happened.
    pub reason: NotificationReason,
    /// The incident; nil for a test.
    pub incident: Uuid,
    /// How bad.
    pub severity: Severity,
    /// In few words: `web-1: CPU is busy`.
    pub subject: String,
    /// When, RFC 3339.
    pub created_at: String,
    /// When the incident began.
    pub opened_at: String,
    /// Its page.
    pub url: String,
    /// Newest first.
    pub alerts: Vec<AlertSummary>,
    /// How many more there are.
    pub omitted_alerts: usize,
    /// What kept quiet until now, where this is a summary of it.
    pub digest: Vec<String>,
}

/// A message with its words chosen.
#[derive(Debug, Clone)]
pub struct RenderedNotification<'a> {
    /// What it says.
    pub notification: &'a Notification,
    /// In a line.
    pub title: String,
    /// The rest, lines of plain text.
    pub text: String,
}

/// A setting of a kind of channels.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelField {
    /// Its name in [`crate::channel::Channel::settings`].
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// Where to find it, or what it is for.
    pub help: &'static str,
    /// What one looks like.
    pub example: &'static str,
    /// It must be there.
    pub required: bool,
    /// It lets one in: never shown again.
    pub secret: bool,
    /// Lines of text.
    pub multiline: bool,
}

/// A kind of channels.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelKind {
    /// As it is written.
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// A program that follows each incident: messages are never summed up for it.
    pub tracks_incidents: bool,
    /// What it needs.
    pub fields: &'static [ChannelField],
}

/// Why it did not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It may later.
    #[error("{reason}")]
    Retry {
        /// For a person, without secrets.
        reason: String,
        /// When the other side wants to hear of it again.
        retry_after: Option<Duration>,
    },
    /// It never will as it is.
    #[error("{0}")]
    Permanent(String),
}

/// Settings of a channel by their names.
pub type ChannelSettings = BTreeMap<String, String>;

/// Who brings messages out. Calls block: a thread is theirs.
pub trait Notifier: Send + Sync {
    /// All kinds of channels.
    fn kinds(&self) -> &'static [ChannelKind];
    /// What is wrong with the settings of a channel: which, and why.
    fn validate(&self, kind: &str, settings: &ChannelSettings) -> Option<(String, String)>;
    /// A template with a message in it, or why that can't be.
    ///
    /// # Errors
    /// A template that is none, or takes too long.
    fn render(&self, template: &str, message: &Notification) -> Result<String, String>;
    /// Brings it out.
    ///
    /// # Errors
    /// Nobody there, or they don't want it.
    fn send(
        &self,
        kind: &str,
        settings: &ChannelSettings,
        letter: &RenderedNotification<'_>,
    ) -> Result<(), SendError>;
}

/// The kind of that name.
pub fn find_kind(notifier: &dyn Notifier, name: &str) -> Option<&'static ChannelKind> {
    notifier.kinds().iter().find(|kind| kind.name == name)
}
