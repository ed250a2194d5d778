//! Access of the configuration, so that an installation needs no step in between: the first administrator, and an
//! enrollment token for agents that are installed together with the hub.

use crate::config::{HubConfig, HubConfigError, InitialAdmin};
use crate::services::HubError;
use perfwatch_auth::{AuthDirectory, secret};
use perfwatch_model::limits::MAX_HOSTS;
use perfwatch_store::accounts::Role;
use perfwatch_store::agents::EnrollmentToken;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::{CommitError, Transaction};
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// Actor of the audit log.
const ACTOR: &str = "configuration";
/// Lifetime of the configured enrollment token.
const ENROLLMENT_TOKEN_TTL_MS: i64 = 366 * 86_400_000;

/// Creates what is configured and does not exist.
pub(crate) async fn create(
    directory: &Arc<AuthDirectory>,
    config: &HubConfig,
    now_ms: i64,
) -> Result<(), HubError> {
    if let Some(admin) = &config.initial_admin {
        create_admin(directory, admin).await?;
    }
    match &config.enrollment_token {
        Some(secret) => create_enrollment_token(directory, secret.expose_secret(), now_ms).await,
        None => Ok(()),
    }
}

/// Creates the configured administrator if no administrator exists.
async fn create_admin(directory: &Arc<AuthDirectory>, admin: &InitialAdmin) -> Result<(), HubError> {
    if directory.snapshot().has_admin_except(None) {
        return Ok(());
    }
    let invalid = |message: String| HubConfigError { key: "admin", message };
    let account = directory.new_account(&admin.name, Role::Admin, admin.password.clone()).await;
    let account = account.map_err(|error| invalid(error.to_string()))?;
    let entry = AuditEntry {
        actor: ACTOR.to_owned(),
        action: "user.create".to_owned(),
        object: format!("user {}", account.name),
        ..AuditEntry::default()
    };
    let tx = Transaction::build(|tx| tx.accounts().insert(&account));
    match directory.begin_unattended_write().await?.commit(tx, Some(entry)).await {
        Ok(()) => Ok(()),
        // Another hub with the same configuration created the account.
        Err(CommitError::Conflict) if directory.snapshot().has_admin_except(None) => Ok(()),
        Err(CommitError::Conflict) => {
            Err(invalid(format!("user name {:?} is already taken", account.name)).into())
        }
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

/// Creates the configured enrollment token unless it exists.
async fn create_enrollment_token(
    directory: &Arc<AuthDirectory>,
    text: &str,
    now_ms: i64,
) -> Result<(), HubError> {
    let hash = secret::hash_secret(text);
    let exists = || directory.snapshot().enrollment_tokens.contains_key(&hash);
    if exists() {
        return Ok(());
    }
    if !secret::has_prefix(secret::SecretKind::EnrollmentToken, text) {
        let message = "expected pwe_ and 64 hexadecimal digits".to_owned();
        return Err(HubConfigError { key: "enrollment_token", message }.into());
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    let token = EnrollmentToken {
        // Hubs that start at the same time create one token.
        id: uuid::Builder::from_random_bytes(id).into_uuid(),
        hash,
        name: ACTOR.to_owned(),
        tags: Vec::new(),
        uses_left: MAX_HOSTS as i64,
        created_by: ACTOR.to_owned(),
        created_by_token: None,
        created_ms: now_ms,
        expires_ms: now_ms + ENROLLMENT_TOKEN_TTL_MS,
        host: None,
    };
    let entry = AuditEntry {
        actor: ACTOR.to_owned(),
        action: "enrollment_token.create".to_owned(),
        object: format!("enrollment token {}", token.name),
        ..AuditEntry::default()
    };
    let tx = Transaction::build(|tx| tx.enrollment_tokens().insert(&token));
    match directory.begin_unattended_write().await?.commit(tx, Some(entry)).await {
        Ok(()) => Ok(()),
        Err(CommitError::Conflict) if exists() => Ok(()),
        Err(CommitError::Conflict) => {
            let message = "an enrollment token with this id exists".to_owned();
            Err(HubConfigError { key: "enrollment_token", message }.into())
        }
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}
