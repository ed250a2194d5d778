//! The socket: takes connections, not too many of one address, and speaks TLS where there is a
//! certificate. Who says HTTP to a port that speaks TLS is sent to `https://`.

use crate::config::{HubConfig, TlsFiles};
use axum::Extension;
use axum::extract::Request;
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::{AddExtension, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ipnet::IpNet;
use perfwatch_auth::login_throttle::address_group;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

/// How long the head of a request may take, also the next one of a connection that stays open.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first byte of a connection may take, and a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// How often the files of the certificate are looked at.
const CERTIFICATE_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How a request came in; each has one of its own connection.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) tls: bool,
    /// Given back with the connection.
    _permit: Arc<ConnectionPermit>,
}

/// How many connections there are, in all and of each address.
struct ConnectionLimiter {
    max: usize,
    max_per_address: usize,
    /// Of these there is no bound of their own: many come through them.
    proxies: Vec<IpNet>,
    counts: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

impl ConnectionLimiter {
    fn try_acquire(self: &Arc<Self>, address: IpAddr) -> Option<Arc<ConnectionPermit>> {
        let proxy = self.proxies.iter().any(|net| net.contains(&address.to_canonical()));
        let address = address_group(address.to_canonical());
        let mut taken = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = taken.1.get(&address).copied().unwrap_or_default();
        if (of_one >= self.max_per_address && !proxy) || taken.0 >= self.max {
            return None;
        }
        taken.0 += 1;
        taken.1.insert(address, of_one + 1);
        Some(Arc::new(ConnectionPermit { limiter: self.clone(), address }))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = self.limiter.counts.lock().unwrap_or_else(PoisonError::into_inner);
        taken.0 -= 1;
        let left = taken.1.get(&self.address).copied().unwrap_or_default();
        if left > 1 {
            taken.1.insert(self.address, left - 1);
        } else {
            taken.1.remove(&self.address);
        }
    }
}

/// What a connection is made of before HTTP.
#[derive(Clone)]
struct ConnectionAcceptor {
    listener: Listener,
    limiter: Arc<ConnectionLimiter>,
    tls: Option<RustlsAcceptor>,
}

impl<S: Send + 'static> Accept<TcpStream, S> for ConnectionAcceptor {
    type Stream = Either<TlsStream<TcpStream>, TcpStream>;
    type Service = AddExtension<S, Transport>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        use tower_layer::Layer as _;
        let door = self.clone();
        Box::pin(async move {
            let Some(place) = door.limiter.try_acquire(stream.peer_addr()?.ip()) else {
                return Err(io::Error::other("too many connections"));
            };
            // A tick is one small write: waiting for more would only delay it.
            stream.set_nodelay(true)?;
            let with = |tls| Extension(Transport { tls, _permit: place });
            let Some(acceptor) = door.tls else {
                return Ok((Either::Right(stream), with(door.listener == Listener::Loopback).layer(service)));
            };
            let mut first = [0];
            let hello = tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await;
            hello.map_err(|_| io::ErrorKind::TimedOut)??;
            // A record of type handshake (RFC 8446, 5.1).
            if first == [22] {
                let (stream, service) = acceptor.accept(stream, service).await?;
                Ok((Either::Left(stream), with(true).layer(service)))
            } else {
                Ok((Either::Right(stream), with(false).layer(service)))
            }
        })
    }
}

fn certificate_error(path: &std::path::Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Reads certificate and key.
fn load_certificate(files: &TlsFiles) -> io::Result<Arc<ServerConfig>> {
    let certificates = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| certificate_error(&files.cert, &error))?;
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
    Ok(Arc::new(config))
}

fn certificate_mtime(files: &TlsFiles) -> Option<(SystemTime, SystemTime)> {
    let of = |path: &std::path::Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    Some((of(&files.cert)?, of(&files.key)?))
}

/// Certificates are renewed while the hub runs.
async fn reload_certificates(config: RustlsConfig, files: TlsFiles, stop: CancellationToken) {
    let mut known = certificate_mtime(&files);
    let mut looks = tokio::time::interval(CERTIFICATE_POLL_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let now = certificate_mtime(&files);
        if now.is_none() || now == known {
            continue;
        }
        known = now;
        match load_certificate(&files) {
            Ok(new) => {
                config.reload_from_config(new);
                tracing::info!(certificate = %files.cert.display(), "TLS certificate reloaded");
            }
            // It may be half written: the next change is looked at again.
            Err(error) => {
                tracing::warn!(%error, "failed to load the new TLS certificate; keeping the current one")
            }
        }
    }
}

/// Which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Everyone's.
    Public,
    /// That of the agent in the same process, on a loopback address: it needs no certificate.
    Loopback,
}

/// Serves until it is told to stop, then for as long as `drain` at most.
///
/// # Errors
/// A certificate that can't be used.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    side: Listener,
    router: axum::Router,
    config: &HubConfig,
    stop: &CancellationToken,
    drain: Duration,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + use<>> {
    let tls = match &config.tls {
        Some(files) if side == Listener::Public => {
            let tls = RustlsConfig::from_config(load_certificate(files)?);
            tokio::spawn(reload_certificates(tls.clone(), files.clone(), stop.clone()));
            Some(RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_TIMEOUT))
        }
        _ => None,
    };
    let places = Arc::new(ConnectionLimiter {
        max: config.max_connections,
        max_per_address: config.max_connections_per_address,
        proxies: config.trusted_proxies.clone(),
        counts: Mutex::default(),
    });
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let mut server = Server::<SocketAddr>::from_listener(TcpListener::from_std(listener)?)
        .handle(handle.clone())
        .acceptor(ConnectionAcceptor { listener: side, limiter: places, tls });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    *server.http_builder() = builder;
    let stop = stop.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        handle.graceful_shutdown(Some(drain));
    });
    Ok(server.serve(router.into_make_service_with_connect_info::<SocketAddr>()))
}

/// Sends who speaks HTTP to a hub with a certificate to the same address by HTTPS. Probes of the
/// machine itself are answered as they come.
pub(crate) async fn redirect_to_https(request: Request, next: Next) -> Response {
    let plain = request.extensions().get::<Transport>().is_some_and(|transport| !transport.tls);
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if !plain || probe {
        let mut response = next.run(request).await;
        // RFC 6797.
        let year = HeaderValue::from_static("max-age=31536000");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, year);
        return response;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    match format!("https://{host}{path}").parse::<Uri>() {
        Ok(to) => Redirect::permanent(&to.to_string()).into_response(),
        Err(_) => axum::http::StatusCode::BAD_REQUEST.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_address_limit_is_enforced() {
        let places = Arc::new(ConnectionLimiter {
            max: 5,
            max_per_address: 2,
            proxies: vec!["10.0.0.0/8".parse().unwrap()],
            counts: Mutex::default(),
        });
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = places.try_acquire(address("192.0.2.1"));
        let two = places.try_acquire(address("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some());
        assert!(places.try_acquire(address("192.0.2.1")).is_none());
        let through: Vec<_> = (0..4).map(|_| places.try_acquire(address("10.0.0.1"))).collect();
        assert_eq!(through.iter().filter(|place| place.is_some()).count(), 3, "all together");
        drop((one, two, through));
        assert!(places.try_acquire(address("192.0.2.1")).is_some());
        assert_eq!(places.counts.lock().unwrap().0, 0);
        assert!(places.counts.lock().unwrap().1.is_empty());
    }
}
