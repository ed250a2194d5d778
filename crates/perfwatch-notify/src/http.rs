//! HTTP client of the channels; maps responses to success, retry or permanent failure.

use crate::mask::Masker;
use crate::resolver::{PolicyResolver, refused_address};
use crate::response_reason;
use crate::retry_hint::HintSource;
use perfwatch_model::{Clock, OutboundPolicy};
use perfwatch_rules::notification::{Delivery, SendError};
use perfwatch_workers::WorkerPool;
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::DefaultConnector;

/// Timeout of a whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of an error response that is read.
const MAX_ERROR_BODY_BYTES: u64 = 16_384;

/// Returns true for an absolute HTTP or HTTPS URL.
pub(crate) fn is_http_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.host().is_some())
}

/// HTTP request of a channel.
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: String,
}

impl Request<'_> {
    /// POST request with a JSON body.
    pub(crate) fn json(url: impl Into<String>, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { method: "POST", url: url.into(), headers, body: body.to_string() }
    }
}

impl<'a> Request<'a> {
    /// Adds a header to the request.
    pub(crate) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Address of a URL whose host is an address, in any notation.
fn literal_address(target: &str) -> Option<IpAddr> {
    match url::Url::parse(target).ok()?.host()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

/// HTTP client with TLS verified by the system's certificates.
#[derive(Clone)]
pub(crate) struct Http {
    agent: ureq::Agent,
    clock: Arc<dyn Clock>,
    /// Addresses that may be reached; also for channels that do not use HTTP.
    pub(crate) policy: OutboundPolicy,
    /// Pool that renders the bodies of requests.
    pub(crate) workers: Arc<WorkerPool>,
    /// Secrets that answers must not repeat.
    masker: Arc<Masker>,
}

impl Http {
    /// Creates the client. The clock is the reference of retry hints that are dates.
    pub(crate) fn new(clock: Arc<dyn Clock>, policy: OutboundPolicy, workers: Arc<WorkerPool>) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            // A redirect would send the notification and its secrets to another server.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("PerfWatch/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        let resolver = PolicyResolver(policy.clone());
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
        Self { agent, clock, policy, workers, masker: Arc::default() }
    }

    /// Client that masks the secrets of a channel in answers.
    pub(crate) fn with_masker(&self, masker: Arc<Masker>) -> Self {
        Self { masker, ..self.clone() }
    }

    /// Sends a request. Any status 2xx is a success. The reason of an error contains a short text
    /// of the response without the secrets of the channel.
    ///
    /// # Errors
    /// Returns [`SendError::Transient`] for connection errors and for the statuses 408, 425, 429 and 5xx,
    /// [`SendError::Permanent`] for every other status and for addresses that the policy refuses.
    pub(crate) fn send(&self, request: Request<'_>) -> Result<Delivery, SendError> {
        let mut builder = ureq::http::Request::builder().method(request.method).uri(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let target = request.url;
        let request = builder.body(request.body).map_err(|error| SendError::Permanent(error.to_string()))?;
        // A proxy resolves names, but connects to addresses that it receives.
        if let Some(address) = literal_address(&target) {
            self.policy.check(address).map_err(|error| SendError::Permanent(error.to_string()))?;
        }
        let mut response = self.agent.run(request).map_err(|error| match refused_address(&error) {
            Some(refused) => SendError::Permanent(refused.to_string()),
            None => SendError::Transient { reason: error.to_string(), retry_after: None },
        })?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(Delivery::default());
        }
        let mut body = Vec::new();
        let headers = response.headers().clone();
        // The status is reported even if the body cannot be read.
        let _ = response.body_mut().as_reader().take(MAX_ERROR_BODY_BYTES).read_to_end(&mut body);
        let body = String::from_utf8_lossy(&body);
        // Before the text is shortened, which may cut a secret.
        let reason = response_reason::describe(status, &self.masker.mask_cut(&body));
        match status {
            // Temporary conditions: RFC 9110, 15.5.9 and 15.6; RFC 8470, 5.2; RFC 6585, 4.
            408 | 425 | 429 | 500.. => {
                let hints = HintSource { headers: &headers, body: &body, now_ms: self.clock.wall_ms() };
                Err(SendError::Transient { reason, retry_after: hints.delay() })
            }
            _ => Err(SendError::Permanent(reason)),
        }
    }
}
