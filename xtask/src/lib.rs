//! The repository's own rules, each a test: `cargo test -p xtask`.

#[cfg(test)]
mod files;
#[cfg(test)]
mod layers;

#[cfg(test)]
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(std::path::Path::to_owned)
        .unwrap_or_default()
}
