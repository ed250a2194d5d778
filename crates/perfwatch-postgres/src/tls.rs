//! TLS to the database. Certificates are verified; local connections and `sslmode=disable` do not use TLS.
//! Parameters have the names of libpq (PostgreSQL manual, section 34.1.2).

use crate::error::error_chain;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Parameters of libpq that the client library does not implement.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsParams {
    mode: Option<SslMode>,
    authorities: Option<PathBuf>,
}

/// Separates the TLS parameters from a connection string.
fn split_tls_params(url: &str) -> Result<(String, TlsParams), String> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), TlsParams::default())) };
    let mut tls = TlsParams::default();
    let mut remaining = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => {
                tls.mode = Some(match mode {
                    "disable" => SslMode::Disable,
                    // All modes verify the certificate: an unverified certificate proves nothing.
                    "require" | "verify-ca" | "verify-full" => SslMode::Require,
                    other => {
                        let modes = "disable, require, verify-ca or verify-full";
                        return Err(format!("sslmode={other}; expected {modes}"));
                    }
                });
            }
            Some(("sslrootcert", path)) => tls.authorities = Some(path.replace("%2F", "/").into()),
            _ => remaining.push(pair),
        }
    }
    let query = if remaining.is_empty() { String::new() } else { format!("?{}", remaining.join("&")) };
    Ok((format!("{base}{query}"), tls))
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn client_config(authorities: Option<&PathBuf>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(path) = authorities else {
        let builder = builder.with_platform_verifier().map_err(|error| error.to_string())?;
        return Ok(builder.with_no_client_auth());
    };
    let invalid = |error: &dyn std::fmt::Display| format!("sslrootcert={}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| invalid(&error))? {
        let certificate = certificate.map_err(|error| invalid(&error))?;
        roots.add(certificate).map_err(|error| invalid(&error))?;
    }
    if roots.is_empty() {
        return Err(invalid(&"no certificate in the file (PEM)"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Configuration of the client, and the TLS connector for it.
pub(crate) fn parse_url(url: &str) -> Result<(Config, MakeRustlsConnect), String> {
    let (url, tls) = split_tls_params(url)?;
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| error_chain(&error))?;
    let is_local = config.get_hosts().iter().all(is_local);
    config.ssl_mode(tls.mode.unwrap_or(if is_local { SslMode::Disable } else { SslMode::Require }));
    Ok((config, MakeRustlsConnect::new(client_config(tls.authorities.as_ref())?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::connection_error;
    use std::io::{Read as _, Write as _};

    #[test]
    fn remote_connections_default_to_tls() {
        for (url, mode) in [
            ("postgres://u@db.example/d", SslMode::Require),
            ("postgres://u@db.example/d?sslmode=disable", SslMode::Disable),
            ("postgres://u@db.example/d?sslmode=verify-full&connect_timeout=5", SslMode::Require),
            ("postgres://u@localhost/d", SslMode::Disable),
            ("postgres://u@127.0.0.1/d?sslmode=require", SslMode::Require),
            ("postgres://u@%2Ftmp%2Fx/d", SslMode::Disable),
            ("postgres://u@localhost,db.example/d", SslMode::Require),
        ] {
            assert_eq!(parse_url(url).unwrap().0.get_ssl_mode(), mode, "{url}");
        }
        for (url, message) in [
            ("postgres://u@h/d?sslmode=prefer", "sslmode=prefer"),
            ("postgres://u@h/d?sslrootcert=%2Fnowhere", "sslrootcert=/nowhere"),
            ("postgres://u@h/d?nonsense=1", "nonsense"),
        ] {
            let error = parse_url(url).err().unwrap();
            assert!(error.contains(message), "{error}");
        }
    }

    #[tokio::test]
    async fn server_without_tls_names_the_parameter() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || {
            // The SSLRequest, and the reply of a server without TLS (PostgreSQL manual, section 53.2.11).
            let (mut client, _) = server.accept().unwrap();
            client.read_exact(&mut [0; 8]).unwrap();
            client.write_all(b"N").unwrap();
        });
        let (config, connector) = parse_url(&format!("postgres://u@{address}/d?sslmode=require")).unwrap();
        let error = connection_error(&config.connect(connector).await.err().unwrap());
        assert!(error.contains("does not support TLS; ") && error.contains("?sslmode=disable"), "{error}");
    }
}
