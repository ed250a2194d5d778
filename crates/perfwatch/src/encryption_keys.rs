//! Keys that encrypt secrets at rest: from the configuration, or created once in the data
//! directory. They are never stored in the database.

use crate::config::Settings;
use crate::stdout::write_stdout;
use crate::store_url::StoreUrl;
use anyhow::Context as _;
use perfwatch_files::Directory;
use perfwatch_hub::EncryptionKeys;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Length of a key in text form: 32 bytes as hexadecimal digits.
const KEY_HEX_LEN: usize = 64;

/// Key file of the data directory.
const KEY_FILE: &str = "encryption.key";

/// Path of the key file that is created if `hub.encryption_key` is empty.
pub(crate) fn key_path(settings: &Settings) -> PathBuf {
    settings.data.join(KEY_FILE)
}

/// Parses one key per line; empty lines and lines with `#` are ignored. The first key encrypts,
/// all keys decrypt.
fn parse(text: &str) -> Result<Vec<[u8; 32]>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Option<Vec<[u8; 32]>> = lines.map(parse_key).collect();
    keys.filter(|keys| !keys.is_empty())
        .ok_or_else(|| format!("expected one key of {KEY_HEX_LEN} hexadecimal digits per line"))
}

fn parse_key(line: &str) -> Option<[u8; 32]> {
    if line.len() != KEY_HEX_LEN || !line.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, start) in key.iter_mut().zip((0..KEY_HEX_LEN).step_by(2)) {
        *byte = u8::from_str_radix(line.get(start..start + 2)?, 16).ok()?;
    }
    Some(key)
}

fn generate_key() -> anyhow::Result<String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(key.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Loads the keys of the configuration or of the key file; `None` if there is neither.
pub(crate) fn load(settings: &Settings) -> anyhow::Result<Option<EncryptionKeys>> {
    if let Some(secret) = &settings.hub.encryption_key {
        let keys = secret.read().and_then(|text| parse(&text));
        let keys = keys.map_err(|error| anyhow::anyhow!("hub.encryption_key: {error}"))?;
        return Ok(Some(EncryptionKeys(keys)));
    }
    let path = key_path(settings);
    let context = || path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let keys = parse(&text).map_err(anyhow::Error::msg).with_context(context)?;
            Ok(Some(EncryptionKeys(keys)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(context),
    }
}

/// Loads the keys as [`load`]; creates the key file if there are none.
pub(crate) fn load_or_create(settings: &Settings) -> anyhow::Result<EncryptionKeys> {
    if let Some(keys) = load(settings)? {
        return Ok(keys);
    }
    let path = key_path(settings);
    let context = || path.display().to_string();
    let directory =
        Directory::create_private(&settings.data).with_context(|| settings.data.display().to_string())?;
    let text = generate_key()?;
    let mut file = directory.create_new(KEY_FILE).with_context(context)?;
    writeln!(file, "{text}").and_then(|()| file.sync_all()).with_context(context)?;
    let file = context();
    tracing::info!(file, "created an encryption key; store a copy separately from backups");
    if matches!(crate::store::store_url(settings)?, StoreUrl::Postgres(_)) {
        tracing::warn!(
            "hubs that share a database need the same encryption key; \
             set hub.encryption_key or copy this file"
        );
    }
    parse(&text).map(EncryptionKeys).map_err(anyhow::Error::msg)
}

/// Inserts a new key before the existing keys. The hub re-encrypts all secrets with the new key
/// at its next start.
pub(crate) fn rotate_key(settings: &Settings) -> anyhow::Result<()> {
    if settings.hub.encryption_key.is_some() {
        anyhow::bail!(
            "hub.encryption_key is configured: insert a new line \
             of {KEY_HEX_LEN} hexadecimal digits before its first line"
        );
    }
    let path = key_path(settings);
    anyhow::ensure!(
        path.exists(),
        "no encryption key in {}; pass the data directory of the hub (--data, PERFWATCH_DATA), or start the \
         hub first",
        settings.data.display()
    );
    load_or_create(settings)?;
    let existing = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    // The file belongs to the owner of the directory: the user of the hub, whichever user runs this command.
    let directory = Directory::open(&settings.data).with_context(|| settings.data.display().to_string())?;
    let text = format!("{}\n{existing}", generate_key()?);
    directory.write(KEY_FILE, text.as_bytes()).with_context(|| path.display().to_string())?;
    write_stdout(
        format!("New key written to {}. Restart the hub to re-encrypt all secrets.\n", path.display())
            .as_bytes(),
    )?;
    write_stdout("The other lines can be removed after that.\n".to_string().as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn encryption_key_is_created_once_and_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: folder.path().join("data"), ..Settings::default() };
        assert!(rotate_key(&settings).is_err() && !settings.data.exists(), "no key in a wrong directory");
        let created = load_or_create(&settings).unwrap().0;
        assert_eq!((created.len(), load_or_create(&settings).unwrap().0 == created), (1, true));
        assert_eq!(std::fs::metadata(key_path(&settings)).unwrap().mode() & 0o777, 0o600);
        rotate_key(&settings).unwrap();
        let rotated = load_or_create(&settings).unwrap().0;
        assert_eq!((rotated.len(), rotated[1] == created[0], rotated[0] == created[0]), (2, true, false));
        for text in ["", "# nothing", "abc", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
