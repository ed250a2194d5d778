//! Keys: the one that a host shows, as it is pinned, and our own.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use perfwatch_model::remote_collector::SshAuth;
use russh::client::{DisconnectReason, Handler};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKeyOrCertificate, decode_secret_key};
use secrecy::ExposeSecret as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Looks at the key that the host shows: `ssh-ed25519 SHA256:…`; and hears when it says goodbye.
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

    /// The key that was shown.
    pub(crate) fn offered(&self) -> Option<String> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the host itself said that this is the end (RFC 4253, 11.1).
    pub(crate) fn disconnected_by_server(&self) -> bool {
        self.disconnected_by_server.load(Ordering::Relaxed)
    }

    /// Whether it is another than the pinned one.
    pub(crate) fn is_mismatch(&self) -> bool {
        self.pinned.is_some() && self.offered().is_some_and(|shown| Some(shown) != self.pinned)
    }
}

impl Handler for HostKeyVerifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        // Certificates are not asked for, so none comes.
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let shown = format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256));
        let fits = self.pinned.as_ref().is_none_or(|pin| *pin == shown);
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(fits)
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

/// The algorithms for host keys with the pinned key's first: a host that has several shows the
/// one that it was asked for.
pub(crate) fn preferred_host_key_algorithms(pin: Option<&str>, all: &[Algorithm]) -> Vec<Algorithm> {
    let name = pin.and_then(|pin| pin.split(' ').next()).unwrap_or_default();
    // One RSA key signs by several algorithms, which share the key's own name.
    let pinned = |one: &Algorithm| one.as_str() == name || (name == "ssh-rsa" && one.clone().is_rsa());
    let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(pinned);
    first.extend(rest);
    first
}

/// Our own key, ready to sign; or why it can't.
pub(crate) fn load_private_key(login: &SshAuth) -> Result<Option<Arc<PrivateKey>>, String> {
    let SshAuth::Key { key, passphrase } = login else { return Ok(None) };
    let passphrase = passphrase.as_ref().map(|text| text.expose_secret());
    let decoded = decode_secret_key(key.expose_secret(), passphrase.filter(|text| !text.is_empty()));
    let decoded = decoded.or_else(|error| {
        pad_ecdsa_scalar(key.expose_secret()).and_then(|key| decode_secret_key(&key, None).ok()).ok_or(error)
    });
    match decoded {
        Ok(key) => Ok(Some(Arc::new(key))),
        Err(russh::keys::Error::KeyIsEncrypted) => {
            Err("private key is encrypted; passphrase required".to_owned())
        }
        Err(_) if passphrase.is_some() => Err("the key can't be read with this passphrase".to_owned()),
        Err(_) => Err("not a private key in OpenSSH, PEM or PuTTY format".to_owned()),
    }
}

/// A length and as many bytes (RFC 4251, 5).
fn read_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (text, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    *rest = after;
    Some(text)
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
    out.extend(text);
}

/// OpenSSH leaves out the first zeros of an ECDSA key's number, as one in 256 has; the library wants
/// all of them. Such a key with its zeros, where it is one that is not locked (PROTOCOL.key).
fn pad_ecdsa_scalar(text: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
    const END: &str = "-----END OPENSSH PRIVATE KEY-----";
    let body = text.split_once(BEGIN)?.1.split_once(END)?.0;
    let body: String = body.split_ascii_whitespace().collect();
    let bytes = BASE64_STANDARD.decode(body).ok()?;
    let mut rest = bytes.as_slice();
    let magic = rest.split_off(..15)?;
    let (cipher, kdf, options) = (read_string(&mut rest)?, read_string(&mut rest)?, read_string(&mut rest)?);
    let count = rest.split_off(..4)?;
    let (public, mut inner) = (read_string(&mut rest)?, read_string(&mut rest)?);
    if magic != b"openssh-key-v1\0" || cipher != b"none" || count != [0, 0, 0, 1] {
        return None;
    }
    let checks = inner.split_off(..8)?;
    let (kind, curve, point) = (read_string(&mut inner)?, read_string(&mut inner)?, read_string(&mut inner)?);
    let (number, comment) = (read_string(&mut inner)?, read_string(&mut inner)?);
    let size: usize = match curve {
        b"nistp256" => 32,
        b"nistp384" => 48,
        b"nistp521" => 66,
        _ => return None,
    };
    let missing = size.checked_sub(number.len()).filter(|missing| *missing > 0)?;
    let mut block = checks.to_vec();
    let number = [vec![0; missing].as_slice(), number].concat();
    [kind, curve, point, &number, comment].into_iter().for_each(|text| write_string(&mut block, text));
    block.extend((1..=8_u8).take((8 - block.len() % 8) % 8));
    let mut out = magic.to_vec();
    [cipher, kdf, options].into_iter().for_each(|text| write_string(&mut out, text));
    out.extend(count);
    write_string(&mut out, public);
    write_string(&mut out, &block);
    Some(format!("{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(out)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by ssh-keygen for this test; its number has 31 bytes.
    const SHORT: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
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
        let login = |key: &str| SshAuth::Key { key: key.into(), passphrase: None };
        let key = load_private_key(&login(SHORT)).unwrap().unwrap();
        let shown = key.public_key().to_openssh().unwrap();
        assert!(
            shown.contains(
                "BBBCL1nGnoacgDlxlaQnEtb8XtkUVIJv+9/YKB/a9T2ESW4R7AXUc1K/VH21cWJsxj1Dxg+9N8bgTVqPtq9Pg90y0"
            ),
            "{shown}"
        );
        // Cut anywhere, it is no key, and stops nothing.
        for at in 0..SHORT.len() {
            let cut = format!("{}\n-----END OPENSSH PRIVATE KEY-----\n", &SHORT[..at]);
            let _ = pad_ecdsa_scalar(&cut);
        }
        assert!(load_private_key(&login("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n")).is_err());
    }
}
