//! The keys by which the hub seals what opens other doors: from the configuration, or made once
//! and kept in the data folder, never in the database.

use crate::config::Settings;
use anyhow::Context as _;
use perfwatch_hub::EncryptionKeys;
use perfwatch_store::StoreUrl;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Of one key, as it is written: 64 hexadecimal digits.
const HEX_DIGITS: usize = 64;

/// Where the key is that nobody configured.
fn key_path(settings: &Settings) -> PathBuf {
    settings.data.join("secret.key")
}

/// A key a line; the first seals, all open.
fn parse(text: &str) -> Result<Vec<[u8; 32]>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Option<Vec<[u8; 32]>> = lines.map(key).collect();
    keys.filter(|keys| !keys.is_empty())
        .ok_or_else(|| format!("it takes {HEX_DIGITS} hexadecimal digits, a key a line"))
}

fn key(line: &str) -> Option<[u8; 32]> {
    if line.len() != HEX_DIGITS || !line.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..HEX_DIGITS).step_by(2)) {
        *byte = u8::from_str_radix(line.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

fn generate_key() -> anyhow::Result<String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(key.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// The keys of this hub; made where there are none.
pub(crate) fn load_or_create(settings: &Settings) -> anyhow::Result<EncryptionKeys> {
    if let Some(secret) = &settings.hub.encryption_key {
        let text = secret.read().map_err(|why| anyhow::anyhow!("hub.encryption_key: {why}"))?;
        return parse(&text).map(EncryptionKeys).map_err(|why| anyhow::anyhow!("hub.encryption_key: {why}"));
    }
    let path = key_path(settings);
    let shown = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text).map(EncryptionKeys).map_err(|why| anyhow::anyhow!("{shown}: {why}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(&settings.data).with_context(|| settings.data.display().to_string())?;
            let text = generate_key()?;
            let mut file = std::fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600).open(&path);
            let mut file = file.with_context(|| shown.clone())?;
            writeln!(file, "{text}").and_then(|()| file.sync_all()).with_context(|| shown.clone())?;
            tracing::info!(file = shown, "created an encryption key; store a copy separately from backups");
            if matches!(crate::store::store_url(settings)?, StoreUrl::Postgres(_)) {
                tracing::warn!(
                    "hubs that share a database need the same encryption key; set hub.encryption_key or copy this file"
                );
            }
            parse(&text).map(EncryptionKeys).map_err(anyhow::Error::msg)
        }
        Err(error) => Err(error).context(shown),
    }
}

/// A new key before those that are there: the hub seals by it from its next start on, and what
/// was sealed before too.
#[expect(clippy::print_stdout, reason = "what a person at the terminal waits for")]
pub(crate) fn rotate_key(settings: &Settings) -> anyhow::Result<()> {
    if settings.hub.encryption_key.is_some() {
        anyhow::bail!(
            "hub.encryption_key is configured: put a new line of {HEX_DIGITS} hexadecimal digits before the others there"
        );
    }
    load_or_create(settings)?;
    let path = key_path(settings);
    let before = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let beside = path.with_extension("key.new");
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    write!(file, "{}\n{before}", generate_key()?)?;
    file.sync_all()?;
    // Whoever runs the hub reads it, whoever asks for this.
    let owner = std::fs::metadata(&path)?;
    let (user, group) =
        (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
    std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
    std::fs::rename(&beside, &path)?;
    println!("New key written to {}. Restart the hub to re-encrypt all secrets.", path.display());
    println!("The other lines can be removed after that.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_key_is_created_once_and_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: folder.path().join("data"), ..Settings::default() };
        let first = load_or_create(&settings).unwrap().0;
        assert_eq!((first.len(), load_or_create(&settings).unwrap().0 == first), (1, true));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(key_path(&settings)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        rotate_key(&settings).unwrap();
        let turned = load_or_create(&settings).unwrap().0;
        assert_eq!((turned.len(), turned[1] == first[0], turned[0] == first[0]), (2, true, false));
        for text in ["", "# nothing", "abc", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
