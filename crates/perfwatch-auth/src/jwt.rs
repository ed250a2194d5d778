//! Signed tokens (JWT, RFC 7519, HS256), valid for 15 minutes: for scripts and for `WS …?token=`. A
//! token names its account; the rights are resolved at each use, so that a token ends with its account.

use crate::snapshot::AuthSnapshot;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use perfwatch_store::accounts::{Account, Token};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Validity of a signed token.
pub const TOKEN_TTL: Duration = Duration::from_secs(15 * 60);
const AUDIENCE: &str = "perfwatch";
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

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    aud: String,
    /// Issue time, seconds since 1970.
    iat: i64,
    exp: i64,
    /// Token epoch of the account when the token was signed.
    epoch: i64,
    /// API token that the signed token was created with; the signed token ends with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<Uuid>,
}

/// Owner of a valid signed token.
pub(crate) struct VerifiedToken<'a> {
    pub(crate) account: &'a Account,
    pub(crate) token: Option<&'a Token>,
}

/// Signs a token for an account, or for an API token of the account.
pub fn sign(
    snapshot: &AuthSnapshot,
    account: &Account,
    api_token: Option<Uuid>,
    now_ms: i64,
) -> Option<String> {
    let iat = now_ms / 1_000;
    let exp = iat + i64::try_from(TOKEN_TTL.as_secs()).ok()?;
    let claims = Claims {
        sub: account.id,
        aud: AUDIENCE.to_owned(),
        iat,
        exp,
        epoch: account.token_epoch,
        token_id: api_token,
    };
    let key = EncodingKey::from_secret(snapshot.signing_keys.current(now_ms)?.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
}

/// Verifies a signed token; `None` if it is forged or expired, or its account was disabled.
pub(crate) fn verify<'a>(snapshot: &'a AuthSnapshot, token: &str, now_ms: i64) -> Option<VerifiedToken<'a>> {
    let claims: Claims = decode(snapshot, token, AUDIENCE)?;
    let now_s = u64::try_from(now_ms / 1_000).ok()?;
    let is_current = u64::try_from(claims.exp).is_ok_and(|exp| now_s < exp + MAX_CLOCK_DRIFT_S);
    let account = snapshot.enabled_account(claims.sub);
    let account = account.filter(|account| is_current && account.token_epoch == claims.epoch)?;
    let token = match claims.token_id {
        None => None,
        Some(id) => {
            let is_match = |token: &&Token| token.id == id && token.is_valid(now_ms);
            Some(snapshot.tokens.values().find(is_match)?)
        }
    };
    Some(VerifiedToken { account, token })
}

/// Returns whether a text has the form of a JWT: three parts, the first one a JSON object.
pub fn has_jwt_shape(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}
