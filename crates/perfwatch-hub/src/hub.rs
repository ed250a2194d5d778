//! Start and stop of a hub: binds the listener, wires the services, serves and drains.

use crate::app::App;
use crate::config::HubConfig;
use crate::initial_access;
use crate::router::router;
use crate::services::{HubDependencies, HubError, build_app};
use perfwatch_auth::AuthDirectory;
use perfwatch_auth::encryption::Keyring;
use perfwatch_http::listener::{Listener, serve};
use perfwatch_http::proxy_check::local_links;
use perfwatch_http::public_address::PublicAddress;
use perfwatch_ingest::mirror::Mirror;
use perfwatch_live::cache::Cache;
use perfwatch_metrics::recorder::Recorder;
use perfwatch_store::Store;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running hub.
pub struct Hub {
    address: SocketAddr,
    /// Plain-text listener for the embedded agent, if the public listener uses TLS.
    loopback_address: Option<SocketAddr>,
    public_url: Option<String>,
    draining: CancellationToken,
    stop: CancellationToken,
    shutdown_delay: Duration,
    tasks: TaskTracker,
    directory: Arc<AuthDirectory>,
    store: Arc<dyn Store>,
    tls: bool,
    /// Notified to load the TLS certificate again.
    reload: Arc<Notify>,
    server: JoinHandle<std::io::Result<()>>,
}

/// Maximum time for open requests and WebSockets to finish at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which expired in-memory state is removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(15);

impl Hub {
    /// Binds the listener, loads the state and starts serving.
    ///
    /// # Errors
    /// Returns an error for an invalid setting, an address in use, an unusable certificate, or a database
    /// that cannot be reached.
    pub async fn start(config: HubConfig, deps: HubDependencies) -> Result<Self, HubError> {
        config.validate()?;
        let listen = config.listen;
        let bind = |error| HubError::Bind { address: listen, error };
        let listener = TcpListener::bind(listen).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let keyring = Arc::new(Keyring::new(&config.secret_keys.0));
        let directory = AuthDirectory::open(
            deps.store.clone(),
            deps.clock.clone(),
            keyring.clone(),
            config.session_lifetimes,
        )
        .await?;
        initial_access::create(&directory, &config, deps.clock.wall_ms()).await?;
        let security = (directory.clone(), keyring);
        let public_address = Arc::new(public_address(&config, address));
        let process = (public_address, stop.clone(), tasks.clone());
        let store = deps.store.clone();
        let (app, cache, stream) = build_app(config, deps, security, process).await?;
        // The first runs of the tasks have their leases; a failure is reported by the next renewal.
        let _ = store.renew_leases().await;
        app.history.start(&tasks, &stop);
        app.alerting.start(&tasks, &stop);
        app.agentless.start(&tasks, &stop);
        tasks.spawn(app.metrics.polls.clone().run_heartbeat(stop.clone()));
        app.overview.start(&tasks, &stop);
        tasks.spawn(prune_loop(app.clone(), cache));
        if let Some(stream) = stream {
            tasks.spawn(Arc::new(Mirror::new(app.pipeline.clone(), stream)).run(stop.clone()));
        }
        tasks.spawn(directory.clone().run(stop.clone()));
        tasks.spawn(app.settings.clone().run(stop.clone()));
        tasks.spawn(app.status.clone().run(stop.clone()));
        let recorder = Recorder::new(app.metrics.clone(), app.history.clone(), app.clock.clone());
        let hosts = app.hosts.clone();
        tasks.spawn(recorder.run(move || hosts.count(), stop.clone()));
        let tls = app.config.tls.is_some();
        warn_of_exposure(&app, address);
        let (config, draining) = (app.config.clone(), app.draining.clone());
        let public_url = app.public_address().public_url.as_ref().map(ToString::to_string);
        let router = router(app);
        let loopback_address = match tls && config.embedded_agent {
            true => Some(open_loopback_listener(router.clone(), &config, &stop, &tasks)?),
            false => None,
        };
        let reload = Arc::new(Notify::new());
        let listener_config = config.listener(DRAIN_TIMEOUT, reload.clone());
        let serving =
            serve(listener, Listener::Public, router, listener_config, &stop).map_err(HubError::Tls)?;
        let server = tokio::spawn(serving);
        tracing::info!(%address, tls, "hub started");
        Ok(Self {
            address,
            loopback_address,
            public_url,
            draining,
            stop,
            shutdown_delay: config.shutdown_delay,
            tasks,
            directory,
            store,
            tls,
            server,
            reload,
        })
    }

    /// Loads the TLS certificate again, without waiting for the periodic check of its files.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Address of the public listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of the hub for a browser on this machine.
    pub fn url(&self) -> String {
        local_url(self.address, self.tls)
    }

    /// URL of the hub for other machines; `None` if the listener has a single address, or if this machine has no
    /// address except loopback.
    pub fn network_url(&self) -> Option<String> {
        if !self.address.ip().is_unspecified() {
            return None;
        }
        let ip = network_address(self.address.is_ipv6())?;
        Some(local_url(SocketAddr::new(ip, self.address.port()), self.tls))
    }

    /// URL of the hub for the embedded agent.
    pub fn loopback_url(&self) -> String {
        self.loopback_address.map_or_else(|| self.url(), |address| format!("http://{address}"))
    }

    /// Secret of the embedded agent, generated at each start and never stored.
    pub fn embedded_agent_secret(&self) -> String {
        self.directory.embedded_agent_secret().to_owned()
    }

    /// Addresses of the setup page for the first administrator: the public URL, or that of this machine and that
    /// for other machines. Empty if an administrator exists. The secret is in the fragment, which browsers do not
    /// send, so that no proxy logs it.
    pub fn setup_urls(&self) -> Vec<String> {
        let Some(secret) = self.directory.setup_secret() else { return Vec::new() };
        let base_urls = match &self.public_url {
            Some(url) => vec![url.clone()],
            None => std::iter::once(self.url()).chain(self.network_url()).collect(),
        };
        base_urls.iter().map(|base_url| format!("{base_url}/setup#{secret}")).collect()
    }

    /// Reports that it is not ready for the shutdown delay. Then stops accepting requests, closes WebSockets, and
    /// waits for both at most `DRAIN_TIMEOUT`.
    pub async fn stop(self) {
        self.draining.cancel();
        if !self.shutdown_delay.is_zero() {
            tracing::info!(
                delay_s = self.shutdown_delay.as_secs(),
                "hub is draining; clients move to other hubs"
            );
            tokio::time::sleep(self.shutdown_delay).await;
        }
        self.stop.cancel();
        self.tasks.close();
        let drained = async {
            self.tasks.wait().await;
            // Other hubs continue the tasks at once.
            if let Err(error) = self.store.release_leases().await {
                tracing::warn!(%error, "failed to release the leases of background tasks");
            }
            self.server.await
        };
        match tokio::time::timeout(DRAIN_TIMEOUT, drained).await {
            Ok(Ok(Ok(()))) => tracing::info!("hub stopped"),
            Ok(Ok(Err(error))) => tracing::warn!(error = %error, "hub stopped after a listener error"),
            Ok(Err(error)) => tracing::error!(error = %error, "hub listener panicked"),
            Err(_) => tracing::warn!("hub stopped before all clients disconnected"),
        }
    }
}

/// Logs settings that expose passwords, or make links useless for others.
fn warn_of_exposure(app: &App, address: SocketAddr) {
    if app.config.is_exposed_unencrypted(address) {
        tracing::warn!(
            %address,
            "TLS is disabled; passwords and data are sent unencrypted. Set hub.tls or use a TLS proxy"
        );
    }
    if let Some(fault) = local_links(app.public_address()) {
        tracing::warn!(base_url = %fault.received, "notification links are limited to this machine; set hub.public_url");
    }
}

/// Addresses by which browsers reach a hub that listens here.
fn public_address(config: &HubConfig, address: SocketAddr) -> PublicAddress {
    let local_url = local_url(address, config.tls.is_some());
    PublicAddress::new(config.parse_public_url(), &local_url, address.port())
}

/// Address of this machine that it uses for connections to other networks. To connect a UDP socket selects the
/// route and its source address (udp(7)), and sends nothing. The destinations are reserved for documentation
/// (RFC 5737, RFC 3849). A listener of IPv6 accepts IPv4, too.
fn network_address(has_ipv6: bool) -> Option<IpAddr> {
    let source = |local: IpAddr, remote: IpAddr| {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        socket.connect((remote, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let ipv4 = source(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let remote = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    ipv4.or_else(|| source(Ipv6Addr::UNSPECIFIED.into(), remote.into()).filter(|_| has_ipv6))
}

/// URL of a listener for clients on this machine.
fn local_url(mut address: SocketAddr, tls: bool) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{}://{address}", if tls { "https" } else { "http" })
}

/// Starts a plain-text listener on a loopback address for the embedded agent, which cannot verify the
/// certificate of the public listener.
fn open_loopback_listener(
    router: axum::Router,
    config: &HubConfig,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<SocketAddr, HubError> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |error| HubError::Bind { address: loopback, error };
    let listener = TcpListener::bind(loopback).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    tasks.spawn(
        serve(listener, Listener::Loopback, router, config.listener(DRAIN_TIMEOUT, Arc::default()), stop)
            .map_err(HubError::Tls)?,
    );
    Ok(address)
}

async fn prune_loop(app: Arc<App>, cache: Arc<Cache>) {
    let mut ticks = tokio::time::interval(PRUNE_INTERVAL);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = ticks.tick() => {
                app.live_feed.prune(app.clock.as_ref());
                app.pipeline.prune();
                app.rate_limiters.prune();
                cache.prune();
            }
        }
    }
}
