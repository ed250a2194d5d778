//! `perfwatch user`: manages users without the API, for recovery and automation.

use crate::config::Settings;
use crate::stdout::write_stdout;
use crate::{runtime, store};
use anyhow::Context as _;
use perfwatch_auth::admin::AdminCli;
use perfwatch_model::{Clock, SystemClock};
use perfwatch_store::accounts::Role;
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::Arc;

/// Subcommands of `perfwatch user`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// List users and their roles
    List,
    /// Create a user (prompts for the password or reads it from standard input)
    Add {
        /// Login name of the new user
        name: String,
        /// viewer, operator or admin
        #[arg(long, default_value = "viewer")]
        role: String,
        /// Create the database if there is none, before the first start of the hub
        #[arg(long)]
        create_database: bool,
    },
    /// Set a new password, end all sessions, disable two-factor authentication
    Password {
        /// Login name of the user
        name: String,
    },
    /// Delete a user and their tokens
    Remove {
        /// Login name of the deleted user
        name: String,
    },
    /// Create an API token and print it
    Token {
        /// Login name of the owner
        name: String,
        /// viewer, operator, admin, or ingest (sends snapshots only)
        #[arg(long, default_value = "viewer")]
        scope: String,
        /// Name of the token in the token list
        #[arg(long, default_value = "created by CLI")]
        purpose: String,
    },
}

/// Prompts twice at a terminal; reads one line if standard input is a pipe.
fn prompt_password() -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("standard input")?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let password = rpassword::prompt_password("New password: ").context("terminal")?;
    let confirmation = rpassword::prompt_password("Confirm password: ").context("terminal")?;
    anyhow::ensure!(password == confirmation, "the passwords do not match");
    Ok(password)
}

/// Executes the subcommand on the configured store; a hub may run at the same time.
pub(crate) fn manage_users(settings: &Settings, command: UserCommand) -> anyhow::Result<()> {
    runtime::current_thread()?.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let creates = matches!(command, UserCommand::Add { create_database: true, .. });
        let store = match store::open_shared(settings, clock.clone()).await {
            Err(_) if creates => {
                drop(store::open(settings, clock.clone()).await?);
                store::open_shared(settings, clock.clone()).await?
            }
            store => store?,
        };
        let users = AdminCli::open(store, clock).await?;
        match command {
            UserCommand::List => {
                for user in users.list() {
                    let state = if user.enabled { "" } else { "  (disabled)" };
                    write_stdout(format!("{:20} {}{state}\n", user.name, user.role.name()).as_bytes())?;
                }
            }
            UserCommand::Add { name, role: text, .. } => {
                let role = Role::parse(&text).with_context(|| {
                    format!("--role: invalid role {text:?}; expected viewer, operator or admin")
                })?;
                users.add(&name, role, prompt_password()?).await?;
                write_stdout(format!("created user {name} ({text})\n").as_bytes())?;
            }
            UserCommand::Password { name } => {
                users.set_password(&name, prompt_password()?).await?;
                write_stdout(format!("password of {name} changed\n").as_bytes())?;
            }
            UserCommand::Remove { name } => {
                users.remove(&name).await?;
                write_stdout(format!("deleted user {name}\n").as_bytes())?;
            }
            UserCommand::Token { name, scope, purpose } => {
                write_stdout(format!("{}\n", users.create_token(&name, &scope, &purpose).await?).as_bytes())?;
            }
        }
        Ok(())
    })
}
