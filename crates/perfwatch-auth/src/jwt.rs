//! Signed tokens (JWT, RFC 7519, HS256): for scripts, valid for 15 minutes, and for the address of a WebSocket,
//! valid for a minute. A token names its account and the credential that it was created with; the rights are
//! resolved at each use, so that a token ends with both.

use crate::snapshot::AuthSnapshot;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use perfwatch_store::accounts::Account;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Validity of a signed token.
pub const TOKEN_TTL: Duration = Duration::from_secs(15 * 60);
/// Validity of a WebSocket token: the time to open the WebSocket.
pub const WEBSOCKET_TOKEN_TTL: Duration = Duration::from_secs(60);
const AUDIENCE: &str = "perfwatch";
/// Audience of WebSocket tokens. They appear in addresses, which proxies log: nothing else accepts them.
const WEBSOCKET_AUDIENCE: &str = "perfwatch-websocket";
/// Tolerated difference between the clocks of hubs that share a database.
const MAX_CLOCK_DRIFT_S: u64 = 5;

/// Payload that a client keeps and returns unchanged, until it expires.
#[derive(Serialize, Deserialize)]
struct SignedPayload<T> {
    aud: String,
    exp: i64,
    #[serde(flatten)]
    payload: T,
}

/// Signs a payload for one purpose. The client can read it, but not change it.
pub fn sign_payload<T: Serialize>(
    snapshot: &AuthSnapshot,
    payload: T,
    purpose: &str,
    ttl: Duration,
    now_ms: i64,
) -> Option<String> {
    let exp = now_ms / 1_000 + i64::try_from(ttl.as_secs()).ok()?;
    let key = EncodingKey::from_secret(snapshot.signing_keys.current(now_ms)?.as_bytes());
    let signed = SignedPayload { aud: purpose.to_owned(), exp, payload };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &signed, &key).ok()
}

/// Verifies a payload for a purpose; `None` if it is forged or expired.
pub fn verify_payload<T: serde::de::DeserializeOwned>(
    snapshot: &AuthSnapshot,
    text: &str,
    purpose: &str,
    now_ms: i64,
) -> Option<T> {
    let signed: SignedPayload<T> = decode(snapshot, text, purpose)?;
    (now_ms / 1_000 < signed.exp).then_some(signed.payload)
}

fn decode<T: serde::de::DeserializeOwned>(snapshot: &AuthSnapshot, text: &str, audience: &str) -> Option<T> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    // The callers check the expiry by the hub's own clock.
    validation.validate_exp = false;
    snapshot.signing_keys.iter().find_map(|key| {
        let key = DecodingKey::from_secret(key.as_bytes());
        Some(jsonwebtoken::decode::<T>(text, &key, &validation).ok()?.claims)
    })
}

/// Credential that a signed token was created with. The token ends with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenParent {
    /// Name and password in the request for the token.
    Password,
    /// Browser session: hexadecimal hash of its cookie.
    Session(String),
    /// API token of a script.
    ApiToken(Uuid),
}

/// Claims of a signed token and of a WebSocket token, which differ in their audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Account that the token belongs to.
    pub sub: Uuid,
    aud: String,
    /// Issue time, seconds since 1970.
    iat: i64,
    /// Time of expiry, seconds since 1970.
    pub exp: i64,
    /// Token epoch of the account when the token was signed.
    pub epoch: i64,
    /// Credential that the token was created with.
    pub parent: TokenParent,
    /// Time at which a WebSocket of the token ends, seconds since 1970: the expiry of the signed token that it
    /// was created with. `None` if the parent alone ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

#[cfg(test)]
impl Claims {
    /// Claims of a WebSocket token that is not verified again.
    pub(crate) fn for_test() -> Self {
        let (sub, aud, parent) = (Uuid::nil(), WEBSOCKET_AUDIENCE.to_owned(), TokenParent::Password);
        Self { sub, aud, iat: 0, exp: 60, epoch: 0, parent, until: None }
    }
}

/// Signs a token for an account.
pub fn sign(snapshot: &AuthSnapshot, account: &Account, parent: TokenParent, now_ms: i64) -> Option<String> {
    encode(snapshot, account, (AUDIENCE, TOKEN_TTL), (parent, None), now_ms)
}

/// Signs a token for the address of a WebSocket, with the rights of its parent. Nothing else accepts it.
pub fn sign_websocket(
    snapshot: &AuthSnapshot,
    account: &Account,
    parent: TokenParent,
    until: Option<i64>,
    now_ms: i64,
) -> Option<String> {
    encode(snapshot, account, (WEBSOCKET_AUDIENCE, WEBSOCKET_TOKEN_TTL), (parent, until), now_ms)
}

fn encode(
    snapshot: &AuthSnapshot,
    account: &Account,
    (audience, ttl): (&str, Duration),
    (parent, until): (TokenParent, Option<i64>),
    now_ms: i64,
) -> Option<String> {
    let iat = now_ms / 1_000;
    let exp = iat + i64::try_from(ttl.as_secs()).ok()?;
    let (sub, aud, epoch) = (account.id, audience.to_owned(), account.token_epoch);
    let claims = Claims { sub, aud, iat, exp, epoch, parent, until };
    let key = EncodingKey::from_secret(snapshot.signing_keys.current(now_ms)?.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
}

/// Claims of a signed token; `None` if it is forged, expired, or of another audience.
pub(crate) fn verify(snapshot: &AuthSnapshot, token: &str, now_ms: i64) -> Option<Claims> {
    let claims = decode(snapshot, token, AUDIENCE)?;
    is_current(claims, now_ms)
}

/// Claims of a WebSocket token; `None` if it is forged, expired, or of another audience.
pub(crate) fn verify_websocket(snapshot: &AuthSnapshot, token: &str, now_ms: i64) -> Option<Claims> {
    let claims = decode(snapshot, token, WEBSOCKET_AUDIENCE)?;
    is_current(claims, now_ms)
}

fn is_current(claims: Claims, now_ms: i64) -> Option<Claims> {
    let now_s = u64::try_from(now_ms / 1_000).ok()?;
    let is_current = u64::try_from(claims.exp).is_ok_and(|exp| now_s < exp.saturating_add(MAX_CLOCK_DRIFT_S));
    is_current.then_some(claims)
}

/// Returns whether a text has the form of a JWT: three parts, the first one a JSON object.
pub fn has_jwt_shape(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}
