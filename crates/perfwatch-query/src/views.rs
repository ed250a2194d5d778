//! Saved views: access, validation and changes. Views are stored with their audit entries.

use crate::engine::QueryDeps;
use crate::request::QuerySet;
use perfwatch_auth::{Actor, AuthDirectory, AuthError, Identity};
use perfwatch_http::{ApiError, params};
use perfwatch_live::host_registry::HostRegistry;
use perfwatch_model::{Clock, limit_table, limits, time_expression};
use perfwatch_store::accounts::Role;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::saved_views::SavedView;
use perfwatch_store::{CommitError, Store, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Maximum size of the queries and the chart of a view as JSON.
const MAX_BODY_BYTES: usize = 16 << 10;

/// Division of the series into charts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChartSplit {
    /// All series of a unit in a chart.
    Overlay,
    /// A chart for each query and metric.
    #[default]
    Metric,
    /// A chart for each host.
    Host,
}

/// Form of the charts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChartForm {
    /// A line for each series.
    #[default]
    Line,
    /// Areas on top of each other.
    Stack,
    /// A row of colored cells for each series.
    HeatMap,
}

/// Charts and time range of a view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewChart {
    /// Division of the series into charts.
    #[serde(default)]
    pub split: ChartSplit,
    /// Form of the charts.
    #[serde(default)]
    pub form: ChartForm,
    /// Start of the range, such as `-6h`; default: one hour before `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// End of the range; default: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Queries and charts of a view, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ViewBody {
    query: QuerySet,
    chart: ViewChart,
}

/// Content of a saved view.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewRequest {
    /// Name of the view, unique among your views; 1 to 100 bytes.
    pub name: String,
    /// Visible to all users; requires the role operator.
    #[serde(default)]
    pub shared: bool,
    /// Queries and formulas of the view.
    pub query: QuerySet,
    /// Charts and time range of the view.
    #[serde(default)]
    pub chart: ViewChart,
    /// `updated_ms` of the view that the change was decided on; required to replace a view.
    pub updated_ms: Option<i64>,
}

/// Saved view.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewResponse {
    id: Uuid,
    name: String,
    /// Name of the account that created the view.
    owner: String,
    /// Visible to all users.
    shared: bool,
    /// Whether the caller may change and delete the view.
    editable: bool,
    query: QuerySet,
    chart: ViewChart,
    updated_ms: i64,
}

/// Saved views of the caller and shared views, by name.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewListResponse {
    views: Vec<ViewResponse>,
}

/// Values of a view in the audit log.
#[derive(Serialize)]
struct AuditedView<'a> {
    name: &'a str,
    shared: bool,
    #[serde(flatten)]
    body: ViewBody,
}

/// Saved views of all accounts.
pub struct SavedViews {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    directory: Arc<AuthDirectory>,
    hosts: Arc<HostRegistry>,
}

impl SavedViews {
    /// Views in the database of these services.
    pub fn new(deps: &QueryDeps) -> Self {
        let QueryDeps { store, clock, directory, hosts, .. } = deps.clone();
        Self { store, clock, directory, hosts }
    }

    /// Views of the caller and shared views that the caller may see.
    ///
    /// # Errors
    /// Returns `store_unavailable` if the database cannot be read.
    pub async fn list(&self, identity: &Identity) -> Result<ViewListResponse, ApiError> {
        let views = SavedView::list(&*self.store, account(identity)?).await?;
        let scope = self.scope(identity);
        let visible = views.iter().filter_map(|view| self.to_response(identity, scope.as_ref(), view));
        Ok(ViewListResponse { views: visible.collect() })
    }

    /// View with an id.
    ///
    /// # Errors
    /// Returns `not_found` if the view does not exist or is not visible to the caller.
    pub async fn get(&self, identity: &Identity, id: &str) -> Result<ViewResponse, ApiError> {
        self.find(identity, id).await.map(|(_, view)| view)
    }

    /// Stores a new view of the caller.
    ///
    /// # Errors
    /// Returns `name_taken`, `too_many_views`, `forbidden` for a shared view of a viewer, and the reason for
    /// which the content is invalid.
    pub async fn create(&self, actor: &Actor, request: ViewRequest) -> Result<ViewResponse, ApiError> {
        let (owner, now_ms) = (account(&actor.identity)?, self.clock.wall_ms());
        let view = to_view(&actor.identity, (Uuid::now_v7(), owner), request, now_ms)?;
        let views = SavedView::list(&*self.store, owner).await?;
        if views.iter().filter(|view| view.owner == owner).count() >= limits::MAX_VIEWS_PER_ACCOUNT {
            limit_table::SAVED_VIEWS.refuse();
            let message =
                format!("at most {} views are allowed; delete one first", limits::MAX_VIEWS_PER_ACCOUNT);
            return Err(ApiError::conflict("too_many_views", message));
        }
        check_name(&views, &view)?;
        let tx = Transaction::build(|tx| tx.saved_views().insert(&view));
        self.commit(actor, tx, audit(actor, "create", (None, Some(&view)))).await?;
        self.get(&actor.identity, &view.id.to_string()).await
    }

    /// Replaces a view of the caller, or as an administrator a shared view.
    ///
    /// # Errors
    /// As [`Self::create`], `not_found`, and `conflict` unless `updated_ms` is current.
    pub async fn replace(
        &self,
        actor: &Actor,
        id: &str,
        request: ViewRequest,
    ) -> Result<ViewResponse, ApiError> {
        let before = self.find_editable(actor, id).await?;
        let base_ms = request.updated_ms.ok_or_else(|| {
            ApiError::unprocessable("invalid_view", "updated_ms: required to replace a view")
        })?;
        let updated_ms = self.clock.wall_ms().max(base_ms.saturating_add(1));
        let view = to_view(&actor.identity, (before.id, before.owner), request, updated_ms)?;
        if base_ms != before.updated_ms {
            return Err(CommitError::Conflict.into());
        }
        check_name(&SavedView::list(&*self.store, before.owner).await?, &view)?;
        let tx = Transaction::build(|tx| tx.saved_views().update(&view, base_ms));
        self.commit(actor, tx, audit(actor, "update", (Some(&before), Some(&view)))).await?;
        self.get(&actor.identity, id).await
    }

    /// Deletes a view of the caller, or as an administrator a shared view.
    ///
    /// # Errors
    /// Returns `not_found`, or `forbidden` for a shared view of another account.
    pub async fn delete(&self, actor: &Actor, id: &str) -> Result<(), ApiError> {
        let view = self.find_editable(actor, id).await?;
        let tx = Transaction::build(|tx| tx.saved_views().delete(view.id));
        self.commit(actor, tx, audit(actor, "delete", (Some(&view), None))).await
    }

    async fn commit(&self, actor: &Actor, mut tx: Transaction, entry: AuditEntry) -> Result<(), ApiError> {
        tx.audit().insert(&AuditEntry { at_ms: self.clock.wall_ms(), ..entry });
        actor.recheck()?;
        Ok(self.store.commit(tx).await?)
    }

    async fn find(&self, identity: &Identity, id: &str) -> Result<(SavedView, ViewResponse), ApiError> {
        let not_found = || ApiError::not_found("view not found");
        let id: Uuid = id.parse().map_err(|_| not_found())?;
        let view = SavedView::get(&*self.store, id).await?.ok_or_else(not_found)?;
        let response = self.to_response(identity, self.scope(identity).as_ref(), &view);
        let response = response.ok_or_else(not_found)?;
        Ok((view, response))
    }

    async fn find_editable(&self, actor: &Actor, id: &str) -> Result<SavedView, ApiError> {
        let (view, response) = self.find(&actor.identity, id).await?;
        if !response.editable {
            let message = "only its owner or an administrator may change a shared view".to_owned();
            return Err(AuthError::Forbidden(message).into());
        }
        Ok(view)
    }

    /// Names, ids and tags of the hosts that a limited caller may view; `None` for all hosts.
    fn scope(&self, identity: &Identity) -> Option<HashSet<String>> {
        if identity.host_tags.is_empty() {
            return None;
        }
        let auth_snapshot = self.directory.snapshot();
        let visible = self.hosts.list().into_iter();
        let visible = visible.filter(|host| identity.can_view(&auth_snapshot, host.record.id));
        let names = visible.flat_map(|host| {
            let tags = auth_snapshot.host_tags(host.record.id).to_vec();
            [host.record.id.to_string(), host.record.name].into_iter().chain(tags)
        });
        Some(names.chain(identity.host_tags.clone()).collect())
    }

    /// Response of a view that the caller may see. A view names hosts and tags: limited callers see the shared
    /// views of others only if they may view all of them.
    fn to_response(
        &self,
        identity: &Identity,
        scope: Option<&HashSet<String>>,
        view: &SavedView,
    ) -> Option<ViewResponse> {
        let ViewBody { query, chart } = parse_body(view)?;
        let is_own = identity.account_id() == Some(view.owner);
        let selectors = query.queries.iter().map(|query| &query.hosts);
        let mut names =
            selectors.flat_map(|hosts| hosts.hosts.iter().chain(&hosts.tags).chain(&hosts.exclude_tags));
        let is_visible =
            is_own || view.shared && scope.is_none_or(|scope| names.all(|name| scope.contains(name)));
        if !is_visible {
            return None;
        }
        let auth_snapshot = self.directory.snapshot();
        let is_admin = identity.role == Some(Role::Admin) && identity.host_tags.is_empty();
        Some(ViewResponse {
            id: view.id,
            name: view.name.clone(),
            owner: auth_snapshot
                .accounts
                .get(&view.owner)
                .map(|owner| owner.name.clone())
                .unwrap_or_default(),
            shared: view.shared,
            editable: is_own || is_admin,
            query,
            chart,
            updated_ms: view.updated_ms,
        })
    }
}

/// Account of a user or of a token.
fn account(identity: &Identity) -> Result<Uuid, AuthError> {
    identity.account_id().ok_or(AuthError::Unauthenticated)
}

/// Content of a stored view; `None` if a newer hub stored content that this version does not know.
fn parse_body(view: &SavedView) -> Option<ViewBody> {
    let body = serde_json::from_str(&view.body);
    body.inspect_err(|error| tracing::warn!(%error, view = %view.id, "stored view is unreadable")).ok()
}

/// Validates the content of a view.
fn to_view(
    identity: &Identity,
    (id, owner): (Uuid, Uuid),
    request: ViewRequest,
    updated_ms: i64,
) -> Result<SavedView, ApiError> {
    let invalid = |message: String| ApiError::unprocessable("invalid_view", message);
    if request.shared && identity.role < Some(Role::Operator) {
        return Err(
            AuthError::Forbidden("role operator or higher required to share a view".to_owned()).into()
        );
    }
    let name = params::validate_label(&request.name)?;
    request.query.validate()?;
    for (field, time) in [("chart.from", &request.chart.from), ("chart.to", &request.chart.to)] {
        if time.as_ref().is_some_and(|time| time_expression::parse(time, updated_ms).is_none()) {
            return Err(invalid(format!("{field}: expected {}", time_expression::EXPECTED)));
        }
    }
    let body = ViewBody { query: request.query, chart: request.chart };
    let body = serde_json::to_string(&body).unwrap_or_default();
    if body.len() > MAX_BODY_BYTES {
        return Err(invalid(format!("query: must have at most {MAX_BODY_BYTES} bytes as JSON")));
    }
    Ok(SavedView { id, owner, name, shared: request.shared, body, updated_ms })
}

/// Checks that the owner has no other view of the name. Concurrent changes are found by the unique key.
fn check_name(views: &[SavedView], view: &SavedView) -> Result<(), ApiError> {
    let is_taken =
        |other: &SavedView| other.owner == view.owner && other.name == view.name && other.id != view.id;
    match views.iter().any(is_taken) {
        true => Err(ApiError::conflict("name_taken", "name: a view of this name exists")),
        false => Ok(()),
    }
}

fn audit(
    actor: &Actor,
    action: &str,
    (before, after): (Option<&SavedView>, Option<&SavedView>),
) -> AuditEntry {
    fn audited(view: &SavedView) -> Option<AuditedView<'_>> {
        Some(AuditedView { name: &view.name, shared: view.shared, body: parse_body(view)? })
    }
    let name = after.or(before).map_or("", |view| &view.name);
    let object = format!("view {name}");
    let (before, after) = (before.and_then(audited), after.and_then(audited));
    actor.audit_change(&format!("view.{action}"), object, before.as_ref(), after.as_ref())
}
