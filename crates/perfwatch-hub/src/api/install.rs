//! `/install.sh` and `/download/{file}`: an agent's program comes from its hub, so that machines
//! without internet get one, and of the hub's own version.

use crate::app::App;
use crate::config::BaseUrl;
use crate::error::ApiError;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use perfwatch_auth::secret;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::io::ReaderStream;

const SCRIPT: &str = include_str!("install.sh");

/// The hub's address where it can stand in a shell script: it came from a header.
fn shell_safe(site: &BaseUrl) -> Result<&str, ApiError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._:/[]".contains(c);
    if site.0.chars().all(fine) {
        return Ok(&site.0);
    }
    Err(ApiError::bad_request("invalid_host_header", "invalid Host header"))
}

/// The line to paste into a shell.
pub(super) fn command(site: &BaseUrl, token: &str) -> Result<String, ApiError> {
    Ok(format!("curl -fsSL {}/install.sh | sudo sh -s -- {token}", shell_safe(site)?))
}

/// Agent install script
#[utoipa::path(get, path = "/install.sh", tag = "agents",
    responses((status = 200, body = String, content_type = "text/x-shellscript")))]
pub(crate) async fn script(Extension(site): Extension<BaseUrl>) -> Result<Response, ApiError> {
    let text = SCRIPT.replace("@SITE@", shell_safe(&site)?);
    let kind = (header::CONTENT_TYPE, "text/x-shellscript; charset=utf-8");
    Ok(([kind, (header::CACHE_CONTROL, "no-store")], text).into_response())
}

/// The program of an agent: `agent-linux-` and an architecture as `uname -m` names it
///
/// Asks for `Authorization: Bearer` with an enrolment token that is still good.
#[utoipa::path(get, path = "/download/{file}", tag = "agents", params(("file" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 401)))]
pub(crate) async fn download(
    State(app): State<Arc<App>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let now = app.directory.snapshot();
    let good = now.enrollment_tokens.get(&secret::hash_secret(token.trim()));
    if !good.is_some_and(|one| one.uses_left > 0 && one.expires_ms > app.clock.wall_ms()) {
        let message = "a valid enrollment token is required: Authorization: Bearer TOKEN";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_enrollment_token", message));
    }
    let arch = file.strip_prefix("agent-linux-").unwrap_or_default();
    let path = program(&app, arch).ok_or_else(|| {
        ApiError::not_found(format!(
            "no agent binary for {arch:?}; place one in {} as perfwatch-agent-{arch}",
            app.config.downloads.display()
        ))
    })?;
    let gone = |error: std::io::Error| ApiError::not_found(format!("{}: {error}", path.display()));
    let file = tokio::fs::File::open(&path).await.map_err(gone)?;
    let size = file.metadata().await.map_err(gone)?.len();
    let kind = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((kind, Body::from_stream(ReaderStream::new(file))).into_response())
}

/// What was put there for it; else the small one beside ours, or ours itself, where it runs there.
fn program(app: &App, arch: &str) -> Option<PathBuf> {
    if arch.is_empty() || !arch.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let put = app.config.downloads.join(format!("perfwatch-agent-{arch}"));
    if put.is_file() {
        return Some(put);
    }
    let own = PathBuf::from("/proc/self/exe");
    let beside = std::fs::read_link(&own).ok().map(|path| path.with_file_name("perfwatch-agent"));
    (arch == std::env::consts::ARCH).then(|| beside.filter(|path| path.is_file()).unwrap_or(own))
}
