//! `perfwatch user`: who may log in, by hand and for automation.

use crate::config::Settings;
use crate::store;
use anyhow::Context as _;
use perfwatch_hub::AdminCli;
use perfwatch_model::{Clock, SystemClock};
use perfwatch_store::accounts::Role;
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::Arc;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// All who may log in
    List,
    /// Lets someone in; asks for the password, or reads it from standard input
    Add {
        /// To log in with
        name: String,
        /// viewer, operator or admin
        #[arg(long, default_value = "viewer")]
        role: String,
    },
    /// A new password; browsers are logged out, and the second factor is off
    Password {
        /// Who
        name: String,
    },
    /// Removes someone, with their tokens
    Remove {
        /// Who
        name: String,
    },
    /// Makes a token for a script of theirs, and prints it
    Token {
        /// Whose
        name: String,
        /// viewer, operator or admin; ingest only sends snapshots
        #[arg(long, default_value = "viewer")]
        scope: String,
        /// What it is for
        #[arg(long, default_value = "created by CLI")]
        purpose: String,
    },
}

/// Asks twice at a terminal; from a pipe, the first line is it.
fn prompt_password() -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("standard input")?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let first = rpassword::prompt_password("New password: ").context("terminal")?;
    let again = rpassword::prompt_password("Once more: ").context("terminal")?;
    anyhow::ensure!(first == again, "these were two different passwords");
    Ok(first)
}

/// Does it.
#[expect(clippy::print_stdout, reason = "what a person at the terminal waits for")]
pub(crate) fn user(settings: &Settings, command: UserCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let users = AdminCli::open(store::open_shared(settings, clock.clone()).await?, clock).await?;
        match command {
            UserCommand::List => {
                for user in users.list() {
                    let state = if user.enabled { "" } else { "  (disabled)" };
                    println!("{:20} {}{state}", user.name, user.role.name());
                }
            }
            UserCommand::Add { name, role } => {
                let known = Role::parse(&role)
                    .with_context(|| format!("--role: {role:?} is not viewer, operator or admin"))?;
                users.add(&name, known, prompt_password()?).await?;
                println!("{name} may log in as {role}");
            }
            UserCommand::Password { name } => {
                users.set_password(&name, prompt_password()?).await?;
                println!("{name} has a new password");
            }
            UserCommand::Remove { name } => {
                users.remove(&name).await?;
                println!("{name} is gone");
            }
            UserCommand::Token { name, scope, purpose } => {
                println!("{}", users.create_token(&name, &scope, &purpose).await?);
            }
        }
        Ok(())
    })
}
