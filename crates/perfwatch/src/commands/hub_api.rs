//! API of a hub for commands that read: address, token and requests.

use anyhow::{Context as _, bail};
use perfwatch_agent::{HubClient, HubResponse};
use perfwatch_capsule::limits::MAX_FILE_BYTES;
use perfwatch_model::printable::printable;
use perfwatch_terminal::hub_json::decode;
use std::path::PathBuf;
use std::time::Duration;

/// Environment variable of the API token.
const TOKEN_VARIABLE: &str = "PERFWATCH_API_TOKEN";

/// Timeout of a request for a capsule: the hub builds it for at most a minute, then it is transferred.
const CAPSULE_TIMEOUT: Duration = Duration::from_secs(180);

/// Hub of a command.
pub(crate) struct HubAddress {
    pub(crate) url: String,
    /// API token, or `file:PATH`; default: the environment.
    pub(crate) token: Option<String>,
    pub(crate) ca: Option<PathBuf>,
}

/// Client of a hub with a token.
pub(crate) struct HubApi {
    client: HubClient,
    token: String,
}

/// Failure of a request: HTTP status, zero without a response, and a message for the user.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RequestError {
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl HubApi {
    /// Reads the token and checks the URL and the certificates; sends nothing.
    ///
    /// # Errors
    /// Fails if the token is missing, or if the URL or a file is invalid.
    pub(crate) fn new(address: &HubAddress) -> anyhow::Result<Self> {
        let token = read_token(address.token.as_deref())?;
        // The settings of the agent have the same names as the flags.
        let client = HubClient::new(&address.url, address.ca.as_deref())
            .map_err(|error| anyhow::anyhow!("--{error}"))?;
        Ok(Self { client, token })
    }

    /// Sends a request. Messages name the hub and the reason.
    ///
    /// # Errors
    /// Fails if the hub cannot be reached or rejects the request.
    pub(crate) fn get(&self, path: &str) -> Result<String, RequestError> {
        let label = self.client.label();
        let response = self
            .client
            .get(path, Some(&self.token), None)
            .map_err(|error| RequestError { status: 0, message: format!("{label}: {error}") })?;
        if response.status == 200 { Ok(response.body) } else { Err(self.rejection(&response)) }
    }

    /// Requests a capsule.
    ///
    /// # Errors
    /// Fails as [`Self::get`].
    pub(crate) fn create_capsule(&self, request: &serde_json::Value) -> Result<Vec<u8>, RequestError> {
        let label = self.client.label();
        let body = request.to_string();
        let bounds = (CAPSULE_TIMEOUT, MAX_FILE_BYTES as u64 + 1);
        let response = self.client.post_for_file(("/api/v1/capsules", body.as_bytes()), &self.token, bounds);
        match response {
            Ok(Ok(file)) => Ok(file),
            Ok(Err(response)) => Err(self.rejection(&response)),
            Err(error) => Err(RequestError { status: 0, message: format!("{label}: {error}") }),
        }
    }

    fn rejection(&self, response: &HubResponse) -> RequestError {
        let detail = response.error("message");
        let detail = printable(&detail);
        let reason = match response.status {
            401 => {
                format!("authentication failed: {detail}; expected an API token of the scope viewer or above")
            }
            403 => format!("access denied: {detail}"),
            301 | 302 | 307 | 308 => "redirected; check the URL of the hub (https?)".to_owned(),
            404 if detail.is_empty() => "not found; is this a PerfWatch hub?".to_owned(),
            404 | 409 | 422 | 400 => detail.into_owned(),
            429 => "too many requests".to_owned(),
            status => format!("HTTP {status} {detail}").trim_end().to_owned(),
        };
        RequestError { status: response.status, message: format!("{}: {reason}", self.client.label()) }
    }

    /// Sends a request and decodes its response.
    ///
    /// # Errors
    /// Fails as [`Self::get`], and if the response is not from a hub.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let text = self.get(path)?;
        let label = self.client.label();
        decode(&text).map_err(|error| anyhow::anyhow!("{label}: {error}; is this a PerfWatch hub?"))
    }
}

/// Token of the flag or of the environment; `file:PATH` reads it from a file.
fn read_token(flag: Option<&str>) -> anyhow::Result<String> {
    let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
    let token = flag.map(str::to_owned).or(variable);
    let token = token
        .with_context(|| format!("--hub requires an API token: --token file:PATH or {TOKEN_VARIABLE}"))?;
    let token = match token.strip_prefix("file:") {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("--token: {path}"))?,
        None => token,
    };
    let token = token.trim();
    // Other characters are invalid in a header; the error of the client would contain the token.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("--token: invalid token; expected an API token such as pwt_…");
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_validated() {
        assert_eq!(read_token(Some(" pwt_1 ")).unwrap(), "pwt_1");
        for token in ["", "two words", "a\nb", "ü", "file:/nowhere"] {
            let error = format!("{:#}", read_token(Some(token)).unwrap_err());
            assert!(error.contains("--token") && !error.contains("two words"), "{error}");
        }
    }
}
