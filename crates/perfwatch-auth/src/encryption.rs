//! Secrets that the hub must be able to read itself (how to enter other hosts, what channels need,
//! keys of second factors): sealed by a key that does not stand in the database, each for its own
//! door, so that a copy of the database does not open them, and one who can write to it can't have
//! them shown at another one.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Form, name of the key, nonce, then what is sealed with its tag (XChaCha20-Poly1305,
/// draft-irtf-cfrg-xchacha).
const FORMAT_VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;

/// Why something stays closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    #[error("encrypted with unknown key {0}; add it to hub.encryption_key")]
    UnknownKey(String),
    #[error("ciphertext is corrupt")]
    Corrupt,
}

struct EncryptionKey {
    name: [u8; KEY_ID_BYTES],
    cipher: XChaCha20Poly1305,
}

/// Says how many were sealed by the key of now, and how many can't be opened; nothing where others
/// changed them all the while.
pub fn log_reencryption(what: &str, done: Option<(usize, usize)>) {
    match done {
        Some((0, 0)) => {}
        Some((anew, 0)) => tracing::info!(what, anew, "re-encrypted secrets with the current key"),
        Some((_, closed)) => {
            tracing::error!(
                what,
                closed,
                "secrets are encrypted with an unknown key; add that key to hub.encryption_key"
            );
        }
        None => {
            tracing::error!(what, "failed to re-encrypt secrets; keep the previous key until the next start");
        }
    }
}

/// The keys: the first seals, all open.
pub struct Keyring {
    keys: Vec<EncryptionKey>,
}

impl Keyring {
    pub fn new(keys: &[[u8; 32]]) -> Self {
        let key = |key: &[u8; 32]| {
            // Which key it was, without a word of what it is.
            let digest = Sha256::new_with_prefix(b"perfwatch key name").chain_update(key).finalize();
            let mut name = [0; KEY_ID_BYTES];
            name.copy_from_slice(&digest[..KEY_ID_BYTES]);
            EncryptionKey { name, cipher: XChaCha20Poly1305::new(&(*key).into()) }
        };
        Self { keys: keys.iter().map(key).collect() }
    }

    /// Sealed for a place; opens nowhere else. None where there is no key, or no randomness.
    pub fn encrypt(&self, place: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        let sealed = key.cipher.encrypt(&nonce.into(), Payload { msg: secret, aad: place }).ok()?;
        Some([&[FORMAT_VERSION], &key.name[..], &nonce, &sealed].concat())
    }

    /// What is in there.
    pub fn decrypt(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, DecryptError> {
        let (head, rest) = sealed.split_at_checked(1 + KEY_ID_BYTES).ok_or(DecryptError::Corrupt)?;
        if head[0] != FORMAT_VERSION || rest.len() < NONCE_BYTES {
            return Err(DecryptError::Corrupt);
        }
        let key_id = || HEXLOWER.encode(&head[1..]);
        let key = self
            .keys
            .iter()
            .find(|key| key.name == head[1..])
            .ok_or_else(|| DecryptError::UnknownKey(key_id()))?;
        let (nonce, sealed) = rest.split_at(NONCE_BYTES);
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| DecryptError::Corrupt)?;
        key.cipher
            .decrypt(&nonce.into(), Payload { msg: sealed, aad: place })
            .map_err(|_| DecryptError::Corrupt)
    }

    /// Whether it should be sealed anew, by the first key.
    pub fn needs_reencryption(&self, sealed: &[u8]) -> bool {
        self.keys.first().is_some_and(|key| sealed.get(1..=KEY_ID_BYTES) != Some(&key.name[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decryption_requires_key_and_aad() {
        let keyring = Keyring::new(&[[1; 32]]);
        let sealed = keyring.encrypt(b"server 1", b"hunter2").unwrap();
        assert_ne!(sealed, keyring.encrypt(b"server 1", b"hunter2").unwrap());
        assert!(!sealed.windows(7).any(|bytes| bytes == b"hunter2"));
        assert_eq!(keyring.decrypt(b"server 1", &sealed).unwrap(), b"hunter2");
        assert_eq!(keyring.decrypt(b"server 2", &sealed), Err(DecryptError::Corrupt));
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(keyring.decrypt(b"server 1", &other).is_err(), "{at}");
            assert!(keyring.decrypt(b"server 1", &sealed[..at]).is_err(), "{at}");
        }
        // A new key seals, the one before it opens still; without it, one is told which is missing.
        let turned = Keyring::new(&[[2; 32], [1; 32]]);
        assert_eq!(turned.decrypt(b"server 1", &sealed).unwrap(), b"hunter2");
        assert!(turned.needs_reencryption(&sealed) && !keyring.needs_reencryption(&sealed));
        let anew = turned.encrypt(b"server 1", b"hunter2").unwrap();
        assert!(!turned.needs_reencryption(&anew));
        assert!(
            matches!(keyring.decrypt(b"server 1", &anew), Err(DecryptError::UnknownKey(name)) if name.len() == 8)
        );
        assert!(Keyring::new(&[]).encrypt(b"x", b"y").is_none());
    }
}
