//! Secrets that the hub must be able to read itself (how to enter other hosts, what channels need,
//! keys of second factors): sealed by a key that does not stand in the database, each for its own
//! door, so that a copy of the database does not open them, and one who can write to it can't have
//! them shown at another one.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use sha2::{Digest as _, Sha256};

/// Form, name of the key, nonce, then what is sealed with its tag (XChaCha20-Poly1305,
/// draft-irtf-cfrg-xchacha).
const FORM: u8 = 1;
const NAME: usize = 4;
const NONCE: usize = 24;

/// Why something stays closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VaultError {
    #[error(
        "it was sealed by a key that this hub does not have (its name begins with {0}): set hub.secret_key to that key"
    )]
    OtherKey(String),
    #[error("it is damaged")]
    Damaged,
}

struct Key {
    name: [u8; NAME],
    cipher: XChaCha20Poly1305,
}

/// Says how many were sealed by the key of now, and how many can't be opened; nothing where others
/// changed them all the while.
pub(crate) fn resealed(what: &str, done: Option<(usize, usize)>) {
    match done {
        Some((0, 0)) => {}
        Some((anew, 0)) => tracing::info!(what, anew, "sealed by the key of now"),
        Some((_, closed)) => {
            tracing::error!(
                what,
                closed,
                "sealed by a key that this hub does not have: set hub.secret_key to it"
            );
        }
        None => {
            tracing::error!(
                what,
                "could not be sealed by the key of now: keep the one before until the next start"
            );
        }
    }
}

/// The keys: the first seals, all open.
pub(crate) struct Vault {
    keys: Vec<Key>,
}

impl Vault {
    pub(crate) fn new(keys: &[[u8; 32]]) -> Self {
        let key = |key: &[u8; 32]| {
            // Which key it was, without a word of what it is.
            let digest = Sha256::new_with_prefix(b"perfwatch key name").chain_update(key).finalize();
            let mut name = [0; NAME];
            name.copy_from_slice(&digest[..NAME]);
            Key { name, cipher: XChaCha20Poly1305::new(&(*key).into()) }
        };
        Self { keys: keys.iter().map(key).collect() }
    }

    /// Sealed for a place; opens nowhere else. None where there is no key, or no randomness.
    pub(crate) fn seal(&self, place: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let sealed = key.cipher.encrypt(&nonce.into(), Payload { msg: secret, aad: place }).ok()?;
        Some([&[FORM], &key.name[..], &nonce, &sealed].concat())
    }

    /// What is in there.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (head, rest) = sealed.split_at_checked(1 + NAME).ok_or(VaultError::Damaged)?;
        if head[0] != FORM || rest.len() < NONCE {
            return Err(VaultError::Damaged);
        }
        let hex = || head[1..].iter().map(|byte| format!("{byte:02x}")).collect();
        let key =
            self.keys.iter().find(|key| key.name == head[1..]).ok_or_else(|| VaultError::OtherKey(hex()))?;
        let (nonce, sealed) = rest.split_at(NONCE);
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| VaultError::Damaged)?;
        key.cipher
            .decrypt(&nonce.into(), Payload { msg: sealed, aad: place })
            .map_err(|_| VaultError::Damaged)
    }

    /// Whether it should be sealed anew, by the first key.
    pub(crate) fn is_old(&self, sealed: &[u8]) -> bool {
        self.keys.first().is_some_and(|key| sealed.get(1..=NAME) != Some(&key.name[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_with_its_key_at_its_place_only() {
        let vault = Vault::new(&[[1; 32]]);
        let sealed = vault.seal(b"server 1", b"hunter2").unwrap();
        assert_ne!(sealed, vault.seal(b"server 1", b"hunter2").unwrap());
        assert!(!sealed.windows(7).any(|bytes| bytes == b"hunter2"));
        assert_eq!(vault.open(b"server 1", &sealed).unwrap(), b"hunter2");
        assert_eq!(vault.open(b"server 2", &sealed), Err(VaultError::Damaged));
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(vault.open(b"server 1", &other).is_err(), "{at}");
            assert!(vault.open(b"server 1", &sealed[..at]).is_err(), "{at}");
        }
        // A new key seals, the one before it opens still; without it, one is told which is missing.
        let turned = Vault::new(&[[2; 32], [1; 32]]);
        assert_eq!(turned.open(b"server 1", &sealed).unwrap(), b"hunter2");
        assert!(turned.is_old(&sealed) && !vault.is_old(&sealed));
        let anew = turned.seal(b"server 1", b"hunter2").unwrap();
        assert!(!turned.is_old(&anew));
        assert!(matches!(vault.open(b"server 1", &anew), Err(VaultError::OtherKey(name)) if name.len() == 8));
        assert!(Vault::new(&[]).seal(b"x", b"y").is_none());
    }
}
