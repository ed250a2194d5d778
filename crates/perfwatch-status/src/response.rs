//! Requests and responses of `/api/v1/status-pages`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::announcement::{Announcement, AnnouncementState, AnnouncementUpdate};
pub use crate::content::{PageState, StatusContent, StatusGroup, StatusHost, StatusMetric};

/// Content of a status page to create or replace.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusPageRequest {
    /// Title of the page; 1 to 100 bytes.
    pub title: String,
    /// Groups of hosts and selected values.
    pub content: StatusContent,
    /// Time at which the link ends, within the next 366 days.
    pub expires_ms: i64,
    /// Cleared to switch the link off.
    #[serde(default = "perfwatch_model::default_true")]
    pub enabled: bool,
    /// `updated_ms` of the page that the change was decided on; required to replace a page.
    pub updated_ms: Option<i64>,
}

/// Expiry of a new link.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewLinkRequest {
    /// Time at which the new link ends, within the next 366 days.
    pub expires_ms: i64,
}

/// Status page without the token of its link.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusPageResponse {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) content: StatusContent,
    pub(crate) enabled: bool,
    pub(crate) state: PageState,
    pub(crate) expires_ms: i64,
    /// Account that created or last changed the page; empty if it was deleted.
    pub(crate) owner: String,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
}

/// Status page with its link, which is returned only here.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusPageLink {
    /// Address of the page for visitors, with its token.
    pub(crate) url: String,
    /// The status page.
    pub(crate) page: StatusPageResponse,
}

/// Status pages of which the caller may view all hosts, by title.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusPageListResponse {
    pub(crate) pages: Vec<StatusPageResponse>,
}
