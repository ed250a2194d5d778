//! Encryption of secrets that the hub must be able to read: SSH credentials, channel settings,
//! two-factor secrets. The key is not in the database, so that a copy of the database does not reveal
//! them. Each secret is bound to its place by additional authenticated data, so that an attacker with
//! write access to the database cannot move it to another server or channel.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Version of the format: version, key id, nonce, ciphertext with tag (XChaCha20-Poly1305,
/// draft-irtf-cfrg-xchacha).
const FORMAT_VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;

/// Reason why a secret cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The secret was encrypted with a key that is not configured; the value is its id.
    #[error("encrypted with unknown key {0}; add it to hub.encryption_key")]
    UnknownKey(String),
    /// The ciphertext was changed, or belongs to another place.
    #[error("ciphertext is corrupt")]
    Corrupt,
}

struct EncryptionKey {
    id: [u8; KEY_ID_BYTES],
    cipher: XChaCha20Poly1305,
}

/// Encryption keys: the first one encrypts, all decrypt.
pub struct Keyring {
    keys: Vec<EncryptionKey>,
}

impl Keyring {
    /// Keyring of 256-bit keys.
    pub fn new(keys: &[[u8; 32]]) -> Self {
        let key = |key: &[u8; 32]| {
            // The id identifies the key without revealing it.
            let digest = Sha256::new_with_prefix(b"perfwatch key id").chain_update(key).finalize();
            let mut id = [0; KEY_ID_BYTES];
            id.copy_from_slice(&digest[..KEY_ID_BYTES]);
            EncryptionKey { id, cipher: XChaCha20Poly1305::new(&(*key).into()) }
        };
        Self { keys: keys.iter().map(key).collect() }
    }

    /// Encrypts a secret bound to `aad`; `None` without a key or without randomness.
    pub fn encrypt(&self, aad: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        let ciphertext = key.cipher.encrypt(&nonce.into(), Payload { msg: secret, aad }).ok()?;
        Some([&[FORMAT_VERSION], &key.id[..], &nonce, &ciphertext].concat())
    }

    /// Decrypts a secret that was encrypted with the same `aad`.
    ///
    /// # Errors
    /// Returns [`DecryptError`] if the key is not configured or the ciphertext is corrupt.
    pub fn decrypt(&self, aad: &[u8], encrypted: &[u8]) -> Result<Vec<u8>, DecryptError> {
        let (header, body) = encrypted.split_at_checked(1 + KEY_ID_BYTES).ok_or(DecryptError::Corrupt)?;
        if header[0] != FORMAT_VERSION || body.len() < NONCE_BYTES {
            return Err(DecryptError::Corrupt);
        }
        let key_id = || HEXLOWER.encode(&header[1..]);
        let key = self
            .keys
            .iter()
            .find(|key| key.id == header[1..])
            .ok_or_else(|| DecryptError::UnknownKey(key_id()))?;
        let (nonce, ciphertext) = body.split_at(NONCE_BYTES);
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| DecryptError::Corrupt)?;
        key.cipher.decrypt(&nonce.into(), Payload { msg: ciphertext, aad }).map_err(|_| DecryptError::Corrupt)
    }

    /// Returns whether a secret was encrypted with another key than the first one.
    fn needs_reencryption(&self, encrypted: &[u8]) -> bool {
        self.keys.first().is_some_and(|key| encrypted.get(1..=KEY_ID_BYTES) != Some(&key.id[..]))
    }
}

/// Secret as it is stored.
#[derive(Clone, Copy)]
pub enum StoredSecret<'a> {
    /// Secret that was stored while no key was configured.
    Plain(&'a [u8]),
    /// Ciphertext with its key id.
    Encrypted(&'a [u8]),
}

/// Re-encryption of all secrets of a kind with the current key, after a key was added.
pub struct SecretRotation<'a> {
    keyring: &'a Keyring,
    kind: &'static str,
    reencrypted: usize,
    undecryptable: usize,
}

impl<'a> SecretRotation<'a> {
    /// Rotation of a kind of secret, named in the log.
    pub fn new(keyring: &'a Keyring, kind: &'static str) -> Self {
        Self { keyring, kind, reencrypted: 0, undecryptable: 0 }
    }

    /// Ciphertext that replaces a stored secret; `None` if the stored secret has to stay: it is
    /// encrypted with the current key, its key is not configured, or no key is.
    pub fn rotate(&mut self, aad: &[u8], stored: StoredSecret<'_>) -> Option<Vec<u8>> {
        let encrypted = match stored {
            StoredSecret::Plain(secret) => self.keyring.encrypt(aad, secret),
            StoredSecret::Encrypted(ciphertext) => match self.keyring.decrypt(aad, ciphertext) {
                Ok(secret) if self.keyring.needs_reencryption(ciphertext) => {
                    self.keyring.encrypt(aad, &secret)
                }
                Ok(_) => None,
                Err(_) => {
                    self.undecryptable += 1;
                    None
                }
            },
        };
        self.reencrypted += usize::from(encrypted.is_some());
        encrypted
    }

    /// Ciphertext that is bound to `aad` and replaces a ciphertext that may be bound to a former value;
    /// `None` if the stored secret has to stay.
    pub fn rebind(
        &mut self,
        aad: &[u8],
        former: impl IntoIterator<Item = Vec<u8>>,
        ciphertext: &[u8],
    ) -> Option<Vec<u8>> {
        if self.keyring.decrypt(aad, ciphertext).is_ok() {
            return self.rotate(aad, StoredSecret::Encrypted(ciphertext));
        }
        let secret = former.into_iter().find_map(|aad| self.keyring.decrypt(&aad, ciphertext).ok());
        match secret.and_then(|secret| self.keyring.encrypt(aad, &secret)) {
            Some(encrypted) => {
                self.reencrypted += 1;
                Some(encrypted)
            }
            None => self.rotate(aad, StoredSecret::Encrypted(ciphertext)),
        }
    }

    /// Logs the numbers of re-encrypted and undecryptable secrets after the commit.
    pub fn log(&self) {
        let Self { kind, reencrypted, undecryptable, .. } = self;
        if *undecryptable > 0 {
            tracing::error!(
                kind,
                undecryptable,
                "secrets are encrypted with an unknown key; add that key to hub.encryption_key"
            );
        } else if *reencrypted > 0 {
            tracing::info!(kind, reencrypted, "re-encrypted secrets with the current key");
        }
    }

    /// Logs that concurrent changes prevented the commit.
    pub fn log_conflict(kind: &str) {
        tracing::error!(kind, "failed to re-encrypt secrets; keep the previous key until the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decryption_requires_key_and_aad() {
        let keyring = Keyring::new(&[[1; 32]]);
        let encrypted = keyring.encrypt(b"server 1", b"hunter2").unwrap();
        assert_ne!(encrypted, keyring.encrypt(b"server 1", b"hunter2").unwrap());
        assert!(!encrypted.windows(7).any(|bytes| bytes == b"hunter2"));
        assert_eq!(keyring.decrypt(b"server 1", &encrypted).unwrap(), b"hunter2");
        assert_eq!(keyring.decrypt(b"server 2", &encrypted), Err(DecryptError::Corrupt));
        for at in 0..encrypted.len() {
            let mut other = encrypted.clone();
            other[at] ^= 1;
            assert!(keyring.decrypt(b"server 1", &other).is_err(), "{at}");
            assert!(keyring.decrypt(b"server 1", &encrypted[..at]).is_err(), "{at}");
        }
        // After a rotation the new key encrypts and the previous one still decrypts.
        let rotated = Keyring::new(&[[2; 32], [1; 32]]);
        assert_eq!(rotated.decrypt(b"server 1", &encrypted).unwrap(), b"hunter2");
        assert!(rotated.needs_reencryption(&encrypted) && !keyring.needs_reencryption(&encrypted));
        let reencrypted = rotated.encrypt(b"server 1", b"hunter2").unwrap();
        assert!(!rotated.needs_reencryption(&reencrypted));
        assert!(
            matches!(keyring.decrypt(b"server 1", &reencrypted), Err(DecryptError::UnknownKey(name)) if name.len() == 8)
        );
        assert!(Keyring::new(&[]).encrypt(b"x", b"y").is_none());
    }

    #[test]
    fn rotation_replaces_plain_and_outdated_secrets_only() {
        let (old, new) = (Keyring::new(&[[1; 32]]), Keyring::new(&[[2; 32], [1; 32]]));
        let (outdated, current) = (old.encrypt(b"a", b"x").unwrap(), new.encrypt(b"a", b"x").unwrap());
        let lost = Keyring::new(&[[3; 32]]).encrypt(b"a", b"x").unwrap();
        let mut rotation = SecretRotation::new(&new, "test");
        let mut rotate = |stored| rotation.rotate(b"a", stored).map(|text| new.decrypt(b"a", &text).unwrap());
        assert_eq!(rotate(StoredSecret::Plain(b"x")), Some(b"x".to_vec()));
        assert_eq!(rotate(StoredSecret::Encrypted(&outdated)), Some(b"x".to_vec()));
        assert_eq!(rotate(StoredSecret::Encrypted(&current)), None);
        assert_eq!(rotate(StoredSecret::Encrypted(&lost)), None);
        assert_eq!((rotation.reencrypted, rotation.undecryptable), (2, 1));
        let rebound = rotation.rebind(b"b", [b"x".to_vec(), b"a".to_vec()], &current).unwrap();
        assert_eq!(new.decrypt(b"b", &rebound).as_deref(), Ok(&b"x"[..]));
        assert!(rotation.rebind(b"b", [b"a".to_vec()], &rebound).is_none());
        assert!(rotation.rebind(b"b", [b"x".to_vec()], &current).is_none());
        let empty = Keyring::new(&[]);
        assert_eq!(SecretRotation::new(&empty, "test").rotate(b"a", StoredSecret::Plain(b"x")), None);
    }
}
