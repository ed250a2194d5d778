//! Random secrets of 256 bits, stored as their SHA-256: with that entropy, neither a salt nor a slow
//! hash is needed. Signing keys are stored in plain text, and backups leave them out.

use data_encoding::HEXLOWER;
use perfwatch_store::accounts::SecretHash;
use sha2::{Digest as _, Sha256};

/// Purpose of a secret, shown by its prefix, so that a leaked secret can be identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// Cookie of a browser session.
    Session,
    /// API token of a script.
    Token,
    /// Enrollment token of agents.
    EnrollmentToken,
    /// Secret of an enrolled agent.
    Agent,
    /// Setup link of a new installation.
    Setup,
    /// Link of a public status page.
    StatusPage,
}

impl SecretKind {
    /// First characters of secrets of this kind.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Session => "pws_",
            Self::Token => "pwt_",
            Self::EnrollmentToken => "pwe_",
            Self::Agent => "pwa_",
            Self::Setup => "pwu_",
            Self::StatusPage => "pwp_",
        }
    }
}

/// Random bytes from the kernel (getrandom(2)).
///
/// # Panics
/// Panics if the kernel provides no randomness, because no secret would be safe.
#[expect(clippy::expect_used, reason = "no secret is safe without randomness")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel provides random bytes");
    bytes
}

/// Generates a secret of a kind.
pub fn generate(kind: SecretKind) -> String {
    format!("{}{}", kind.prefix(), HEXLOWER.encode(&random_bytes::<32>()))
}

/// Hash of a secret, as it is stored.
pub fn hash_secret(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Returns whether a text has the prefix and length of a secret of this kind.
pub fn has_prefix(kind: SecretKind, text: &str) -> bool {
    text.strip_prefix(kind.prefix()).is_some_and(|digits| digits.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_unique_and_prefixed() {
        let (one, two) = (generate(SecretKind::Token), generate(SecretKind::Token));
        assert_ne!(one, two);
        assert!(has_prefix(SecretKind::Token, &one) && !has_prefix(SecretKind::Agent, &one));
        assert!(!has_prefix(SecretKind::Token, "pwt_short"));
        assert_eq!(HEXLOWER.encode(&hash_secret("abc"))[..16], *"ba7816bf8f01cfea");
    }
}
