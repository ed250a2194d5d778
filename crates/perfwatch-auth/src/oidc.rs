//! Single sign-on: authorization code flow of OpenID Connect with PKCE (OpenID Connect Core 1.0; RFC
//! 7636). The state of a login is kept in a signed cookie of the browser, so that any hub can handle
//! the callback. Claims are accepted only from an ID token with a valid signature.

use super::{jwt, secret};
use crate::client_auth::{ClientAuth, basic_credentials};
use crate::error::AuthError;
pub use crate::oidc_user::{OidcConfig, OidcUser};
use crate::oidc_user::{claim, user_from_claims};
use crate::resolver::PolicyResolver;
use crate::snapshot::AuthSnapshot;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use perfwatch_model::OutboundPolicy;
use rustls::crypto::aws_lc_rs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::DefaultConnector;
use url::Url;

/// Maximum duration of a login at the identity provider, seconds.
pub const LOGIN_TTL_S: u64 = 10 * 60;
/// Timeout of a request to the identity provider.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response of the identity provider.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;
/// Time for which the discovery document and keys are cached.
const METADATA_TTL: Duration = Duration::from_secs(3_600);
/// Minimum time between two fetches of the keys, for unknown key ids and after failures.
const KEY_REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of logins that wait for the identity provider.
const MAX_CONCURRENT_LOGINS: usize = 4;
/// Maximum time that further logins are queued.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(15);
/// Accepted signature algorithms: only asymmetric algorithms, so that the client secret cannot sign.
const ALGORITHMS: [Algorithm; 7] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Tolerated clock difference to the identity provider, seconds.
const MAX_CLOCK_DRIFT_S: u64 = 30;

/// Discovery document (OpenID Connect Discovery 1.0, section 3).
#[derive(Clone, Deserialize)]
struct ProviderMetadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

#[derive(Clone)]
struct CachedDiscovery {
    metadata: ProviderMetadata,
    keys: JwkSet,
    fetched_at: Duration,
}

/// State of a login between the redirect and the callback.
#[derive(Clone, Serialize, Deserialize)]
pub struct LoginState {
    state: String,
    nonce: String,
    verifier: String,
    /// Dashboard page to open after the login.
    pub next: String,
    /// Start of a login that confirms lasting changes of an existing session, seconds since 1970.
    #[serde(default)]
    pub confirms_since_s: Option<i64>,
}

/// Client of the identity provider.
pub struct OidcProvider {
    /// Configuration of the provider.
    pub config: OidcConfig,
    http: ureq::Agent,
    discovery: Mutex<Option<CachedDiscovery>>,
    /// Time and reason of the last failed fetch.
    last_failure: Mutex<Option<(Duration, String)>>,
    /// Bounds the threads that a slow identity provider can occupy.
    slots: Semaphore,
}

fn oidc_error(stage: &str, error: &dyn std::fmt::Display) -> AuthError {
    tracing::warn!(stage, %error, "OIDC login failed");
    AuthError::IdentityProvider
}

const PURPOSE: &str = "perfwatch-single-sign-on";

impl LoginState {
    fn new(next: String, confirms_since_s: Option<i64>) -> Self {
        let random = || BASE64_URL_SAFE_NO_PAD.encode(secret::random_bytes::<32>());
        Self { state: random(), nonce: random(), verifier: random(), next, confirms_since_s }
    }

    /// Returns whether the user authenticated after the start of this login. Providers that do not state the
    /// time (OpenID Connect Core 1.0, section 2) were asked to authenticate the user again.
    pub fn is_confirmed_by(&self, user: &OidcUser) -> bool {
        let drift_s = MAX_CLOCK_DRIFT_S.cast_signed();
        self.confirms_since_s
            .is_some_and(|since_s| user.auth_time_s.is_none_or(|at_s| at_s + drift_s >= since_s))
    }

    /// Signed cookie value, so that a client cannot forge the state of a login.
    pub fn to_cookie(&self, snapshot: &AuthSnapshot, now_ms: i64) -> Option<String> {
        jwt::sign_payload(snapshot, self, PURPOSE, Duration::from_secs(LOGIN_TTL_S), now_ms)
    }

    /// State of a cookie value; `None` if it is forged or expired.
    pub fn from_cookie(snapshot: &AuthSnapshot, text: &str, now_ms: i64) -> Option<Self> {
        jwt::verify_payload(snapshot, text, PURPOSE, now_ms)
    }
}

impl OidcProvider {
    /// Client without cached discovery, which reaches the addresses of a policy.
    pub fn new(config: OidcConfig, policy: OutboundPolicy) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let http_config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .max_redirects(0)
            .tls_config(tls)
            .build();
        let http = ureq::Agent::with_parts(http_config, DefaultConnector::default(), PolicyResolver(policy));
        let (discovery, last_failure) = (Mutex::default(), Mutex::default());
        Self { config, http, discovery, last_failure, slots: Semaphore::new(MAX_CONCURRENT_LOGINS) }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, url: &str, bearer: Option<&str>) -> Result<T, String> {
        let mut request = self.http.get(url);
        if let Some(token) = bearer {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        read_json(request.call().map_err(|error| error.to_string())?)
    }

    /// Discovery document and keys; fetched again if they are old or lack the key id.
    fn metadata(&self, now: Duration, key: Option<&str>) -> Result<CachedDiscovery, String> {
        let cached = self.discovery.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(cached) = cached {
            let age = now.saturating_sub(cached.fetched_at);
            let has_key = key.is_none_or(|key| cached.keys.find(key).is_some());
            if age < KEY_REFRESH_INTERVAL || (age < METADATA_TTL && has_key) {
                return Ok(cached);
            }
        }
        let mut last_failure = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, error)) =
            last_failure.as_ref().filter(|(at, _)| now.saturating_sub(*at) < KEY_REFRESH_INTERVAL)
        {
            return Err(format!("{error} ({} s ago)", now.saturating_sub(*at).as_secs()));
        }
        let fetched = self.fetch_discovery(now);
        *last_failure = fetched.as_ref().err().map(|error| (now, error.clone()));
        fetched
    }

    fn fetch_discovery(&self, now: Duration) -> Result<CachedDiscovery, String> {
        let issuer = self.config.issuer.trim_end_matches('/');
        let metadata: ProviderMetadata =
            self.get(&format!("{issuer}/.well-known/openid-configuration"), None)?;
        if metadata.issuer.trim_end_matches('/') != issuer {
            return Err(format!("issuer mismatch: {:?}", metadata.issuer));
        }
        let discovery =
            CachedDiscovery { keys: self.get(&metadata.jwks_uri, None)?, metadata, fetched_at: now };
        *self.discovery.lock().unwrap_or_else(PoisonError::into_inner) = Some(discovery.clone());
        Ok(discovery)
    }

    /// URL to send the browser to, and the state to store in its cookie.
    ///
    /// # Errors
    /// Returns [`AuthError::IdentityProvider`] if discovery fails.
    pub async fn authorization_url(
        self: Arc<Self>,
        redirect: String,
        (next, confirms_since_s): (String, Option<i64>),
        now: Duration,
    ) -> Result<(String, LoginState), AuthError> {
        let oidc = self.clone();
        let task = move || {
            let discovery = oidc.metadata(now, None)?;
            let login = LoginState::new(next, confirms_since_s);
            let mut url =
                Url::parse(&discovery.metadata.authorization_endpoint).map_err(|e| e.to_string())?;
            let scopes = [&["openid".to_owned()], &oidc.config.scopes[..]].concat().join(" ");
            let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(login.verifier.as_bytes()));
            url.query_pairs_mut()
                .append_pair("response_type", "code")
                .append_pair("client_id", &oidc.config.client_id)
                .append_pair("redirect_uri", &redirect)
                .append_pair("scope", &scopes)
                .append_pair("state", &login.state)
                .append_pair("nonce", &login.nonce)
                .append_pair("code_challenge", &challenge)
                .append_pair("code_challenge_method", "S256");
            if confirms_since_s.is_some() {
                url.query_pairs_mut().append_pair("prompt", "login").append_pair("max_age", "0");
            }
            Ok::<_, String>((url.into(), login))
        };
        self.blocking(task).await.map_err(|error| oidc_error("discovery", &error))
    }

    /// Exchanges the code of a callback for the user.
    ///
    /// # Errors
    /// Returns [`AuthError::IdentityProvider`] if the state does not belong to this browser, the
    /// provider fails, or its ID token is invalid.
    pub async fn exchange_code(
        self: Arc<Self>,
        redirect: String,
        code: String,
        state: &str,
        login: LoginState,
        now: Duration,
    ) -> Result<OidcUser, AuthError> {
        if secret::hash_secret(state) != secret::hash_secret(&login.state) {
            return Err(oidc_error("callback", &"state does not match this browser's login"));
        }
        let oidc = self.clone();
        let task = move || {
            let discovery = oidc.metadata(now, None)?;
            let config = &oidc.config;
            let grant = [
                ("grant_type", "authorization_code"),
                ("code", code.as_str()),
                ("redirect_uri", redirect.as_str()),
                ("code_verifier", login.verifier.as_str()),
            ];
            let tokens = oidc.request_tokens(&discovery.metadata, &grant)?;
            let mut claims = oidc.verify(&tokens.id_token, &login.nonce, now)?;
            if let (Value::Null, Some(url), Some(token)) = (
                claim(&claims, &config.role_claim),
                &discovery.metadata.userinfo_endpoint,
                &tokens.access_token,
            ) {
                let userinfo: Value = oidc.get(url, Some(token))?;
                // OpenID Connect Core 1.0, section 5.3.2: otherwise the claims may be of another user.
                if userinfo["sub"] == claims["sub"] {
                    let (Value::Object(claims), Value::Object(userinfo)) = (&mut claims, userinfo) else {
                        return Err("no claims".to_owned());
                    };
                    userinfo.into_iter().for_each(|(name, value)| {
                        claims.entry(name).or_insert(value);
                    });
                }
            }
            user_from_claims(config, &claims)
        };
        self.blocking(task).await.map_err(|error| oidc_error("callback", &error))
    }

    /// Sends an authorization grant to the token endpoint.
    fn request_tokens(&self, metadata: &ProviderMetadata, grant: &[(&str, &str)]) -> Result<Tokens, String> {
        let secret = self.config.client_secret.as_deref();
        let stated = metadata.token_endpoint_auth_methods_supported.as_deref();
        let auth = ClientAuth::select(stated, secret.is_some())?;
        let result = self.post_grant(metadata, grant, auth);
        // Providers that state no method may support only the other one.
        let is_unauthenticated = result.as_ref().is_err_and(|error| error.ends_with("invalid_client"));
        if auth == ClientAuth::Basic && stated.is_none() && is_unauthenticated {
            return self.post_grant(metadata, grant, ClientAuth::Post);
        }
        result
    }

    fn post_grant(
        &self,
        metadata: &ProviderMetadata,
        grant: &[(&str, &str)],
        auth: ClientAuth,
    ) -> Result<Tokens, String> {
        let OidcConfig { client_id, client_secret, .. } = &self.config;
        let secret = client_secret.as_deref().unwrap_or_default();
        let mut request = self.http.post(&metadata.token_endpoint);
        let mut form = grant.to_vec();
        match auth {
            ClientAuth::Basic => {
                request = request.header("Authorization", basic_credentials(client_id, secret));
            }
            ClientAuth::Post => form.extend([("client_id", client_id.as_str()), ("client_secret", secret)]),
            ClientAuth::Public => form.push(("client_id", client_id)),
        }
        read_json(request.send_form(form).map_err(|error| error.to_string())?)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let slot = tokio::time::timeout(QUEUE_TIMEOUT, self.slots.acquire()).await;
        let _slot = slot.map_err(|_| "too many concurrent logins")?;
        tokio::task::spawn_blocking(task).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Claims of an ID token that the provider signed for this hub and this login.
    fn verify(&self, token: &str, nonce: &str, now: Duration) -> Result<Value, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("signed by {:?}", header.alg));
        }
        let discovery = self.metadata(now, header.kid.as_deref())?;
        let key = match &header.kid {
            Some(id) => discovery.keys.find(id),
            None => discovery.keys.keys.first().filter(|_| discovery.keys.keys.len() == 1),
        };
        let key = DecodingKey::from_jwk(key.ok_or("signed with an unknown key")?);
        let mut validation = Validation::new(header.alg);
        validation.leeway = MAX_CLOCK_DRIFT_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&discovery.metadata.issuer]);
        validation.set_audience(&[&self.config.client_id]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let key = key.map_err(|error| error.to_string())?;
        let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
            .map_err(|error| error.to_string())?
            .claims;
        if claims["nonce"].as_str().map(secret::hash_secret) != Some(secret::hash_secret(nonce)) {
            return Err("nonce mismatch".to_owned());
        }
        let authorized_party = claims["azp"].as_str();
        if authorized_party.is_some_and(|party| party != self.config.client_id) {
            return Err("audience mismatch".to_owned());
        }
        Ok(claims)
    }
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

fn read_json<T: serde::de::DeserializeOwned>(
    mut response: ureq::http::Response<ureq::Body>,
) -> Result<T, String> {
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    let read = response.body_mut().as_reader().take(MAX_RESPONSE_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if status != 200 {
        // RFC 6749, section 5.2: only the error code is logged; the rest may contain secrets.
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        return Err(format!("HTTP {status} {}", json["error"].as_str().unwrap_or_default()));
    }
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing_keys::SigningKeys;

    #[test]
    fn login_state_cookie_is_tamper_proof() {
        let state = AuthSnapshot { signing_keys: SigningKeys::from_key("a key"), ..AuthSnapshot::default() };
        let login = LoginState::new("/hosts/x".to_owned(), None);
        let cookie = login.to_cookie(&state, 0).unwrap();
        let back = LoginState::from_cookie(&state, &cookie, 0).unwrap();
        assert_eq!((back.state, back.verifier, back.next), (login.state, login.verifier, login.next));
        let other =
            AuthSnapshot { signing_keys: SigningKeys::from_key("another"), ..AuthSnapshot::default() };
        assert!(LoginState::from_cookie(&other, &cookie, 0).is_none());
        assert!(LoginState::from_cookie(&state, &cookie, 601_000).is_none(), "too old");
        for text in ["", "nonsense", "e30"] {
            assert!(LoginState::from_cookie(&state, text, 0).is_none());
        }
    }
}
