//! Health checks of a running hub or agent, for `HEALTHCHECK` of images and for probes.

use crate::config::Settings;
use crate::stdout::write_stdout;
use perfwatch_agent::check_heartbeat;
use perfwatch_model::{Clock as _, SystemClock};

/// Checks that an agent with the configured data directory ticks. An unreachable hub is no failure: the agent
/// spools, and a restart would not help.
pub(crate) fn check_agent(settings: &Settings) -> anyhow::Result<()> {
    let age = check_heartbeat(&settings.agent_state(), SystemClock::new().wall_ms())?;
    write_stdout(format!("ok: last tick {:.1} s ago\n", age.as_secs_f64()).as_bytes())
}

#[cfg(feature = "hub")]
pub(crate) use hub::{HubCheck, check_hub, local_url};

#[cfg(feature = "hub")]
mod hub {
    use crate::config::Settings;
    use crate::stdout::write_stdout;
    use anyhow::Context as _;
    use perfwatch_agent::HubClient;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::path::PathBuf;
    use std::time::Duration;

    /// Timeout of the request, below the 5 s that the image and the manifests allow for the command.
    const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

    /// Hub and state that a check expects.
    #[derive(Debug, Default, clap::Args)]
    pub(crate) struct HubCheck {
        /// URL of the hub [default: the configured listen address]
        #[arg(long, value_name = "URL")]
        hub: Option<String>,
        /// Require that the hub accepts snapshots (/readyz), not only that it responds (/healthz)
        #[arg(long)]
        ready: bool,
        /// CA certificates (PEM) that may sign the certificate of an https:// hub
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    }

    /// Requests `/healthz` or `/readyz`; fails unless the response is HTTP 200.
    pub(crate) fn check_hub(settings: &Settings, check: &HubCheck) -> anyhow::Result<()> {
        let url = match &check.hub {
            Some(url) => url.clone(),
            None => local_url(&settings.hub.listen)?,
        };
        let (path, expected) = if check.ready { ("/readyz", "ready\n") } else { ("/healthz", "ok\n") };
        let client = HubClient::new(&url, check.ca.as_deref())?;
        let name = client.label().to_owned();
        let response = client
            .get(path, None, Some(CHECK_TIMEOUT))
            .map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        let code = response.error("code");
        anyhow::ensure!(response.status == 200, "{name}{path}: HTTP {} {code}", response.status);
        // A proxy, or the dashboard at a wrong path, responds with a page.
        anyhow::ensure!(response.body == expected, "{name}{path}: the response is not from a PerfWatch hub");
        write_stdout(b"ok\n")
    }

    /// URL of a hub on this machine. A TLS port answers both probes without TLS.
    pub(crate) fn local_url(listen: &str) -> anyhow::Result<String> {
        let address: SocketAddr = listen
            .replace("localhost:", "127.0.0.1:")
            .parse()
            .with_context(|| format!("hub.listen: invalid address {listen:?}; expected ADDRESS:PORT"))?;
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Ok(format!("http://{}", SocketAddr::new(ip, address.port())))
    }

    #[cfg(test)]
    mod tests {
        use super::local_url;

        #[test]
        fn local_url_replaces_unspecified_addresses() {
            for (listen, expected) in [
                ("127.0.0.1:8000", "http://127.0.0.1:8000"),
                ("0.0.0.0:8000", "http://127.0.0.1:8000"),
                ("[::]:8443", "http://[::1]:8443"),
                ("localhost:8000", "http://127.0.0.1:8000"),
                ("192.0.2.7:80", "http://192.0.2.7:80"),
            ] {
                assert_eq!(local_url(listen).unwrap(), expected);
            }
            let error = local_url("8000").unwrap_err().to_string();
            assert_eq!(error, "hub.listen: invalid address \"8000\"; expected ADDRESS:PORT");
        }
    }
}
