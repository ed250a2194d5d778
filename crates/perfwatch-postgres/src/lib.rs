//! Connections to PostgreSQL: address, TLS, pool, and the texts of their errors.

mod error;
mod tls;

pub use error::{connection_error, error_chain};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use std::time::Duration;

/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 8;
/// Maximum time to wait for a connection of the pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which a connection whose packets are lost ends. The kernel would repeat them for a quarter of an hour.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates a pool of connections to the database of a URL. Connects when the first connection is needed.
///
/// # Errors
/// Returns a text if the URL or a parameter of TLS is invalid.
pub fn connection_pool(url: &str, connect_timeout: Duration) -> Result<Pool, String> {
    let (mut config, connector) = tls::parse_url(url)?;
    config
        .application_name("perfwatch")
        .connect_timeout(connect_timeout)
        .tcp_user_timeout(UNACKNOWLEDGED_TIMEOUT)
        .keepalives_idle(Duration::from_secs(30));
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(config, connector, manager_config))
        .max_size(MAX_CONNECTIONS)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(POOL_TIMEOUT))
        .create_timeout(Some(connect_timeout))
        .build()
        .map_err(|error| error.to_string())
}
