//! Password hashing by argon2id (RFC 9106) on separate threads.

use crate::error::AuthError;
use crate::hash_threads;
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization as _;

/// Minimum length of a password, in characters; a setting of the hub can require more.
pub const MIN_PASSWORD_CHARS: usize = 10;
/// Maximum length of a password: more only costs time.
pub const MAX_PASSWORD_BYTES: usize = 200;

/// Verified against if the account does not exist, so that the response time is the same.
static DUMMY_HASH: LazyLock<String> =
    LazyLock::new(|| hash_now("placeholder of unknown accounts").unwrap_or_default());

/// Form in which passwords are hashed: other spaces become U+0020, and characters are composed (RFC 8265,
/// section 4.2, OpaqueString). Keyboards and systems produce different forms of one text.
pub fn normalize(password: &str) -> String {
    let is_other_space = |c: char| c.is_whitespace() && !c.is_control();
    password.chars().map(|c| if is_other_space(c) { ' ' } else { c }).nfc().collect()
}

/// Validates a new password of at least `min_length` characters; returns the violated rule.
pub fn validate(password: &str, name: &str, min_length: usize) -> Option<String> {
    let password = normalize(password);
    let length = password.chars().count();
    if length < min_length {
        return Some(format!("password must have at least {min_length} characters"));
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Some(format!("password must have at most {MAX_PASSWORD_BYTES} bytes"));
    }
    let lower = password.to_lowercase();
    if !name.is_empty() && lower.contains(&name.to_lowercase()) {
        return Some("password must not contain the user name".to_owned());
    }
    let mut distinct: Vec<char> = lower.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    (distinct.len() < 5).then(|| "password must have at least five different characters".to_owned())
}

/// PHC string of a password; `None` only with parameters out of range, and these are the defaults.
fn hash_now(password: &str) -> Option<String> {
    Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).ok()
}

/// Hashes a password into a PHC string.
///
/// # Errors
/// Returns [`AuthError::HashingFailed`] if the hash cannot be computed.
pub async fn hash(password: String) -> Result<String, AuthError> {
    hash_threads::run(move || hash_now(&normalize(&password))).await.flatten().ok_or(AuthError::HashingFailed)
}

/// Verifies a password against a stored PHC string; takes as long without one.
pub async fn verify(password: String, stored: Option<String>) -> bool {
    let task = move || {
        let exists = stored.is_some();
        let stored = stored.unwrap_or_else(|| DUMMY_HASH.clone());
        let matches = |password: &str| {
            PasswordHash::new(&stored)
                .is_ok_and(|stored| Argon2::default().verify_password(password.as_bytes(), &stored).is_ok())
        };
        let normalized = normalize(&password);
        // Earlier versions hashed the text as it was typed.
        let is_match = matches(&normalized) || (normalized != password && matches(&password));
        is_match && exists
    };
    hash_threads::run(task).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_verifies() {
        let stored = hash("correct horse".to_owned()).await.unwrap();
        assert!(stored.starts_with("$argon2id$"), "{stored}");
        assert!(verify("correct horse".to_owned(), Some(stored.clone())).await);
        assert!(!verify("correct house".to_owned(), Some(stored)).await);
        assert!(!verify("placeholder of unknown accounts".to_owned(), None).await);
        assert!(!verify("x".to_owned(), Some("no PHC string".to_owned())).await);
    }

    #[tokio::test]
    async fn unicode_forms_of_a_password_are_equal() {
        let (composed, decomposed) = ("Gru\u{308}ße aus Köln", "Grüße\u{a0}aus Ko\u{308}ln");
        let stored = hash(composed.to_owned()).await.unwrap();
        assert!(verify(decomposed.to_owned(), Some(stored.clone())).await);
        assert!(!verify("Grusse aus Koln".to_owned(), Some(stored)).await);
        // Hash of an earlier version, of the text as it was typed.
        let earlier = hash_now(decomposed).unwrap();
        assert!(verify(decomposed.to_owned(), Some(earlier)).await);
    }

    #[test]
    fn weak_passwords_are_rejected() {
        for (password, is_valid) in [
            ("correct horse", true),
            ("short", false),
            ("alice-is-here", false),
            ("aaaaaaaaaaaa", false),
            ("äöüßÄÖÜẞéè", true),
        ] {
            assert_eq!(validate(password, "Alice", MIN_PASSWORD_CHARS).is_none(), is_valid, "{password}");
        }
        assert!(validate(&"long".repeat(100), "", MIN_PASSWORD_CHARS).is_some());
        assert!(validate("correct horse", "Alice", 14).is_some_and(|error| error.contains("14")));
    }
}
