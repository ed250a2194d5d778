//! Random secrets, and what is kept of them: the SHA-256. They have 256 bits, so no salt and no
//! slow hash is needed. (Keys that sign, and those of second factors, must be kept as they are: the
//! database is its owner's alone, and a copy leaves the former out.)

use data_encoding::HEXLOWER;
use perfwatch_store::accounts::SecretHash;
use sha2::{Digest as _, Sha256};

/// What a secret is for: told by its first letters, so that one found in a log or a repository
/// can be traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// A browser's cookie.
    Session,
    /// A script's token.
    Token,
    /// Lets agents in.
    EnrollmentToken,
    /// An agent's own.
    Agent,
    /// The link of the first start.
    Setup,
}

impl SecretKind {
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Session => "pws_",
            Self::Token => "pwt_",
            Self::EnrollmentToken => "pwe_",
            Self::Agent => "pwa_",
            Self::Setup => "pwu_",
        }
    }
}

/// Fills bytes from the kernel's generator (getrandom(2)).
///
/// # Panics
/// Where the kernel has none: nothing can be safe there.
#[expect(clippy::expect_used, reason = "without it nothing can be safe")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// A new secret.
pub fn generate(kind: SecretKind) -> String {
    format!("{}{}", kind.prefix(), HEXLOWER.encode(&random_bytes::<32>()))
}

/// What is kept of it.
pub fn hash_secret(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether a text is a secret of this kind by its look.
pub fn has_prefix(kind: SecretKind, text: &str) -> bool {
    text.strip_prefix(kind.prefix()).is_some_and(|rest| rest.len() == 64)
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
