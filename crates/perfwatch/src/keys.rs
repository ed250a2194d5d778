//! The keys by which the hub seals what opens other doors: from the configuration, or made once
//! and kept in the data folder, never in the database.

use crate::config::Settings;
use anyhow::Context as _;
use perfwatch_hub::SecretKeys;
use perfwatch_store::Location;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Of one key, as it is written: 64 hexadecimal digits.
const DIGITS: usize = 64;

/// Where the key is that nobody configured.
fn file(settings: &Settings) -> PathBuf {
    settings.data.join("secret.key")
}

/// A key a line; the first seals, all open.
fn parse(text: &str) -> Result<Vec<[u8; 32]>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Option<Vec<[u8; 32]>> = lines.map(key).collect();
    keys.filter(|keys| !keys.is_empty())
        .ok_or_else(|| format!("it takes {DIGITS} hexadecimal digits, a key a line"))
}

fn key(line: &str) -> Option<[u8; 32]> {
    if line.len() != DIGITS || !line.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..DIGITS).step_by(2)) {
        *byte = u8::from_str_radix(line.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

fn fresh() -> anyhow::Result<String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(key.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// The keys of this hub; made where there are none.
pub(crate) fn keys(settings: &Settings) -> anyhow::Result<SecretKeys> {
    if let Some(secret) = &settings.hub.secret_key {
        let text = secret.read().map_err(|why| anyhow::anyhow!("hub.secret_key: {why}"))?;
        return parse(&text).map(SecretKeys).map_err(|why| anyhow::anyhow!("hub.secret_key: {why}"));
    }
    let path = file(settings);
    let shown = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text).map(SecretKeys).map_err(|why| anyhow::anyhow!("{shown}: {why}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(&settings.data).with_context(|| settings.data.display().to_string())?;
            let text = fresh()?;
            let mut file = std::fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600).open(&path);
            let mut file = file.with_context(|| shown.clone())?;
            writeln!(file, "{text}").and_then(|()| file.sync_all()).with_context(|| shown.clone())?;
            tracing::info!(
                file = shown,
                "made a key that seals secrets: keep a copy, but not beside backups"
            );
            if matches!(crate::store::location(settings)?, Location::Postgres(_)) {
                tracing::warn!(
                    "hubs that share a database need one key: set hub.secret_key, or give each this file"
                );
            }
            parse(&text).map(SecretKeys).map_err(anyhow::Error::msg)
        }
        Err(error) => Err(error).context(shown),
    }
}

/// A new key before those that are there: the hub seals by it from its next start on, and what
/// was sealed before too.
#[expect(clippy::print_stdout, reason = "what a person at the terminal waits for")]
pub(crate) fn rotate(settings: &Settings) -> anyhow::Result<()> {
    if settings.hub.secret_key.is_some() {
        anyhow::bail!(
            "hub.secret_key is configured: put a new line of {DIGITS} hexadecimal digits before the others there"
        );
    }
    keys(settings)?;
    let path = file(settings);
    let before = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let beside = path.with_extension("key.new");
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    write!(file, "{}\n{before}", fresh()?)?;
    file.sync_all()?;
    // Whoever runs the hub reads it, whoever asks for this.
    let owner = std::fs::metadata(&path)?;
    let (user, group) =
        (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
    std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
    std::fs::rename(&beside, &path)?;
    println!("{} has a new key. Restart the hub: it then seals everything by it.", path.display());
    println!("The lines after the first may go once it has.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_turned() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: folder.path().join("data"), ..Settings::default() };
        let first = keys(&settings).unwrap().0;
        assert_eq!((first.len(), keys(&settings).unwrap().0 == first), (1, true));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(file(&settings)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        rotate(&settings).unwrap();
        let turned = keys(&settings).unwrap().0;
        assert_eq!((turned.len(), turned[1] == first[0], turned[0] == first[0]), (2, true, false));
        for text in ["", "# nothing", "abc", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
