//! Single sign-on: the code flow of OpenID Connect with PKCE (OpenID Connect Core 1.0; RFC 7636).
//! What a login needs meanwhile goes along in a cookie of the browser itself, so that any hub may
//! take the answer. What an issuer says is believed only by its signature.

use super::directory::AuthSnapshot;
use super::{jwt, secret};
use crate::error::AuthError;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use perfwatch_store::accounts::Role;
use rustls::crypto::aws_lc_rs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use url::Url;

/// Where issuers and what they say about people are.
#[derive(Clone)]
pub struct OidcConfig {
    /// The issuer's address, as it names itself.
    pub issuer: String,
    /// As which the hub is known there.
    pub client_id: String,
    /// Proves it; none for a public client.
    pub client_secret: Option<String>,
    /// On the button.
    pub name: String,
    /// Beside `openid`.
    pub scopes: Vec<String>,
    /// Which claim tells roles; dotted for one within another.
    pub role_claim: String,
    /// Values of that claim that make an administrator.
    pub admins: Vec<String>,
    /// Those that make an operator.
    pub operators: Vec<String>,
    /// Those that make a viewer.
    pub viewers: Vec<String>,
    /// Of who has none of these; none keeps them out.
    pub default_role: Option<Role>,
}

impl std::fmt::Debug for OidcConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OidcConfig({})", self.issuer)
    }
}

/// How long a login at the issuer may take.
pub const LOGIN_TTL_S: u64 = 10 * 60;
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESPONSE_BYTES: u64 = 1 << 20;
/// What an issuer says of itself is asked again after this long.
const METADATA_TTL: Duration = Duration::from_secs(3_600);
/// An unknown key makes us ask again, but not more often than this.
const KEY_REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Logins that wait for the issuer at one time, and how long others wait for their turn.
const MAX_CONCURRENT_LOGINS: usize = 4;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(15);
/// Those with which one key signs and another verifies: never a secret that both know.
const ALGORITHMS: [Algorithm; 7] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
const LEEWAY_S: u64 = 30;

/// What an issuer says of itself (OpenID Connect Discovery 1.0).
#[derive(Clone, Deserialize)]
struct ProviderMetadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
}

#[derive(Clone)]
struct CachedDiscovery {
    metadata: ProviderMetadata,
    keys: JwkSet,
    since: Duration,
}

/// What a login needs when the browser comes back.
#[derive(Serialize, Deserialize)]
pub struct LoginState {
    state: String,
    nonce: String,
    verifier: String,
    /// The page they wanted.
    pub next: String,
}

/// Who the issuer says they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcUser {
    /// Lasting: issuer and its own id of them.
    pub subject: String,
    /// What they may be called here.
    pub name: String,
    /// None where the issuer does not tell.
    pub role: Option<Role>,
}

/// The issuer as the hub reaches it.
pub struct OidcProvider {
    pub config: OidcConfig,
    http: ureq::Agent,
    discovery: Mutex<Option<CachedDiscovery>>,
    /// When it last did not answer, and why.
    last_failure: Mutex<Option<(Duration, String)>>,
    /// An issuer that is slow holds up few threads.
    slots: Semaphore,
}

fn oidc_error(what: &str, why: &dyn std::fmt::Display) -> AuthError {
    tracing::warn!(what, %why, "OIDC login failed");
    AuthError::IdentityProvider
}

const PURPOSE: &str = "perfwatch-single-sign-on";

impl LoginState {
    fn new(next: String) -> Self {
        let random = || BASE64_URL_SAFE_NO_PAD.encode(secret::random_bytes::<32>());
        Self { state: random(), nonce: random(), verifier: random(), next }
    }

    /// Sealed: nobody makes one of their own, and has the hub ask the issuer for it.
    pub fn to_cookie(&self, state: &AuthSnapshot, now_ms: i64) -> Option<String> {
        jwt::sign_payload(state, self, PURPOSE, Duration::from_secs(LOGIN_TTL_S), now_ms)
    }

    pub fn from_cookie(state: &AuthSnapshot, text: &str, now_ms: i64) -> Option<Self> {
        jwt::verify_payload(state, text, PURPOSE, now_ms)
    }
}

impl OidcProvider {
    pub fn new(config: OidcConfig) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .tls_config(tls)
            .build()
            .new_agent();
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

    /// What the issuer says of itself; asked anew where that is old, or a key is not in it.
    fn metadata(&self, now: Duration, key: Option<&str>) -> Result<CachedDiscovery, String> {
        let known = self.discovery.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            let age = now.saturating_sub(known.since);
            let has_key = key.is_none_or(|key| known.keys.find(key).is_some());
            if age < KEY_REFRESH_INTERVAL || (age < METADATA_TTL && has_key) {
                return Ok(known);
            }
        }
        let mut silent = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, why)) =
            silent.as_ref().filter(|(at, _)| now.saturating_sub(*at) < KEY_REFRESH_INTERVAL)
        {
            return Err(format!("{why} (asked {} s ago)", now.saturating_sub(*at).as_secs()));
        }
        let asked = self.fetch_discovery(now);
        *silent = asked.as_ref().err().map(|why| (now, why.clone()));
        asked
    }

    fn fetch_discovery(&self, now: Duration) -> Result<CachedDiscovery, String> {
        let issuer = self.config.issuer.trim_end_matches('/');
        let metadata: ProviderMetadata =
            self.get(&format!("{issuer}/.well-known/openid-configuration"), None)?;
        if metadata.issuer.trim_end_matches('/') != issuer {
            return Err(format!("issuer mismatch: {:?}", metadata.issuer));
        }
        let known = CachedDiscovery { keys: self.get(&metadata.jwks_uri, None)?, metadata, since: now };
        *self.discovery.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }

    /// Where the browser is sent, and what comes back with it.
    ///
    /// # Errors
    /// The issuer does not answer as it should.
    pub async fn authorization_url(
        self: Arc<Self>,
        redirect: String,
        next: String,
        now: Duration,
    ) -> Result<(String, LoginState), AuthError> {
        let oidc = self.clone();
        let work = move || {
            let known = oidc.metadata(now, None)?;
            let pending = LoginState::new(next);
            let mut url = Url::parse(&known.metadata.authorization_endpoint).map_err(|e| e.to_string())?;
            let scopes = [&["openid".to_owned()], &oidc.config.scopes[..]].concat().join(" ");
            let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(pending.verifier.as_bytes()));
            url.query_pairs_mut()
                .append_pair("response_type", "code")
                .append_pair("client_id", &oidc.config.client_id)
                .append_pair("redirect_uri", &redirect)
                .append_pair("scope", &scopes)
                .append_pair("state", &pending.state)
                .append_pair("nonce", &pending.nonce)
                .append_pair("code_challenge", &challenge)
                .append_pair("code_challenge_method", "S256");
            Ok::<_, String>((url.into(), pending))
        };
        self.blocking(work).await.map_err(|why| oidc_error("the issuer", &why))
    }

    /// Who came back with a code.
    ///
    /// # Errors
    /// Not the login that this browser began, or one that the issuer does not vouch for.
    pub async fn exchange_code(
        self: Arc<Self>,
        redirect: String,
        code: String,
        state: &str,
        pending: LoginState,
        now: Duration,
    ) -> Result<OidcUser, AuthError> {
        if secret::hash_secret(state) != secret::hash_secret(&pending.state) {
            return Err(oidc_error("the answer", &"state does not match this browser's login"));
        }
        let oidc = self.clone();
        let work = move || {
            let known = oidc.metadata(now, None)?;
            let config = &oidc.config;
            let mut form = vec![
                ("grant_type", "authorization_code"),
                ("code", code.as_str()),
                ("redirect_uri", redirect.as_str()),
                ("client_id", config.client_id.as_str()),
                ("code_verifier", pending.verifier.as_str()),
            ];
            form.extend(config.client_secret.as_deref().map(|secret| ("client_secret", secret)));
            let answer = oidc.http.post(&known.metadata.token_endpoint).send_form(form);
            let tokens: Tokens = read_json(answer.map_err(|error| error.to_string())?)?;
            let mut claims = oidc.verify(&tokens.id_token, &pending.nonce, now)?;
            if let (Value::Null, Some(url), Some(token)) =
                (claim(&claims, &config.role_claim), &known.metadata.userinfo_endpoint, &tokens.access_token)
            {
                let more: Value = oidc.get(url, Some(token))?;
                // OpenID Connect Core 1.0, 5.3.2: else it may be of someone else.
                if more["sub"] == claims["sub"] {
                    let (Value::Object(known), Value::Object(more)) = (&mut claims, more) else {
                        return Err("no claims".to_owned());
                    };
                    more.into_iter().for_each(|(name, value)| {
                        known.entry(name).or_insert(value);
                    });
                }
            }
            user_from_claims(config, &claims)
        };
        self.blocking(work).await.map_err(|why| oidc_error("the answer", &why))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let slot = tokio::time::timeout(QUEUE_TIMEOUT, self.slots.acquire()).await;
        let _slot = slot.map_err(|_| "too many concurrent logins")?;
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// The claims of a token that the issuer signed for us and for this login.
    fn verify(&self, token: &str, nonce: &str, now: Duration) -> Result<Value, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("signed by {:?}", header.alg));
        }
        let known = self.metadata(now, header.kid.as_deref())?;
        let key = match &header.kid {
            Some(id) => known.keys.find(id),
            None => known.keys.keys.first().filter(|_| known.keys.keys.len() == 1),
        };
        let key = DecodingKey::from_jwk(key.ok_or("signed with an unknown key")?);
        let mut rules = Validation::new(header.alg);
        rules.leeway = LEEWAY_S;
        rules.set_issuer(&[&known.metadata.issuer]);
        rules.set_audience(&[&self.config.client_id]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let key = key.map_err(|error| error.to_string())?;
        let claims =
            jsonwebtoken::decode::<Value>(token, &key, &rules).map_err(|error| error.to_string())?.claims;
        if claims["nonce"].as_str().map(secret::hash_secret) != Some(secret::hash_secret(nonce)) {
            return Err("nonce mismatch".to_owned());
        }
        let party = claims["azp"].as_str();
        if party.is_some_and(|party| party != self.config.client_id) {
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
    mut answer: ureq::http::Response<ureq::Body>,
) -> Result<T, String> {
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    let taken = answer.body_mut().as_reader().take(MAX_RESPONSE_BYTES).read_to_end(&mut bytes);
    taken.map_err(|error| error.to_string())?;
    if status != 200 {
        // RFC 6749, 5.2: a code for programs; the rest may hold what should not be logged.
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        return Err(format!("HTTP {status} {}", json["error"].as_str().unwrap_or_default()));
    }
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// `groups`, or `realm_access.roles`.
fn claim<'a>(claims: &'a Value, name: &str) -> &'a Value {
    const NONE: &Value = &Value::Null;
    match claims.get(name) {
        Some(value) => value,
        None => name.split('.').try_fold(claims, |value, part| value.get(part)).unwrap_or(NONE),
    }
}

fn user_from_claims(config: &OidcConfig, claims: &Value) -> Result<OidcUser, String> {
    let text = |name: &str| claims[name].as_str().filter(|text| !text.is_empty());
    let subject = text("sub").ok_or("no subject")?;
    let called = ["preferred_username", "email", "sub"].into_iter().find_map(text).unwrap_or(subject);
    // What people type in other places is brought into the form that names have here.
    let fine =
        |c: char| if c.is_ascii_alphanumeric() || "._-@+".contains(c) { c.to_ascii_lowercase() } else { '-' };
    let name: String = called.chars().map(fine).take(64).collect();
    let told = claim(claims, &config.role_claim);
    let told: Vec<&str> = match told {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => text.split_ascii_whitespace().collect(),
        _ => Vec::new(),
    };
    let any = |values: &[String]| values.iter().any(|value| told.contains(&value.as_str()));
    let role = if any(&config.admins) {
        Some(Role::Admin)
    } else if any(&config.operators) {
        Some(Role::Operator)
    } else if any(&config.viewers) {
        Some(Role::Viewer)
    } else {
        config.default_role
    };
    Ok(OidcUser { subject: format!("{} {subject}", config.issuer.trim_end_matches('/')), name, role })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing_keys::SigningKeys;
    use serde_json::json;

    #[test]
    fn role_claims_may_be_nested() {
        let config = OidcConfig {
            issuer: "https://id.example/".to_owned(),
            client_id: "perfwatch".to_owned(),
            client_secret: None,
            name: "Example".to_owned(),
            scopes: Vec::new(),
            role_claim: "realm_access.roles".to_owned(),
            admins: vec!["sre".to_owned()],
            operators: vec!["ops".to_owned()],
            viewers: vec!["staff".to_owned()],
            default_role: None,
        };
        for (claims, name, role) in [
            (json!({ "sub": "1", "preferred_username": "Åsa Lind" }), "-sa-lind", None),
            (
                json!({ "sub": "1", "email": "A@b.c", "realm_access": { "roles": ["x", "ops"] } }),
                "a@b.c",
                Some(Role::Operator),
            ),
            (json!({ "sub": "1", "realm_access.roles": "staff sre" }), "1", Some(Role::Admin)),
            (json!({ "sub": "1", "realm_access": { "roles": [5, "staff"] } }), "1", Some(Role::Viewer)),
            (json!({ "sub": "1", "realm_access": "sre" }), "1", None),
        ] {
            let found = user_from_claims(&config, &claims).unwrap();
            assert_eq!((found.name.as_str(), found.role), (name, role), "{claims}");
            assert_eq!(found.subject, "https://id.example 1");
        }
        assert!(user_from_claims(&config, &json!({ "email": "a@b.c" })).is_err());
    }

    #[test]
    fn login_state_cookie_is_tamper_proof() {
        let state = AuthSnapshot { signing_keys: SigningKeys::from_key("a key"), ..AuthSnapshot::default() };
        let pending = LoginState::new("/hosts/x".to_owned());
        let cookie = pending.to_cookie(&state, 0).unwrap();
        let back = LoginState::from_cookie(&state, &cookie, 0).unwrap();
        assert_eq!((back.state, back.verifier, back.next), (pending.state, pending.verifier, pending.next));
        let other =
            AuthSnapshot { signing_keys: SigningKeys::from_key("another"), ..AuthSnapshot::default() };
        assert!(LoginState::from_cookie(&other, &cookie, 0).is_none());
        assert!(LoginState::from_cookie(&state, &cookie, 601_000).is_none(), "too old");
        for text in ["", "nonsense", "e30"] {
            assert!(LoginState::from_cookie(&state, text, 0).is_none());
        }
    }
}
