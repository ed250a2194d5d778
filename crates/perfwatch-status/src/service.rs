//! Management of status pages. A page is access data: its changes are serialized with those of accounts, stored with
//! their audit entries, and take effect at once on every hub.

use crate::content::{self, StatusContent};
use crate::response::{
    RenewLinkRequest, StatusPageLink, StatusPageListResponse, StatusPageRequest, StatusPageResponse,
};
use crate::{StatusPages, StatusService};
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::secret::{self, SecretKind};
use perfwatch_auth::{Actor, AuthError, Identity};
use perfwatch_http::ApiError;
use perfwatch_model::{HostId, limit_table, limits};
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::status_pages::StatusPage;
use perfwatch_store::{CommitError, Transaction};
use uuid::Uuid;

impl StatusPages {
    /// Pages of which the caller may view all hosts.
    pub fn list(&self, identity: &Identity) -> StatusPageListResponse {
        let service = &self.0;
        let snapshot = service.deps.directory.snapshot();
        let visible = snapshot.status_pages.values();
        let mut pages: Vec<StatusPageResponse> =
            visible.filter_map(|page| service.visible(identity, &snapshot, page)).collect();
        pages.sort_by(|a, b| (&a.title, a.id).cmp(&(&b.title, b.id)));
        StatusPageListResponse { pages }
    }

    /// Creates a page and its link below `base_url`.
    ///
    /// # Errors
    /// Returns `too_many_status_pages`, and the reason for which the content is invalid.
    pub async fn create(
        &self,
        actor: &Actor,
        base_url: &str,
        request: StatusPageRequest,
    ) -> Result<StatusPageLink, ApiError> {
        let service = &self.0;
        let guard = service.deps.directory.begin_write(actor).await?;
        let snapshot = service.deps.directory.snapshot();
        let now_ms = service.deps.clock.wall_ms();
        let token = secret::generate(SecretKind::StatusPage);
        let page = StatusPage {
            id: Uuid::now_v7(),
            token_hash: secret::hash_secret(&token),
            created_ms: now_ms,
            updated_ms: now_ms,
            ..service.to_page(actor, &snapshot, request)?
        };
        check_limits(actor, &snapshot, page.owner)?;
        let response = service.to_response(&snapshot, &page);
        let entry = audit(actor, "create", (None, response.as_ref()));
        guard.commit(Transaction::build(|tx| tx.status_pages().insert(&page)), [entry]).await?;
        service.changed.notify_one();
        service.link(base_url, &token, response)
    }

    /// Replaces title, content, expiry and state of a page. The caller answers for the page from then on.
    ///
    /// # Errors
    /// As [`Self::create`], `not_found`, and `conflict` unless `updated_ms` is current.
    pub async fn replace(
        &self,
        actor: &Actor,
        id: &str,
        request: StatusPageRequest,
    ) -> Result<StatusPageResponse, ApiError> {
        let service = &self.0;
        let guard = service.deps.directory.begin_write(actor).await?;
        let snapshot = service.deps.directory.snapshot();
        let (before, before_response) = service.find(&actor.identity, &snapshot, id)?;
        let base_ms = request.updated_ms.ok_or_else(|| {
            ApiError::unprocessable("invalid_status_page", "updated_ms: required to replace a page")
        })?;
        if base_ms != before.updated_ms {
            return Err(CommitError::Conflict.into());
        }
        let page = StatusPage {
            id: before.id,
            token_hash: before.token_hash,
            created_ms: before.created_ms,
            updated_ms: service.next_update_ms(base_ms),
            ..service.to_page(actor, &snapshot, request)?
        };
        let response = service.to_response(&snapshot, &page);
        let entry = audit(actor, "update", (Some(&before_response), response.as_ref()));
        guard.commit(Transaction::build(|tx| tx.status_pages().update(&page, base_ms)), [entry]).await?;
        service.changed.notify_one();
        response.ok_or_else(not_found)
    }

    /// Replaces the link of a page; the previous link ends. The caller answers for the page from then on.
    ///
    /// # Errors
    /// Returns `not_found`, and the reason for which the expiry is invalid.
    pub async fn renew(
        &self,
        actor: &Actor,
        (base_url, id): (&str, &str),
        request: &RenewLinkRequest,
    ) -> Result<StatusPageLink, ApiError> {
        let service = &self.0;
        let guard = service.deps.directory.begin_write(actor).await?;
        let snapshot = service.deps.directory.snapshot();
        let (before, before_response) = service.find(&actor.identity, &snapshot, id)?;
        content::validate_expiry(request.expires_ms, service.deps.clock.wall_ms())?;
        let token = secret::generate(SecretKind::StatusPage);
        let (owner, owner_epoch) = owner(actor, &snapshot)?;
        let page = StatusPage {
            token_hash: secret::hash_secret(&token),
            enabled: true,
            expires_ms: limit_expiry(actor, &snapshot, request.expires_ms),
            owner,
            owner_epoch,
            owner_token: actor.identity.token_id(),
            updated_ms: service.next_update_ms(before.updated_ms),
            ..before.clone()
        };
        let response = service.to_response(&snapshot, &page);
        let entry = audit(actor, "renew_link", (Some(&before_response), response.as_ref()));
        let tx = Transaction::build(|tx| tx.status_pages().update(&page, before.updated_ms));
        guard.commit(tx, [entry]).await?;
        service.changed.notify_one();
        service.link(base_url, &token, response)
    }

    /// Deletes a page; its link ends.
    ///
    /// # Errors
    /// Returns `not_found`.
    pub async fn delete(&self, actor: &Actor, id: &str) -> Result<(), ApiError> {
        let service = &self.0;
        let guard = service.deps.directory.begin_write(actor).await?;
        let snapshot = service.deps.directory.snapshot();
        let (page, response) = service.find(&actor.identity, &snapshot, id)?;
        let entry = audit(actor, "delete", (Some(&response), None));
        guard.commit(Transaction::build(|tx| tx.status_pages().delete(page.id)), [entry]).await?;
        service.changed.notify_one();
        Ok(())
    }
}

impl StatusService {
    fn next_update_ms(&self, base_ms: i64) -> i64 {
        self.deps.clock.wall_ms().max(base_ms.saturating_add(1))
    }

    /// Validates a request. Id, token and times are those of a page that is to be created.
    fn to_page(
        &self,
        actor: &Actor,
        snapshot: &AuthSnapshot,
        request: StatusPageRequest,
    ) -> Result<StatusPage, ApiError> {
        let now_ms = self.deps.clock.wall_ms();
        content::validate_expiry(request.expires_ms, now_ms)?;
        let is_visible =
            |host: HostId| self.deps.hosts.contains(host) && actor.identity.can_view(snapshot, host);
        let content = request.content.validate(now_ms, is_visible)?;
        let (owner, owner_epoch) = owner(actor, snapshot)?;
        Ok(StatusPage {
            id: Uuid::nil(),
            token_hash: [0; 32],
            title: content::validate_title(&request.title)?,
            body: serde_json::to_string(&content).unwrap_or_default(),
            enabled: request.enabled,
            expires_ms: limit_expiry(actor, snapshot, request.expires_ms),
            owner,
            owner_epoch,
            owner_token: actor.identity.token_id(),
            created_ms: 0,
            updated_ms: 0,
        })
    }

    fn find(
        &self,
        identity: &Identity,
        snapshot: &AuthSnapshot,
        id: &str,
    ) -> Result<(StatusPage, StatusPageResponse), ApiError> {
        let page = snapshot.status_pages.values().find(|page| page.id.to_string() == id);
        let page = page.ok_or_else(not_found)?;
        let response = self.visible(identity, snapshot, page).ok_or_else(not_found)?;
        Ok((page.clone(), response))
    }

    /// Response of a page of which the caller may view all hosts.
    fn visible(
        &self,
        identity: &Identity,
        snapshot: &AuthSnapshot,
        page: &StatusPage,
    ) -> Option<StatusPageResponse> {
        let response = self.to_response(snapshot, page)?;
        let hosts: Vec<HostId> = response.content.hosts().map(|host| host.host).collect();
        let is_visible = identity.host_tags.is_empty()
            || !hosts.is_empty() && hosts.iter().all(|host| identity.can_view(snapshot, *host));
        is_visible.then_some(response)
    }

    /// Response without hosts that were deleted; `None` if the stored content is unreadable.
    fn to_response(&self, snapshot: &AuthSnapshot, page: &StatusPage) -> Option<StatusPageResponse> {
        let content = StatusContent::parse(page)?.retain_hosts(|host| self.deps.hosts.contains(host));
        let owner = snapshot.accounts.get(&page.owner);
        Some(StatusPageResponse {
            id: page.id,
            title: page.title.clone(),
            content,
            enabled: page.enabled,
            state: content::page_state(page, snapshot, self.deps.clock.wall_ms()),
            expires_ms: page.expires_ms,
            owner: owner.map(|owner| owner.name.clone()).unwrap_or_default(),
            created_ms: page.created_ms,
            updated_ms: page.updated_ms,
        })
    }

    fn link(
        &self,
        base_url: &str,
        token: &str,
        page: Option<StatusPageResponse>,
    ) -> Result<StatusPageLink, ApiError> {
        let page = page.ok_or_else(not_found)?;
        Ok(StatusPageLink { url: format!("{}/s/{token}", base_url.trim_end_matches('/')), page })
    }
}

fn not_found() -> ApiError {
    ApiError::not_found("status page not found")
}

/// Account that answers for a page, with its token epoch.
fn owner(actor: &Actor, snapshot: &AuthSnapshot) -> Result<(Uuid, i64), AuthError> {
    let account = actor.identity.account_id().and_then(|id| snapshot.enabled_account(id));
    account.map(|account| (account.id, account.token_epoch)).ok_or(AuthError::Unauthenticated)
}

/// Expiry of a link, which does not outlast the API token that creates it.
fn limit_expiry(actor: &Actor, snapshot: &AuthSnapshot, expires_ms: i64) -> i64 {
    let token = snapshot.tokens.values().find(|token| Some(token.id) == actor.identity.token_id());
    token.and_then(|token| token.expires_ms).map_or(expires_ms, |token_ms| token_ms.min(expires_ms))
}

fn check_limits(actor: &Actor, snapshot: &AuthSnapshot, owner: Uuid) -> Result<(), ApiError> {
    let too_many = |max: usize| {
        let message = format!("at most {max} status pages are allowed; delete one first");
        Err(ApiError::conflict("too_many_status_pages", message))
    };
    let own = snapshot.status_pages.values().filter(|page| page.owner == owner).count();
    if own >= limits::MAX_STATUS_PAGES_PER_ACCOUNT {
        limit_table::STATUS_PAGES_PER_ACCOUNT.refuse();
        return too_many(limits::MAX_STATUS_PAGES_PER_ACCOUNT);
    }
    let max = actor.identity.max_objects(limits::MAX_STATUS_PAGES);
    if snapshot.status_pages.len() >= max {
        limit_table::STATUS_PAGES.refuse();
        return too_many(max);
    }
    Ok(())
}

fn audit(
    actor: &Actor,
    action: &str,
    (before, after): (Option<&StatusPageResponse>, Option<&StatusPageResponse>),
) -> AuditEntry {
    let title = after.or(before).map_or("", |page| &page.title);
    let object = format!("status page {title}");
    actor.audit_change(&format!("status_page.{action}"), object, before, after)
}
