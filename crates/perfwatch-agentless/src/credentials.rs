//! Credentials of servers, and their encryption at rest.

use crate::server::{AuthMethod, Server};
use crate::ssh_path::SshPath;
use perfwatch_auth::encryption::{DecryptError, Keyring};
use perfwatch_model::remote_collector::SshAuth;
use perfwatch_store::servers::ServerRow;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Credentials of a server, in the form that is encrypted.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Credentials {
    /// Password of the account.
    Password {
        /// Text of the password.
        password: String,
    },
    /// Private key of the account.
    Key {
        /// Text of the key file, without encryption.
        key: String,
        /// Passphrase of a key that was stored encrypted by an earlier version.
        #[serde(default)]
        passphrase: Option<String>,
    },
}

impl Credentials {
    /// Returns the authentication method of the credentials.
    pub fn auth_method(&self) -> AuthMethod {
        match self {
            Self::Password { .. } => AuthMethod::Password,
            Self::Key { .. } => AuthMethod::Key,
        }
    }

    /// Converts the credentials to those of an SSH login.
    pub fn into_ssh_auth(self) -> SshAuth {
        match self {
            Self::Password { password } => SshAuth::Password(password.into()),
            Self::Key { key, passphrase } => {
                SshAuth::Key { key: key.into(), passphrase: passphrase.map(Into::into) }
            }
        }
    }
}

/// Reason why credentials cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The server has no stored credentials.
    #[error("no credentials")]
    Missing,
    /// The configuration that the credentials are bound to cannot be parsed.
    #[error("server record is unreadable")]
    UnreadableServer,
    /// The credentials were encrypted with an unknown key or for another path.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
    /// The decrypted text is not in the expected form.
    #[error("credentials cannot be decrypted")]
    Malformed,
}

/// Credentials of a row after decryption.
pub(crate) struct DecryptedCredentials {
    pub(crate) credentials: Credentials,
    /// The same credentials for the path with the host keys that were pinned since; `None` if nothing
    /// changed.
    pub(crate) rebound: Option<Vec<u8>>,
}

/// Id, address, port, user and jump host of a server: identifies cached summaries, and authenticated
/// the credentials in versions before they were bound to the whole path.
pub(crate) fn endpoint_bytes(id: Uuid, server: &Server) -> Vec<u8> {
    let Server { address, port, user, jump, .. } = server;
    // Serializing strings and numbers never fails.
    serde_json::to_vec(&(id, address, port, user, jump)).unwrap_or_default()
}

/// Encrypts credentials for a path; `None` without an encryption key.
pub(crate) fn encrypt_credentials(
    keyring: &Keyring,
    id: Uuid,
    user: &str,
    path: &SshPath,
    credentials: &Credentials,
) -> Option<Vec<u8>> {
    let text = serde_json::to_vec(credentials).ok()?;
    keyring.encrypt(&path.aad(id, user), &text)
}

/// Decrypts the credentials of a server that is reached on a path.
pub(crate) fn decrypt_credentials(
    keyring: &Keyring,
    row: &ServerRow,
    path: &SshPath,
) -> Result<DecryptedCredentials, CredentialsError> {
    let encrypted = row.encrypted_credentials.as_deref().ok_or(CredentialsError::Missing)?;
    let server = Server::from_row(row).ok_or(CredentialsError::UnreadableServer)?;
    let aad = path.aad(row.id, &server.user);
    let (text, is_current) = match keyring.decrypt(&aad, encrypted) {
        Ok(text) => (text, true),
        Err(error) => {
            let mut earlier = path.before_pinning();
            let text =
                earlier.find_map(|path| keyring.decrypt(&path.aad(row.id, &server.user), encrypted).ok());
            (text.ok_or(error)?, false)
        }
    };
    let credentials = serde_json::from_slice(&text).map_err(|_| CredentialsError::Malformed)?;
    let rebound = if is_current { None } else { keyring.encrypt(&aad, &text) };
    Ok(DecryptedCredentials { credentials, rebound })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Thresholds;
    use perfwatch_model::HumanDuration;

    fn server(address: &str, jump: Option<Uuid>) -> Server {
        Server {
            name: "db-1".to_owned(),
            address: address.to_owned(),
            port: 22,
            user: "perfwatch".to_owned(),
            auth_method: AuthMethod::Password,
            jump,
            interval: HumanDuration::from_s(900),
            thresholds: Thresholds::default(),
        }
    }

    fn row(id: u128, server: &Server, host_key: Option<&str>) -> ServerRow {
        let row = ServerRow::new(Uuid::from_u128(id), server.to_body(), None);
        ServerRow { host_key: host_key.map(str::to_owned), ..row }
    }

    /// Finding H1: a password is sent only on the path that it was entered for.
    #[test]
    fn credentials_are_bound_to_the_whole_path() {
        let keyring = Keyring::new(&[[1; 32]]);
        let gate_id = Uuid::from_u128(2);
        let (target, gate) = (server("192.0.2.7", Some(gate_id)), server("192.0.2.1", None));
        let rows = (row(1, &target, None), row(2, &gate, Some("ssh-ed25519 SHA256:gate")));
        let credentials = Credentials::Password { password: "secret".to_owned() };
        let path = SshPath::new(&rows.0, [&rows.1]).unwrap();
        let encrypted = encrypt_credentials(&keyring, rows.0.id, "perfwatch", &path, &credentials);
        let stored = ServerRow { encrypted_credentials: encrypted, ..rows.0.clone() };
        let decrypt = |target: &ServerRow, gate: &ServerRow| {
            let path = SshPath::new(target, [gate]).unwrap();
            decrypt_credentials(&keyring, target, &path)
        };
        let Credentials::Password { password } = decrypt(&stored, &rows.1).ok().unwrap().credentials else {
            panic!("not a password")
        };
        assert_eq!(password, "secret");
        // A rename changes nothing, and neither does the first key of the target.
        let renamed = Server { name: "db-2".to_owned(), ..target.clone() };
        assert!(decrypt(&ServerRow { body: renamed.to_body(), ..stored.clone() }, &rows.1).is_ok());
        let pinned = ServerRow { host_key: Some("ssh-ed25519 SHA256:db".to_owned()), ..stored.clone() };
        let rebound = decrypt(&pinned, &rows.1).ok().unwrap().rebound;
        assert!(rebound.is_some() && decrypt(&stored, &rows.1).is_ok_and(|found| found.rebound.is_none()));
        let pinned = ServerRow { encrypted_credentials: rebound, ..pinned };
        assert!(decrypt(&pinned, &rows.1).is_ok_and(|found| found.rebound.is_none()));
        let moved = |server: &Server, address: &str, port, user: &str| {
            Server { address: address.to_owned(), port, user: user.to_owned(), ..server.clone() }.to_body()
        };
        for (target, gate) in [
            (
                ServerRow { body: moved(&target, "192.0.2.8", 22, "perfwatch"), ..pinned.clone() },
                rows.1.clone(),
            ),
            (
                ServerRow { body: moved(&target, "192.0.2.7", 23, "perfwatch"), ..pinned.clone() },
                rows.1.clone(),
            ),
            (ServerRow { body: moved(&target, "192.0.2.7", 22, "root"), ..pinned.clone() }, rows.1.clone()),
            (ServerRow { host_key: Some("other".to_owned()), ..pinned.clone() }, rows.1.clone()),
            (ServerRow { host_key: None, ..pinned.clone() }, rows.1.clone()),
            (
                pinned.clone(),
                ServerRow { body: moved(&gate, "192.0.2.9", 22, "perfwatch"), ..rows.1.clone() },
            ),
            (pinned.clone(), ServerRow { body: moved(&gate, "192.0.2.1", 2, "perfwatch"), ..rows.1.clone() }),
            (pinned.clone(), ServerRow { host_key: Some("other".to_owned()), ..rows.1.clone() }),
            (pinned.clone(), ServerRow { host_key: None, ..rows.1.clone() }),
            (ServerRow { id: Uuid::from_u128(3), ..pinned.clone() }, rows.1.clone()),
        ] {
            let error = decrypt(&target, &gate).err();
            assert_eq!(error, Some(CredentialsError::Decrypt(DecryptError::Corrupt)), "{target:?} {gate:?}");
        }
        let direct = SshPath::new(&pinned, []).unwrap();
        assert!(decrypt_credentials(&keyring, &pinned, &direct).is_err());
        let empty = ServerRow { encrypted_credentials: None, ..pinned };
        assert_eq!(decrypt(&empty, &rows.1).err(), Some(CredentialsError::Missing));
    }
}
