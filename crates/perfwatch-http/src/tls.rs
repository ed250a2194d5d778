//! TLS certificate of the listener, which is loaded again when its files change.

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use x509_cert::der::Decode as _;

/// Interval at which the certificate files are checked for changes.
const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// PEM files of a TLS certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate with its intermediate certificates.
    pub cert: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
}

/// Certificate that new connections use.
#[derive(Clone)]
pub(crate) struct Certificate(Arc<RwLock<LoadedCertificate>>);

#[derive(Clone)]
struct LoadedCertificate {
    config: Arc<ServerConfig>,
    /// First certificate of the file: that of the hub.
    own: CertificateDer<'static>,
}

impl Certificate {
    /// Loads the certificate.
    ///
    /// # Errors
    /// Returns an error that names the file if a file is missing or invalid, or the key does not match.
    pub(crate) fn load(files: &TlsFiles) -> io::Result<Self> {
        Ok(Self(Arc::new(RwLock::new(load_certificate(files)?))))
    }

    fn current(&self) -> LoadedCertificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Settings of a new connection.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.current().config
    }

    /// Returns whether the certificate is valid for a host name or address.
    pub(crate) fn names(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let own = self.current().own;
        let Ok(name) = ServerName::try_from(host) else { return false };
        ParsedCertificate::try_from(&own).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }

    /// Loads the certificate again when its files change or on request, until stopped.
    pub(crate) async fn reload(self, files: TlsFiles, reload: Arc<Notify>, stop: CancellationToken) {
        let mut loaded = certificate_mtime(&files);
        let mut ticks = tokio::time::interval(CERTIFICATE_POLL_INTERVAL);
        loop {
            let is_requested = tokio::select! {
                () = stop.cancelled() => return,
                () = reload.notified() => true,
                _ = ticks.tick() => false,
            };
            let current = certificate_mtime(&files);
            if !is_requested && (current.is_none() || current == loaded) {
                continue;
            }
            loaded = current;
            match load_certificate(&files) {
                Ok(certificate) => {
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
                    tracing::info!(path = %files.cert.display(), "TLS certificate reloaded");
                }
                // The file may be incomplete; the next change triggers another attempt.
                Err(error) => {
                    tracing::warn!(error = %error, "failed to load the TLS certificate; keeping the current one");
                }
            }
        }
    }
}

fn certificate_error(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

fn load_certificate(files: &TlsFiles) -> io::Result<LoadedCertificate> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| certificate_error(&files.cert, &error))?;
    let own =
        certificates.first().cloned().ok_or_else(|| certificate_error(&files.cert, &"no certificate"))?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| certificate_error(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| certificate_error(&files.cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(LoadedCertificate { config: Arc::new(config), own })
}

/// Times between which a certificate is valid, as Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateValidity {
    /// Start of the validity.
    pub not_before_s: u64,
    /// End of the validity.
    pub not_after_s: u64,
}

/// Loads certificate and key as the listener does, and returns the validity of the certificate.
///
/// # Errors
/// Returns an error that names the file if a file is missing or invalid, or the key does not match.
pub fn check_certificate(files: &TlsFiles) -> io::Result<CertificateValidity> {
    let own = load_certificate(files)?.own;
    let parsed = x509_cert::Certificate::from_der(&own);
    let validity = parsed.map_err(|error| certificate_error(&files.cert, &error))?.tbs_certificate.validity;
    Ok(CertificateValidity {
        not_before_s: validity.not_before.to_unix_duration().as_secs(),
        not_after_s: validity.not_after.to_unix_duration().as_secs(),
    })
}

/// Modification times of certificate and key; `None` if a file is missing.
fn certificate_mtime(files: &TlsFiles) -> Option<(SystemTime, SystemTime)> {
    let mtime = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    Some((mtime(&files.cert)?, mtime(&files.key)?))
}
