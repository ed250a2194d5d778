//! Hubs that share live data through the primary of Redis Sentinel: they follow it to another server.

use crate::live_mirror::{recent, send};
use crate::support::{TestHub, eventually};
use perfwatch_testkit::Postgres;
use perfwatch_testkit::redis_sentinel::{RedisCertificate, RedisSentinel};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

fn certificate() -> RedisCertificate {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate with the name of its authority for self-signed.
    parameters.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = parameters.signed_by(&key, &authority).unwrap().pem();
    RedisCertificate { cert, key: key.serialize_pem(), authority: authority.pem() }
}

#[test]
fn live_data_continues_after_a_failover() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (database, mut redis) = (Postgres::start(), RedisSentinel::start(Some(&certificate())));
    let store = database.database("failover");
    let authority = redis.authority().display().to_string();
    let [a, b] = [0, 1].map(|index| {
        let args = ["hub", "--listen", "127.0.0.1:0", "--store", &store];
        let variables = [("PERFWATCH_HUB_REDIS", redis.url()), ("SSL_CERT_FILE", authority.clone())];
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        TestHub::start_with_env(folders[index].path(), &args, &variables)
    });
    send(&a, 1.0);
    eventually("the other hub has the snapshot", || recent(&b) == [1.0]);
    // A machine with a sentinel and the primary fails. The snapshots of the failover follow.
    redis.kill_sentinel(0);
    redis.kill_primary();
    send(&a, 2.0);
    eventually("the other hub has the snapshot of the failover", || recent(&b) == [1.0, 2.0]);
    send(&b, 3.0);
    eventually("both directions continue", || recent(&a) == [1.0, 2.0, 3.0]);
}
