//! Signed tokens of some minutes (RFC 7519, HS256): for scripts, and for `WS …?token=`. They say
//! whose they are; what those may is looked up at each use, so that a token ends with its account.

use super::directory::AuthSnapshot;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use perfwatch_store::accounts::{Account, Token};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How long a token is good.
pub const TOKEN_TTL: Duration = Duration::from_secs(15 * 60);
const AUDIENCE: &str = "perfwatch";

/// Something small that is given out and comes back unchanged, for some time.
#[derive(Serialize, Deserialize)]
struct SignedPayload<T> {
    aud: String,
    exp: i64,
    #[serde(flatten)]
    payload: T,
}

/// Seals it for one purpose. Who holds it can read it, and can't change it.
pub fn sign_payload<T: Serialize>(
    state: &AuthSnapshot,
    what: T,
    purpose: &str,
    lasts: Duration,
    now_ms: i64,
) -> Option<String> {
    let exp = now_ms / 1_000 + i64::try_from(lasts.as_secs()).ok()?;
    let key = EncodingKey::from_secret(state.signing_keys.current(now_ms)?.as_bytes());
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &SignedPayload { aud: purpose.to_owned(), exp, payload: what },
        &key,
    )
    .ok()
}

/// What was sealed for a purpose, while it lasts.
pub fn verify_payload<T: serde::de::DeserializeOwned>(
    state: &AuthSnapshot,
    text: &str,
    purpose: &str,
    now_ms: i64,
) -> Option<T> {
    let sealed: SignedPayload<T> = decode(state, text, purpose)?;
    (now_ms / 1_000 < sealed.exp).then_some(sealed.payload)
}

fn decode<T: serde::de::DeserializeOwned>(state: &AuthSnapshot, text: &str, audience: &str) -> Option<T> {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_audience(&[audience]);
    rules.set_required_spec_claims(&["exp", "aud"]);
    // By the hub's own clock, by who calls.
    rules.validate_exp = false;
    state.signing_keys.iter().find_map(|key| {
        let key = DecodingKey::from_secret(key.as_bytes());
        Some(jsonwebtoken::decode::<T>(text, &key, &rules).ok()?.claims)
    })
}
/// Clocks of hubs that share a database differ by this much, seconds.
const LEEWAY_S: u64 = 5;

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    aud: String,
    /// Seconds since 1970.
    iat: i64,
    exp: i64,
    /// [`Account::epoch`] when it was signed.
    epoch: i64,
    /// Where it was made of a script's token: that one, which it never outlives.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<Uuid>,
}

/// Whose a good one is.
pub(super) struct VerifiedToken<'a> {
    pub(super) account: &'a Account,
    pub(super) token: Option<&'a Token>,
}

/// A signed token of an account, or of a script's token of it.
pub fn sign(state: &AuthSnapshot, account: &Account, of: Option<Uuid>, now_ms: i64) -> Option<String> {
    let iat = now_ms / 1_000;
    let exp = iat + i64::try_from(TOKEN_TTL.as_secs()).ok()?;
    let claims = Claims {
        sub: account.id,
        aud: AUDIENCE.to_owned(),
        iat,
        exp,
        epoch: account.token_epoch,
        token_id: of,
    };
    let key = EncodingKey::from_secret(state.signing_keys.current(now_ms)?.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
}

/// Whose token it is, while it is good.
pub(super) fn verify<'a>(state: &'a AuthSnapshot, token: &str, now_ms: i64) -> Option<VerifiedToken<'a>> {
    let claims: Claims = decode(state, token, AUDIENCE)?;
    let now_s = u64::try_from(now_ms / 1_000).ok()?;
    let good = u64::try_from(claims.exp).is_ok_and(|exp| now_s < exp + LEEWAY_S);
    let account =
        state.enabled_account(claims.sub).filter(|account| good && account.token_epoch == claims.epoch)?;
    let token = match claims.token_id {
        None => None,
        Some(id) => Some(state.tokens.values().find(|token| token.id == id && token.is_valid(now_ms))?),
    };
    Some(VerifiedToken { account, token })
}

/// Whether a text has the look of one: three parts.
pub fn has_jwt_shape(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}
