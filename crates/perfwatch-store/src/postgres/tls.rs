//! How the database is reached: TLS with its certificate verified, unless it is on this machine or
//! the address says `sslmode=disable`. Parameters are named as in libpq (PostgreSQL manual, 34.1.2).

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

/// What libpq knows and the client library does not.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsParams {
    mode: Option<SslMode>,
    authorities: Option<PathBuf>,
}

/// Takes the parameters about TLS out of an address.
fn split_tls_params(url: &str) -> Result<(String, TlsParams), String> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), TlsParams::default())) };
    let mut wish = TlsParams::default();
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => {
                wish.mode = Some(match mode {
                    "disable" => SslMode::Disable,
                    // All of them verify: a certificate that nobody looked at proves nothing.
                    "require" | "verify-ca" | "verify-full" => SslMode::Require,
                    other => {
                        let known = "disable, require, verify-ca or verify-full";
                        return Err(format!("sslmode={other}: write {known}"));
                    }
                });
            }
            Some(("sslrootcert", path)) => wish.authorities = Some(path.replace("%2F", "/").into()),
            _ => rest.push(pair),
        }
    }
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{base}{query}"), wish))
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn client(authorities: Option<&PathBuf>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(path) = authorities else {
        let builder = builder.with_platform_verifier().map_err(|error| error.to_string())?;
        return Ok(builder.with_no_client_auth());
    };
    let broken = |error: &dyn std::fmt::Display| format!("sslrootcert={}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(&error))? {
        let certificate = certificate.map_err(|error| broken(&error))?;
        roots.add(certificate).map_err(|error| broken(&error))?;
    }
    if roots.is_empty() {
        return Err(broken(&"no certificate in it (PEM)"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// An address, and who makes connections to it.
pub(super) fn parse_url(url: &str) -> Result<(Config, MakeRustlsConnect), String> {
    let (plain, wish) = split_tls_params(url)?;
    let mut config: Config =
        plain.parse().map_err(|error: tokio_postgres::Error| super::error_chain(&error))?;
    let here = config.get_hosts().iter().all(is_local);
    config.ssl_mode(wish.mode.unwrap_or(if here { SslMode::Disable } else { SslMode::Require }));
    Ok((config, MakeRustlsConnect::new(client(wish.authorities.as_ref())?)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (url, why) in [
            ("postgres://u@h/d?sslmode=prefer", "sslmode=prefer"),
            ("postgres://u@h/d?sslrootcert=%2Fnowhere", "sslrootcert=/nowhere"),
            ("postgres://u@h/d?nonsense=1", "nonsense"),
        ] {
            let error = parse_url(url).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
    }
}
