//! TLS to PostgreSQL: a certificate that no trusted authority signed is rejected.

use crate::support::as_dyn;
use perfwatch_model::SystemClock;
use perfwatch_store::*;
use perfwatch_testkit::Postgres;
use std::sync::Arc;

async fn connect(url: &str) -> Result<PostgresStore, StoreError> {
    PostgresStore::connect(url, "one".to_owned(), 1 << 30, Arc::new(SystemClock::new())).await
}

#[tokio::test]
async fn server_certificate_is_verified() {
    let authority = |name: &str| {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate().unwrap()).unwrap()
    };
    let (trusted, foreign) = (authority("trusted"), authority("foreign"));
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let cert = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &trusted).unwrap();
    let mut server = Postgres::start();
    server.database("tls");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server.restart_with_tls(&cert.pem(), &key.serialize_pem(), port);
    let file = |name: &str, text: String| {
        let path = server.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (trusted, foreign) = (file("trusted.pem", trusted.pem()), file("foreign.pem", foreign.pem()));
    let url = |parameters: &str| {
        format!("postgres://postgres@127.0.0.1:{port}/tls?sslmode=verify-full{parameters}")
    };
    let store = connect(&url(&format!("&sslrootcert={trusted}"))).await.unwrap();
    assert!(as_dyn(&store).list_hosts().await.unwrap().is_empty());
    let sql = "SELECT CAST(ssl AS TEXT) FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(store.query(sql, Vec::new()).await.unwrap()[0][0], SqlValue::Text("true".to_owned()));
    for parameters in ["", &format!("&sslrootcert={foreign}")] {
        let error = connect(&url(parameters)).await.err().unwrap().to_string();
        assert!(error.to_lowercase().contains("certificate"), "{error}");
    }
}
