//! Credential of the agent: the configured token, and the secret that an enrollment token was exchanged for.

use crate::hub_client::{ENROLLMENT_TOKEN_PREFIX, StoredSecret, load_secret, save_secret};
use std::path::{Path, PathBuf};

/// Configured token, and the file that it was read from.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentToken {
    /// Enrollment token or secret.
    pub text: String,
    /// File of the token. It is read again if the hub rejects the credential.
    pub file: Option<PathBuf>,
}

impl std::fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AgentToken({:?})", self.file)
    }
}

impl AgentToken {
    /// Token without a file.
    pub fn new(text: String) -> Self {
        Self { text, file: None }
    }

    /// Returns whether the token must be exchanged for a secret.
    pub fn is_enrollment_token(&self) -> bool {
        self.text.starts_with(ENROLLMENT_TOKEN_PREFIX)
    }
}

/// Configured token and current secret of a running agent.
pub(crate) struct AgentCredential {
    state_dir: PathBuf,
    token: Option<AgentToken>,
    stored: Option<StoredSecret>,
}

impl AgentCredential {
    pub(crate) fn load(state_dir: &Path, token: Option<AgentToken>) -> Self {
        Self { state_dir: state_dir.to_owned(), token, stored: load_secret(state_dir) }
    }

    /// Secret for requests; `None` before enrollment. A configured secret has precedence over the stored
    /// secret of an enrollment.
    pub(crate) fn secret(&self) -> Option<&str> {
        match &self.token {
            Some(token) if !token.is_enrollment_token() => Some(&token.text),
            _ => self.stored.as_ref().map(|stored| stored.secret.as_str()),
        }
    }

    /// Secret of an earlier enrollment.
    pub(crate) fn stored_secret(&self) -> Option<&str> {
        self.stored.as_ref().map(|stored| stored.secret.as_str())
    }

    /// Configured enrollment token.
    pub(crate) fn enrollment_token(&self) -> Option<&str> {
        self.token.as_ref().filter(|token| token.is_enrollment_token()).map(|token| token.text.as_str())
    }

    /// Enrollment token that was not used for the current secret. After a revocation, only such a token
    /// enrolls again: otherwise the token of the first enrollment would undo the revocation.
    pub(crate) fn new_enrollment_token(&self) -> Option<&str> {
        let is_used = |token: &&str| self.stored.as_ref().is_some_and(|stored| stored.is_from(token));
        self.enrollment_token().filter(|token| !is_used(token))
    }

    /// Stores the secret of an enrollment.
    pub(crate) fn enrolled(&mut self, secret: String) {
        let stored = StoredSecret::new(secret, self.enrollment_token());
        if let Err(error) = save_secret(&self.state_dir, &stored) {
            tracing::warn!(
                error = %error,
                "failed to save the agent secret; the agent must enroll again after a restart"
            );
        }
        self.stored = Some(stored);
    }

    /// Reads the token file again. Returns true if it contains another token.
    pub(crate) fn reload_token(&mut self) -> bool {
        let Some(token) = self.token.as_mut() else { return false };
        let Some(Ok(text)) = token.file.as_ref().map(std::fs::read_to_string) else { return false };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() || text == token.text {
            return false;
        }
        text.clone_into(&mut token.text);
        tracing::info!("agent token changed; reloaded its file");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_the_current_secret_is_not_new() {
        let folder = tempfile::tempdir().unwrap();
        let load =
            |token: &str| AgentCredential::load(folder.path(), Some(AgentToken::new(token.to_owned())));
        let mut first = load("pwe_1");
        assert_eq!((first.secret(), first.new_enrollment_token()), (None, Some("pwe_1")));
        first.enrolled("pwa_1".to_owned());
        let same = load("pwe_1");
        assert_eq!((same.secret(), same.new_enrollment_token()), (Some("pwa_1"), None));
        let other = load("pwe_2");
        assert_eq!((other.secret(), other.new_enrollment_token()), (Some("pwa_1"), Some("pwe_2")));
        assert_eq!(load("pwt_1").secret(), Some("pwt_1"));
    }

    #[test]
    fn changed_token_file_is_reloaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "pwt_1\n").unwrap();
        let token = AgentToken { text: "pwt_1".to_owned(), file: Some(path.clone()) };
        let mut credential = AgentCredential::load(folder.path(), Some(token));
        assert!(!credential.reload_token());
        std::fs::write(&path, "").unwrap();
        assert!(!credential.reload_token());
        std::fs::write(&path, "pwt_2\n").unwrap();
        assert!(credential.reload_token() && !credential.reload_token());
        assert_eq!(credential.secret(), Some("pwt_2"));
    }
}
