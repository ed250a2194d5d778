//! Credentials of servers, and their encryption at rest.

use crate::server::{AuthMethod, Server};
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
        /// Text of the key file.
        key: String,
        /// Passphrase of an encrypted key.
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
    /// The credentials were encrypted with an unknown key or for another configuration.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
    /// The decrypted text is not in the expected form.
    #[error("credentials cannot be decrypted")]
    Malformed,
}

/// Additional authenticated data of encrypted credentials: the server's id, address, port, user and
/// jump host. Credentials that are copied to a server with another address cannot be decrypted.
pub(crate) fn credentials_aad(id: Uuid, server: &Server) -> Vec<u8> {
    let Server { address, port, user, jump, .. } = server;
    // Serializing strings and numbers never fails.
    serde_json::to_vec(&(id, address, port, user, jump)).unwrap_or_default()
}

/// Encrypts credentials for a server; `None` without an encryption key.
pub(crate) fn encrypt_credentials(
    keyring: &Keyring,
    id: Uuid,
    server: &Server,
    credentials: &Credentials,
) -> Option<Vec<u8>> {
    let text = serde_json::to_vec(credentials).ok()?;
    keyring.encrypt(&credentials_aad(id, server), &text)
}

/// Decrypts the credentials of a server.
pub(crate) fn decrypt_credentials(
    keyring: &Keyring,
    row: &ServerRow,
) -> Result<Credentials, CredentialsError> {
    let encrypted = row.encrypted_credentials.as_deref().ok_or(CredentialsError::Missing)?;
    let server = Server::from_row(row).ok_or(CredentialsError::UnreadableServer)?;
    let text = keyring.decrypt(&credentials_aad(row.id, &server), encrypted)?;
    serde_json::from_slice(&text).map_err(|_| CredentialsError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Thresholds;
    use perfwatch_model::HumanDuration;

    #[test]
    fn credentials_are_bound_to_the_address() {
        let server = Server {
            name: "db-1".to_owned(),
            address: "192.0.2.7".to_owned(),
            port: 22,
            user: "perfwatch".to_owned(),
            auth_method: AuthMethod::Password,
            jump: None,
            interval: HumanDuration::from_s(900),
            thresholds: Thresholds::default(),
        };
        let (keyring, id) = (Keyring::new(&[[1; 32]]), Uuid::from_u128(1));
        let credentials = Credentials::Password { password: "secret".to_owned() };
        let encrypted = encrypt_credentials(&keyring, id, &server, &credentials).unwrap();
        let decrypt = |id, server: &Server| {
            decrypt_credentials(&keyring, &ServerRow::new(id, server.to_body(), Some(encrypted.clone())))
        };
        let renamed = Server { name: "db-2".to_owned(), ..server.clone() };
        let Credentials::Password { password } = decrypt(id, &renamed).ok().unwrap() else { panic!() };
        assert_eq!(password, "secret");
        let moved = Server { address: "192.0.2.8".to_owned(), ..server.clone() };
        let via_jump = Server { jump: Some(Uuid::from_u128(2)), ..server.clone() };
        for (id, server) in [(id, &moved), (id, &via_jump), (Uuid::from_u128(3), &server)] {
            let error = decrypt(id, server).err();
            assert_eq!(error, Some(CredentialsError::Decrypt(DecryptError::Corrupt)));
        }
        let row = ServerRow::new(id, server.to_body(), None);
        assert_eq!(decrypt_credentials(&keyring, &row).err(), Some(CredentialsError::Missing));
    }
}
