//! Passwords: argon2id with the parameters of its RFC 9106 profile for servers, on threads that
//! may block, few at a time: each takes 19 MiB.

use crate::error::AuthError;
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;

/// Hashes at one time.
const MAX_CONCURRENT_HASHES: usize = 2;
/// Shorter ones are guessed.
pub const MIN_PASSWORD_CHARS: usize = 10;
/// Longer ones only cost time.
pub const MAX_PASSWORD_BYTES: usize = 200;

static SLOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_CONCURRENT_HASHES)));
/// Verified against where there is no account, so that the time does not tell.
static DUMMY_HASH: LazyLock<String> = LazyLock::new(|| hash_now("nobody has this password"));

/// Why a password can't be.
pub fn validate(password: &str, name: &str) -> Option<String> {
    let length = password.chars().count();
    if length < MIN_PASSWORD_CHARS {
        return Some(format!("a password has {MIN_PASSWORD_CHARS} characters at least"));
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Some(format!("a password has {MAX_PASSWORD_BYTES} bytes at most"));
    }
    let lower = password.to_lowercase();
    if !name.is_empty() && lower.contains(&name.to_lowercase()) {
        return Some("a password does not contain the name of its account".to_owned());
    }
    let mut different: Vec<char> = lower.chars().collect();
    different.sort_unstable();
    different.dedup();
    (different.len() < 5).then(|| "a password has five different characters at least".to_owned())
}

fn hash_now(password: &str) -> String {
    // Only parameters out of range have a way to fail; these are the defaults.
    Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).unwrap_or_default()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let slot = SLOTS.clone().acquire_owned().await.ok()?;
    let task = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        work()
    });
    task.await.ok()
}

/// The PHC form of a password.
pub async fn hash(password: String) -> Result<String, AuthError> {
    let hash = blocking(move || hash_now(&password)).await.filter(|hash| !hash.is_empty());
    hash.ok_or(AuthError::HashingFailed)
}

/// Whether a password is the one; takes as long where there is none.
pub async fn verify(password: String, kept: Option<String>) -> bool {
    let work = move || {
        let known = kept.is_some();
        let kept = kept.unwrap_or_else(|| DUMMY_HASH.clone());
        let same = PasswordHash::new(&kept)
            .is_ok_and(|kept| Argon2::default().verify_password(password.as_bytes(), &kept).is_ok());
        same && known
    };
    blocking(work).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_verifies() {
        let kept = hash("correct horse".to_owned()).await.unwrap();
        assert!(kept.starts_with("$argon2id$"), "{kept}");
        assert!(verify("correct horse".to_owned(), Some(kept.clone())).await);
        assert!(!verify("correct house".to_owned(), Some(kept)).await);
        assert!(!verify("nobody has this password".to_owned(), None).await);
        assert!(!verify("x".to_owned(), Some("no PHC string".to_owned())).await);
    }

    #[test]
    fn weak_passwords_are_rejected() {
        for (password, fine) in [
            ("correct horse", true),
            ("short", false),
            ("alice-is-here", false),
            ("aaaaaaaaaaaa", false),
            ("äöüßÄÖÜẞéè", true),
        ] {
            assert_eq!(validate(password, "Alice").is_none(), fine, "{password}");
        }
        assert!(validate(&"long".repeat(100), "").is_some());
    }
}
