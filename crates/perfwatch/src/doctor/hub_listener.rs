//! Checks of the listener: certificate, port, the hub that may run there, open files.

use super::report::Report;
use crate::commands::health::local_url;
use crate::open_files;
use perfwatch_agent::HubClient;
use perfwatch_hub::{HubConfig, TlsFiles, check_certificate};
use perfwatch_model::HumanDuration;
use rustix::process::{Resource, getrlimit};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Timeout of a connection and of a request to this machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Remaining validity of a certificate that needs attention.
const MIN_VALIDITY_MS: i64 = 14 * 86_400_000;

/// Loads certificate and key, and checks the dates of the certificate.
pub(super) fn check_certificate_files(report: &mut Report, files: Option<&TlsFiles>, now_ms: i64) {
    const CHECK: &str = "certificate";
    let Some(files) = files else { return };
    let validity = match check_certificate(files) {
        Ok(validity) => validity,
        Err(error) => {
            let advice =
                "correct hub.tls.cert and hub.tls.key; the user of the hub must be able to read both";
            return report.error(CHECK, format!("hub.tls: {error}"), advice);
        }
    };
    let ms = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
    let days = |ms: i64| HumanDuration::from_ms(ms / 86_400_000 * 86_400_000);
    let remaining_ms = ms(validity.not_after_s).saturating_sub(now_ms);
    let path = files.cert.display();
    if ms(validity.not_before_s) > now_ms {
        report.error(CHECK, format!("{path} is not valid yet"), "check the clock and the certificate");
    } else if remaining_ms <= 0 {
        report.error(CHECK, format!("{path} has expired"), "renew the certificate; the hub loads it again");
    } else if remaining_ms < MIN_VALIDITY_MS {
        report.warning(
            CHECK,
            format!("{path} expires in {}", days(remaining_ms)),
            "renew the certificate; the hub loads it again",
        );
    } else {
        report.ok(CHECK, format!("{path} is valid for {}", days(remaining_ms)));
    }
}

/// Checks the port: free, or used by a hub.
pub(super) fn check_listener(report: &mut Report, config: &HubConfig) {
    const CHECK: &str = "port";
    let listen = config.listen;
    if config.is_exposed_unencrypted(listen) {
        report.warning(
            CHECK,
            format!("{listen} accepts connections of other machines without encryption"),
            "set hub.tls, or a reverse proxy in hub.trusted_proxies (docs/PROXIES.md)",
        );
    }
    match local_url(&listen.to_string()) {
        Ok(url) if listen.port() != 0 && is_open(&url) => check_running(report, &url),
        _ => match TcpListener::bind(listen) {
            Ok(_) => report.ok(CHECK, format!("{listen} is free; no hub runs")),
            Err(error) => {
                report.error(CHECK, format!("cannot listen on {listen}: {error}"), bind_advice(&error));
            }
        },
    }
}

fn is_open(url: &str) -> bool {
    let address = url.trim_start_matches("http://").parse::<SocketAddr>();
    address.is_ok_and(|address| TcpStream::connect_timeout(&address, REQUEST_TIMEOUT).is_ok())
}

fn bind_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "another program uses the port: ss -ltnp shows it; or set hub.listen",
        ErrorKind::AddrNotAvailable => "hub.listen must be an address of this machine, or 0.0.0.0",
        ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= of the unit), or set hub.listen"
        }
        _ => "correct hub.listen",
    }
}

/// Checks the program that uses the port.
fn check_running(report: &mut Report, url: &str) {
    let Ok(client) = HubClient::new(url, None) else { return };
    // A TLS port answers both probes without TLS.
    let get = |path| client.get(path, None, Some(REQUEST_TIMEOUT));
    match get("/healthz") {
        Ok(response) if response.status == 200 && response.body == "ok\n" => {
            report.ok("port", format!("a hub runs at {url}"));
        }
        _ => {
            let advice = "stop the other program (ss -ltnp shows it), or set hub.listen";
            return report.error("port", format!("{url} is used by a program that is not a hub"), advice);
        }
    }
    match get("/readyz") {
        Ok(response) if response.status == 200 => report.ok("ingestion", "the hub accepts snapshots"),
        Ok(response) => report.error(
            "ingestion",
            format!("the hub accepts no snapshots: {}", response.error("message")),
            "its log has the reason: journalctl -u perfwatch; most often the disk or the database",
        ),
        Err(error) => report.error("ingestion", error, "restart the hub: systemctl restart perfwatch"),
    }
}

/// The hub raises its own limit to the maximum, which must suffice for all connections.
pub(super) fn check_open_files(report: &mut Report, max_connections: usize) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let maximum = maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap_or(usize::MAX));
    report_open_files(report, max_connections, maximum);
}

fn report_open_files(report: &mut Report, max_connections: usize, maximum: usize) {
    let connections = open_files::max_connections(maximum);
    if connections < max_connections {
        report.warning(
            "open files",
            format!("the limit of {maximum} allows {connections} of {max_connections} connections"),
            "raise LimitNOFILE= of the unit, or lower hub.limits.max_connections",
        );
    } else {
        report.ok("open files", format!("enough for {max_connections} connections"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::CheckStatus::{Error, Ok, Warning};
    use super::*;
    use std::io::{Read as _, Write as _};

    fn check(listen: SocketAddr) -> Report {
        let mut report = Report::default();
        check_listener(&mut report, &HubConfig { listen, ..HubConfig::default() });
        report
    }

    #[test]
    fn ports_are_free_or_used_by_a_hub() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(check(address).result_of("port").0, Ok);
        let (status, text) = check("192.0.2.1:8000".parse().unwrap()).result_of("port");
        assert!(status == Error && text.contains("an address of this machine"), "{text}");
        let report = check("0.0.0.0:0".parse().unwrap());
        assert_eq!((report.result_of("port").0, report.status()), (Ok, Warning), "without encryption");
    }

    /// Program that answers requests with the given bodies.
    fn serve(bodies: &'static [(&'static str, &'static str)]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            // The first connection only shows that the port is used.
            drop(listener.accept().unwrap());
            for (status, body) in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4_096]).unwrap();
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn programs_on_the_port_are_distinguished() {
        let (status, text) = check(serve(&[("200 OK", "<html>")])).result_of("port");
        assert!(status == Error && text.contains("not a hub"), "{text}");
        let report = check(serve(&[("200 OK", "ok\n"), ("200 OK", "ready\n")]));
        assert_eq!((report.result_of("port").0, report.result_of("ingestion").0), (Ok, Ok));
        let full = r#"{"error":{"message":"the disk is full"}}"#;
        let leak: &'static [_] = vec![("200 OK", "ok\n"), ("503 Service Unavailable", full)].leak();
        let (status, text) = check(serve(leak)).result_of("ingestion");
        assert!(status == Error && text.contains("the disk is full"), "{text}");
    }

    #[test]
    fn bind_errors_have_remedies() {
        for (kind, expected) in [
            (ErrorKind::AddrInUse, "ss -ltnp"),
            (ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (ErrorKind::AddrNotAvailable, "0.0.0.0"),
        ] {
            assert!(bind_advice(&kind.into()).contains(expected));
        }
    }

    #[test]
    fn too_few_open_files_are_found() {
        let check = |maximum| {
            let mut report = Report::default();
            report_open_files(&mut report, 1_000, maximum);
            report.result_of("open files")
        };
        assert_eq!((check(1_700).0, check(usize::MAX).0), (Ok, Ok));
        let (status, text) = check(1_024);
        assert!(status == Warning && text.contains("504 of 1000"), "{text}");
    }

    #[test]
    fn certificates_are_loaded_and_dated() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let check = |now_ms| {
            let mut report = Report::default();
            check_certificate_files(&mut report, Some(&files), now_ms);
            report.result_of("certificate")
        };
        assert!(check(0).1.contains("cert.pem"), "missing");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2030, 1, 1), rcgen::date_time_ymd(2030, 7, 1));
        std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let day = 86_400_000;
        let (start, end) = (21_915 * day, 22_096 * day);
        let (status, text) = check(start + day);
        assert!(status == Error && text.contains("cert.pem"), "key of another certificate: {text}");
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let (status, text) = check(end - 30 * day);
        assert!(status == Ok && text.contains("30d"), "{text}");
        assert_eq!((check(end - 13 * day).0, check(end).0, check(start - day).0), (Warning, Error, Error));
    }
}
