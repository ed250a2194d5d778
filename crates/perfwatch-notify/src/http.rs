//! Requests of all channels that speak HTTP, and what their answers mean: yes, later, or never.

use perfwatch_rules::notification::SendError;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// All of a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer that is no yes.
const MAX_ERROR_BODY_BYTES: u64 = 2_000;

/// Whether it is one that can be asked.
pub(crate) fn is_http_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.host().is_some())
}

/// What is sent.
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: String,
}

impl Request<'_> {
    /// JSON, as nearly all want it.
    pub(crate) fn json(url: impl Into<String>, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: "POST", url: url.into(), headers, body: body.to_string() }
    }
}

impl<'a> Request<'a> {
    /// With a header more.
    pub(crate) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The client.
pub(crate) struct Http {
    agent: ureq::Agent,
}

impl Http {
    pub(crate) fn new() -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            // A letter goes to who is named, not to whom they name.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("PerfWatch/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .new_agent();
        Self { agent }
    }

    /// Sends it; any success is one.
    pub(crate) fn send(&self, request: Request<'_>) -> Result<(), SendError> {
        let mut builder = ureq::http::Request::builder().method(request.method).uri(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let ready = builder.body(request.body).map_err(|error| SendError::Permanent(error.to_string()))?;
        let retry = |why: String| SendError::Retry { reason: why, retry_after: None };
        let mut answer = self.agent.run(ready).map_err(|error| retry(error.to_string()))?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(());
        }
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let mut text = Vec::new();
        // What can't be read says nothing.
        let _ = answer.body_mut().as_reader().take(MAX_ERROR_BODY_BYTES).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let words: Vec<&str> = text.split_whitespace().collect();
        let why = crate::truncate(format!("HTTP {status} {}", words.join(" ")).trim(), 300);
        match status {
            // Busy, or not well: RFC 9110, 15.5.9 and 15.6; RFC 6585, 4.
            408 | 425 | 429 | 500.. => {
                Err(SendError::Retry { reason: why, retry_after: after.map(Duration::from_secs) })
            }
            _ => Err(SendError::Permanent(why)),
        }
    }
}
