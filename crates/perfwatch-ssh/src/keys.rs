//! Host key verification and private key loading.

use crate::key_cost;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use perfwatch_model::remote_collector::SshAuth;
use russh::client::{DisconnectReason, Handler};
use russh::keys::ssh_encoding::{Decode as _, Encode as _};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKeyOrCertificate, decode_secret_key};
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Verifies the offered host key (`ssh-ed25519 SHA256:…`) and records a disconnect by the server.
///
/// Without a pinned key, any key is accepted: trust on first use (TOFU), as with an empty `known_hosts`.
/// The caller pins the key afterwards.
#[derive(Clone, Default)]
pub(crate) struct HostKeyVerifier {
    pinned: Option<String>,
    offered: Arc<Mutex<Option<String>>>,
    disconnected_by_server: Arc<AtomicBool>,
}

impl HostKeyVerifier {
    pub(crate) fn new(pinned: Option<String>) -> Self {
        Self { pinned, ..Self::default() }
    }

    /// Host key that the server offered, if the key exchange got that far.
    pub(crate) fn offered(&self) -> Option<String> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns true if the server sent a disconnect message (RFC 4253, 11.1).
    pub(crate) fn disconnected_by_server(&self) -> bool {
        self.disconnected_by_server.load(Ordering::Relaxed)
    }

    /// Returns true if the offered host key differs from the pinned key.
    pub(crate) fn is_mismatch(&self) -> bool {
        self.pinned.is_some() && self.offered().is_some_and(|offered| Some(offered) != self.pinned)
    }
}

impl Handler for HostKeyVerifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        // Certificate algorithms are not offered, so the server sends none.
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let offered = format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256));
        let is_accepted = self.pinned.as_ref().is_none_or(|pinned| *pinned == offered);
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = Some(offered);
        Ok(is_accepted)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => {
                self.disconnected_by_server.store(true, Ordering::Relaxed);
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// Host key algorithms with those of the pinned key first: a server with several host keys offers the
/// key of the first common algorithm.
pub(crate) fn preferred_host_key_algorithms(pinned: Option<&str>, defaults: &[Algorithm]) -> Vec<Algorithm> {
    let key_type = pinned.and_then(|key| key.split(' ').next()).unwrap_or_default();
    // An RSA key signs with several algorithms, but its type is always `ssh-rsa`.
    let is_pinned = |algorithm: &Algorithm| {
        algorithm.as_str() == key_type || (key_type == "ssh-rsa" && algorithm.clone().is_rsa())
    };
    let (mut algorithms, others): (Vec<_>, Vec<_>) = defaults.iter().cloned().partition(is_pinned);
    algorithms.extend(others);
    algorithms
}

/// Maximum size of an RSA key. Each connection computes a signature, whose cost is cubic in the size.
const MAX_RSA_BITS: u32 = 8_192;

/// Decodes the private key of the credential; `None` if the credential is a password.
///
/// # Errors
/// Returns the reason if the key is malformed or too expensive, or its passphrase is missing or wrong.
pub(crate) fn load_private_key(auth: &SshAuth) -> Result<Option<Arc<PrivateKey>>, String> {
    match auth {
        SshAuth::Password(_) => Ok(None),
        SshAuth::Key { key, passphrase } => decode(key, passphrase.as_ref()).map(|key| Some(Arc::new(key))),
    }
}

/// Opens a private key: decrypts it with its passphrase, and returns it without encryption.
///
/// # Errors
/// Returns the reason if the key is malformed or too expensive, or its passphrase is missing or wrong.
pub(crate) fn open_private_key(
    key: &SecretString,
    passphrase: Option<&SecretString>,
) -> Result<SecretString, String> {
    let decoded = decode(key, passphrase)?;
    let text = decoded.to_openssh(LineEnding::LF).map_err(|_| "private key cannot be stored".to_owned())?;
    Ok(text.as_str().into())
}

fn decode(key: &SecretString, passphrase: Option<&SecretString>) -> Result<PrivateKey, String> {
    key_cost::check(key.expose_secret())?;
    let passphrase = passphrase.map(|text| text.expose_secret());
    let decoded = decode_secret_key(key.expose_secret(), passphrase.filter(|text| !text.is_empty()));
    let decoded = decoded.or_else(|error| {
        pad_ecdsa_scalar(key.expose_secret()).and_then(|key| decode_secret_key(&key, None).ok()).ok_or(error)
    });
    match decoded {
        Ok(key) if key.is_encrypted() => Err("private key is encrypted; passphrase required".to_owned()),
        Ok(key) => match key.key_data() {
            KeypairData::Rsa(rsa) if rsa.public().key_size() > MAX_RSA_BITS => {
                Err(format!("RSA key exceeds {MAX_RSA_BITS} bits"))
            }
            _ => Ok(key),
        },
        Err(russh::keys::Error::KeyIsEncrypted) => {
            Err("private key is encrypted; passphrase required".to_owned())
        }
        Err(_) if passphrase.is_some() => {
            Err("private key cannot be decrypted with this passphrase".to_owned())
        }
        Err(_) => Err("not a private key in OpenSSH, PEM or PuTTY format".to_owned()),
    }
}

/// Re-encodes an unencrypted OpenSSH key (PROTOCOL.key) whose ECDSA scalar lacks leading zeros. OpenSSH
/// omits them (in 1 of 256 keys), but the library requires the full length. `None` for other keys.
fn pad_ecdsa_scalar(text: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
    const END: &str = "-----END OPENSSH PRIVATE KEY-----";
    const MAGIC: &[u8] = b"openssh-key-v1\0";
    const BLOCK_BYTES: usize = 8;
    let base64: String = text.split_once(BEGIN)?.1.split_once(END)?.0.split_ascii_whitespace().collect();
    let bytes = BASE64_STANDARD.decode(base64).ok()?;
    let mut outer = bytes.strip_prefix(MAGIC)?;
    let header = [read_string(&mut outer)?, read_string(&mut outer)?, read_string(&mut outer)?];
    let key_count = u32::decode(&mut outer).ok()?;
    let (public, private) = (read_string(&mut outer)?, read_string(&mut outer)?);
    if header[0] != b"none" || key_count != 1 {
        return None;
    }
    let mut inner = private.as_slice();
    let check_numbers = inner.split_off(..8)?;
    let [key_type, curve, point, scalar, comment] = [(); 5].map(|()| read_string(&mut inner));
    let (curve, scalar) = (curve?, scalar?);
    let scalar_len: usize = match curve.as_slice() {
        b"nistp256" => 32,
        b"nistp384" => 48,
        b"nistp521" => 66,
        _ => return None,
    };
    let missing = scalar_len.checked_sub(scalar.len()).filter(|missing| *missing > 0)?;
    let padded = [vec![0; missing], scalar].concat();
    let mut block = check_numbers.to_vec();
    for field in [key_type?, curve, point?, padded, comment?] {
        field.encode(&mut block).ok()?;
    }
    block.extend((1..=8_u8).take(block.len().next_multiple_of(BLOCK_BYTES) - block.len()));
    let mut out = MAGIC.to_vec();
    header.iter().try_for_each(|field| field.encode(&mut out)).ok()?;
    key_count.encode(&mut out).ok()?;
    public.encode(&mut out).ok()?;
    block.encode(&mut out).ok()?;
    Some(format!("{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(out)))
}

/// Reads a length and as many bytes (RFC 4251, 5).
fn read_string(reader: &mut &[u8]) -> Option<Vec<u8>> {
    Vec::<u8>::decode(reader).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key generated by ssh-keygen for this test; its scalar has 31 bytes.
    const SHORT_SCALAR: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQQi9Zxp6GnIA5cZWkJxLW/F7ZFFSCb/
vf2Cgf2vU9hEluEewF1HNSv1R9tXFibMY9Q8YPvTfG4E1aj7avT4PdMtAAAAoPb+zxb2/s
8WAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBCL1nGnoacgDlxla
QnEtb8XtkUVIJv+9/YKB/a9T2ESW4R7AXUc1K/VH21cWJsxj1Dxg+9N8bgTVqPtq9Pg90y
0AAAAfbPJ/Rl/ZoWVdr5RHb+h68cffGuk1NUzQprob1jOknQAAAAdyb290QHZtAQI=
-----END OPENSSH PRIVATE KEY-----
";

    #[test]
    fn short_ecdsa_scalars_are_padded() {
        let auth = |key: &str| SshAuth::Key { key: key.into(), passphrase: None };
        let key = load_private_key(&auth(SHORT_SCALAR)).unwrap().unwrap();
        let public = key.public_key().to_openssh().unwrap();
        assert!(
            public.contains(
                "BBBCL1nGnoacgDlxlaQnEtb8XtkUVIJv+9/YKB/a9T2ESW4R7AXUc1K/VH21cWJsxj1Dxg+9N8bgTVqPtq9Pg90y0"
            ),
            "{public}"
        );
        // Truncation at any byte is handled without a panic.
        for length in 0..SHORT_SCALAR.len() {
            let truncated = format!("{}\n-----END OPENSSH PRIVATE KEY-----\n", &SHORT_SCALAR[..length]);
            let _ = pad_ecdsa_scalar(&truncated);
        }
        assert!(load_private_key(&auth("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n")).is_err());
    }
}
