//! Confirmation that the user of a session is present: a login or a repeated authentication a moment ago. A
//! stolen session cookie alone must not be enough for a lasting change.

use crate::directory::AuthDirectory;
use crate::jwt;
use data_encoding::HEXLOWER;
use perfwatch_store::accounts::SecretHash;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time for which a repeated authentication confirms lasting changes.
pub const CONFIRMATION_TTL: Duration = Duration::from_secs(10 * 60);
/// Time after a login without a repeated authentication. Long enough to set up a new installation.
const RECENT_LOGIN_TTL: Duration = Duration::from_secs(15 * 60);
/// Audience of confirmations.
const PURPOSE: &str = "perfwatch-confirmation";

/// Proof that the user of a session is present, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Confirmation {
    /// The request proves only that the caller has the credential.
    #[default]
    None,
    /// The user logged in a moment ago.
    RecentLogin,
    /// The user authenticated again after the login.
    Confirmed,
}

/// Payload of the confirmation cookie. It is worthless without its session.
#[derive(Serialize, Deserialize)]
struct ConfirmationPayload {
    session: String,
}

/// Value of the confirmation cookie of a session whose user authenticated again.
pub fn sign(directory: &AuthDirectory, session: &SecretHash) -> Option<String> {
    let payload = ConfirmationPayload { session: HEXLOWER.encode(session) };
    jwt::sign_payload(&directory.snapshot(), payload, PURPOSE, CONFIRMATION_TTL, directory.now_ms())
}

/// Confirmation of a request with the cookie of this session and these confirmation cookies.
pub(crate) fn of_session(directory: &AuthDirectory, hash: &SecretHash, cookies: &[&str]) -> Confirmation {
    let (snapshot, now_ms) = (directory.snapshot(), directory.now_ms());
    let confirms = |cookie: &&str| {
        let payload: Option<ConfirmationPayload> = jwt::verify_payload(&snapshot, cookie, PURPOSE, now_ms);
        payload.is_some_and(|payload| payload.session == HEXLOWER.encode(hash))
    };
    if cookies.iter().any(confirms) {
        return Confirmation::Confirmed;
    }
    let age_ms = snapshot.sessions.get(hash).map(|session| now_ms.saturating_sub(session.created_ms));
    let is_recent = age_ms.is_some_and(|ms| (0..=RECENT_LOGIN_TTL.as_millis() as i64).contains(&ms));
    if is_recent { Confirmation::RecentLogin } else { Confirmation::None }
}
