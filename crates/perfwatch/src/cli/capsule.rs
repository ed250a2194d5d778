//! Flags of `perfwatch capsule`.

use crate::commands::capsule::{CapsuleCommand, CapsuleTarget, run_capsule};
use crate::commands::hub_api::HubAddress;
use anyhow::{Context as _, bail};
use clap::Args;
use perfwatch_capsule::Masks;
use std::path::PathBuf;
use uuid::Uuid;

#[derive(Debug, Args)]
pub(super) struct CapsuleFlags {
    /// Names or ids of hosts [default: the hosts of the incident]
    hosts: Vec<String>,
    /// URL of the hub that has the history
    #[arg(long, value_name = "URL", required_unless_present = "check")]
    hub: Option<String>,
    /// API token of the hub; visible to other users unless in a file: file:PATH [env: PERFWATCH_API_TOKEN]
    #[arg(long, requires = "hub")]
    token: Option<String>,
    /// CA certificates (PEM) that may sign the hub's certificate
    #[arg(long, requires = "hub", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Id of an incident that the capsule is about
    #[arg(long, requires = "hub", value_name = "ID")]
    incident: Option<Uuid>,
    /// Start: 2026-11-21T10:00:00Z, milliseconds since 1970, or relative to now: -2h [default: -1h, or 15 minutes
    /// before the incident]
    #[arg(long, requires = "hub", allow_hyphen_values = true, value_name = "TIME")]
    from: Option<String>,
    /// End, in the same formats [default: now, or 5 minutes after the incident]
    #[arg(long, requires = "hub", allow_hyphen_values = true, value_name = "TIME")]
    to: Option<String>,
    /// Title of the capsule [default: title of the incident, or names of the hosts]
    #[arg(long, requires = "hub", value_name = "TEXT")]
    title: Option<String>,
    /// Note for the reader
    #[arg(long, requires = "hub", value_name = "TEXT")]
    note: Option<String>,
    /// Names to replace: commands, users, hosts; users and hosts include commands
    #[arg(long, requires = "hub", value_delimiter = ',', value_name = "NAMES")]
    mask: Vec<String>,
    /// File to write, which must not exist [default: the title]
    #[arg(long, short, requires = "hub", value_name = "FILE")]
    output: Option<PathBuf>,
    /// Verify a capsule and print its content, without a hub
    #[arg(long, value_name = "FILE", conflicts_with_all = ["hub", "hosts"])]
    check: Option<PathBuf>,
}

fn parse_masks(names: &[String]) -> anyhow::Result<Masks> {
    let mut masks = Masks::default();
    for name in names {
        match name.as_str() {
            "commands" => masks.commands = true,
            "users" => masks.users = true,
            "hosts" => masks.hosts = true,
            _ => bail!("--mask: unknown name {name:?}; expected commands, users or hosts"),
        }
    }
    Ok(masks)
}

impl CapsuleFlags {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(file) = self.check {
            return run_capsule(CapsuleCommand::Check(file));
        }
        let url = self.hub.context("--hub is required")?;
        let request = serde_json::json!({
            "hosts": self.hosts, "incident": self.incident, "from": self.from, "to": self.to,
            "title": self.title, "note": self.note, "mask": parse_masks(&self.mask)?,
        });
        let address = HubAddress { url, token: self.token, ca: self.ca };
        run_capsule(CapsuleCommand::Create(CapsuleTarget { address, request, output: self.output }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_named() {
        let names = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let expected = Masks { commands: false, users: true, hosts: true };
        assert_eq!(parse_masks(&names("users,hosts")).unwrap(), expected);
        assert_eq!(parse_masks(&[]).unwrap(), Masks::default());
        let error = parse_masks(&names("commands,passwords")).unwrap_err().to_string();
        assert!(error.contains("\"passwords\"; expected commands, users or hosts"), "{error}");
    }
}
