//! Start and stop: binds, wires the rooms, serves, drains.

use crate::app::App;
use crate::config::{HubConfig, HubProblem};
use crate::fleet::Fleet;
use crate::history::History;
use crate::ingest::Pipeline;
use crate::live::Live;
use crate::router::router;
use crate::self_metrics::SelfMetrics;
use axum::serve::ListenerExt as _;
use perfwatch_model::{Catalog, Clock, limits};
use perfwatch_store::{Store, StoreError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What stands behind the hub's ports.
pub struct Deps {
    /// What it remembers.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The metrics its agents may know.
    pub catalog: Arc<Catalog>,
}

/// Why a hub can't start.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A setting that can't be.
    #[error(transparent)]
    Config(#[from] HubProblem),
    /// The address is taken or not ours.
    #[error("can't listen on {address}: {error}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running hub.
pub struct Hub {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    server: JoinHandle<std::io::Result<()>>,
}

/// How long clients get to take their last words.
const DRAIN: Duration = Duration::from_secs(5);
/// How often what is older than the live window is let go.
const PRUNE_EVERY: Duration = Duration::from_secs(15);

impl Hub {
    /// Binds and serves.
    ///
    /// # Errors
    /// A setting that can't be, an address that is taken, a store that does not answer.
    pub async fn start(config: HubConfig, deps: Deps) -> Result<Self, HubError> {
        config.check()?;
        let listen = config.listen;
        let bind = |error| HubError::Bind { address: listen, error };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let metrics = Arc::new(SelfMetrics::new());
        let live = Arc::new(Live::new());
        let fleet = Arc::new(Fleet::open(deps.store.clone()).await?);
        let history =
            History::open(deps.store, deps.clock.clone(), config.history.clone(), metrics.history.clone())
                .await?;
        restore(&history, &fleet, &live, deps.clock.wall_ms()).await?;
        let pipeline = Pipeline::new(
            history.clone(),
            fleet.clone(),
            live.clone(),
            deps.catalog.clone(),
            deps.clock.clone(),
            metrics.clone(),
            config.interval,
        );
        let app = Arc::new(App {
            started: deps.clock.monotonic(),
            config,
            clock: deps.clock,
            catalog: deps.catalog,
            fleet,
            pipeline,
            history,
            live,
            metrics,
            decompressing: Semaphore::new(limits::DECOMPRESSING),
            decoded: Arc::new(Semaphore::new(limits::DECODED_BYTES >> 10)),
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        app.history.start(&tasks, &stop);
        tasks.spawn(prune(app.clone()));
        // A tick is one small write: waiting for more would only delay it.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
        });
        let server =
            axum::serve(listener, router(app)).with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(async move { server.await });
        tracing::info!(%address, "hub listens; without user accounts it does so on this machine only");
        Ok(Self { address, stop, tasks, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, says goodbye to live clients, and waits for both, but not
    /// for ever.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        let drained = async {
            self.tasks.wait().await;
            self.server.await
        };
        match tokio::time::timeout(DRAIN, drained).await {
            Ok(Ok(Ok(()))) => tracing::info!("hub stopped"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "hub stopped"),
            Ok(Err(error)) => tracing::error!(%error, "hub stopped"),
            Err(_) => tracing::warn!("hub stopped without waiting for the last clients"),
        }
    }
}

/// The last minutes of each host stand in the live window again, whether they are in blocks
/// or not.
async fn restore(history: &History, fleet: &Fleet, live: &Live, now_ms: i64) -> Result<(), StoreError> {
    let since_ms = now_ms - limits::LIVE_WINDOW_MS;
    for host in fleet.all() {
        let rows = history.recent(host.record.id, host.record.last_at_ms, since_ms).await?;
        let name: Arc<str> = host.record.name.into();
        for row in rows {
            live.restore(host.record.id, &name, row, now_ms);
        }
    }
    Ok(())
}

async fn prune(app: Arc<App>) {
    let mut ticks = tokio::time::interval(PRUNE_EVERY);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = ticks.tick() => {
                app.live.prune(app.clock.wall_ms());
                app.pipeline.prune();
            }
        }
    }
}
