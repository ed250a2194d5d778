//! `/install.sh` and `/download/{file}`: agents are installed from the hub, so that hosts without internet
//! access get a binary of the hub's version.

use crate::app::App;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use perfwatch_auth::secret;
use perfwatch_http::public_address::BaseUrl;
use perfwatch_http::{ApiError, Client, install_script};
use std::sync::Arc;
use tokio_util::io::ReaderStream;

/// Agent install script
#[utoipa::path(
    get, path = "/install.sh", tag = "agents",
    responses((status = 200, body = String, content_type = "text/x-shellscript")),
)]
pub(crate) async fn script(
    State(app): State<Arc<App>>,
    Extension(base_url): Extension<BaseUrl>,
) -> Result<Response, ApiError> {
    let text = install_script::script(&base_url.0, &app.config.downloads).await?;
    let content_type = (header::CONTENT_TYPE, "text/x-shellscript; charset=utf-8");
    Ok(([content_type, (header::CACHE_CONTROL, "no-store")], text).into_response())
}

/// Download an agent binary
///
/// Requires `Authorization: Bearer` with a valid enrollment token.
#[utoipa::path(
    get, path = "/download/{file}", tag = "agents",
    params(("file" = String, Path, description = "`agent-linux-ARCH` with the architecture of `uname -m`")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 401),
        (status = 429),
    ),
)]
pub(crate) async fn download(
    State(app): State<Arc<App>>,
    Client(client): Client,
    Path(file): Path<String>,
    request_headers: HeaderMap,
) -> Result<Response, ApiError> {
    let bearer = request_headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let auth_snapshot = app.directory.snapshot();
    let token = auth_snapshot.enrollment_tokens.get(&secret::hash_secret(token.trim()));
    if !token.is_some_and(|token| token.uses_left > 0 && token.expires_ms > app.clock.wall_ms()) {
        app.accounts.login.record_failed_secret(&client, "agent.download_failed").await?;
        let message = "a valid enrollment token is required: Authorization: Bearer TOKEN";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_enrollment_token", message));
    }
    let arch = file.strip_prefix("agent-linux-").unwrap_or_default();
    let path = install_script::find_binary(&app.config.downloads, arch).ok_or_else(|| {
        ApiError::not_found(format!(
            "no agent binary for {arch:?}; place one in {} as perfwatch-agent-{arch}",
            app.config.downloads.display()
        ))
    })?;
    let missing = |error: std::io::Error| ApiError::not_found(format!("{}: {error}", path.display()));
    let file = tokio::fs::File::open(&path).await.map_err(missing)?;
    let size = file.metadata().await.map_err(missing)?.len();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}
