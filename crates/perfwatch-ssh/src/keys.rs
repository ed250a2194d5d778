//! Keys: the one that a host shows, as it is pinned, and our own.

use perfwatch_model::remote::Login;
use russh::client::{DisconnectReason, Handler};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKeyOrCertificate, decode_secret_key};
use secrecy::ExposeSecret as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Looks at the key that the host shows: `ssh-ed25519 SHA256:…`; and hears when it says goodbye.
#[derive(Clone, Default)]
pub(crate) struct Doorman {
    pin: Option<String>,
    shown: Arc<Mutex<Option<String>>>,
    dismissed: Arc<AtomicBool>,
}

impl Doorman {
    pub(crate) fn new(pin: Option<String>) -> Self {
        Self { pin, ..Self::default() }
    }

    /// The key that was shown.
    pub(crate) fn shown(&self) -> Option<String> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the host itself said that this is the end (RFC 4253, 11.1).
    pub(crate) fn dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    /// Whether it is another than the pinned one.
    pub(crate) fn refused(&self) -> bool {
        self.pin.is_some() && self.shown().is_some_and(|shown| Some(shown) != self.pin)
    }
}

impl Handler for Doorman {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        // Certificates are not asked for, so none comes.
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let shown = format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256));
        let fits = self.pin.as_ref().is_none_or(|pin| *pin == shown);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(fits)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => {
                self.dismissed.store(true, Ordering::Relaxed);
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// The algorithms for host keys with the pinned key's first: a host that has several shows the
/// one that it was asked for.
pub(crate) fn preferred(pin: Option<&str>, all: &[Algorithm]) -> Vec<Algorithm> {
    let name = pin.and_then(|pin| pin.split(' ').next()).unwrap_or_default();
    // One RSA key signs by several algorithms, which share the key's own name.
    let pinned = |one: &Algorithm| one.as_str() == name || (name == "ssh-rsa" && one.clone().is_rsa());
    let (mut first, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(pinned);
    first.extend(rest);
    first
}

/// Our own key, ready to sign; or why it can't.
pub(crate) fn own(login: &Login) -> Result<Option<Arc<PrivateKey>>, String> {
    let Login::Key { key, passphrase } = login else { return Ok(None) };
    let passphrase = passphrase.as_ref().map(|text| text.expose_secret());
    match decode_secret_key(key.expose_secret(), passphrase.filter(|text| !text.is_empty())) {
        Ok(key) => Ok(Some(Arc::new(key))),
        Err(russh::keys::Error::KeyIsEncrypted) => {
            Err("the key is locked: its passphrase is needed".to_owned())
        }
        Err(_) if passphrase.is_some() => Err("the key can't be read with this passphrase".to_owned()),
        Err(_) => Err("this is no private key in OpenSSH's, PEM's or PuTTY's form".to_owned()),
    }
}
