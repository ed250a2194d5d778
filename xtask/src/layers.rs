//! Who may depend on whom, and who alone owns a heavy dependency. Development dependencies
//! are free: tests may look at anything.

use super::root;
use std::collections::BTreeMap;

/// A crate and the crates of ours that it may depend on (ARCHITECTURE.md draws it).
const ARROWS: &[(&str, &[&str])] = &[
    ("perfwatch-model", &[]),
    ("perfwatch-collect", &["perfwatch-model"]),
    ("perfwatch-agent", &["perfwatch-model", "perfwatch-collect"]),
    ("perfwatch-alert", &["perfwatch-model"]),
    ("perfwatch-series", &["perfwatch-model"]),
    ("perfwatch-ssh", &["perfwatch-model", "perfwatch-collect"]),
    ("perfwatch-store", &["perfwatch-model", "perfwatch-series"]),
    ("perfwatch-notify", &["perfwatch-model", "perfwatch-alert"]),
    ("perfwatch-hub", &["perfwatch-model", "perfwatch-series", "perfwatch-alert", "perfwatch-store"]),
    (
        "perfwatch",
        &[
            "perfwatch-model",
            "perfwatch-collect",
            "perfwatch-agent",
            "perfwatch-notify",
            "perfwatch-ssh",
            "perfwatch-store",
            "perfwatch-hub",
        ],
    ),
    (
        "perfwatch-bench",
        &[
            "perfwatch",
            "perfwatch-model",
            "perfwatch-collect",
            "perfwatch-agent",
            "perfwatch-alert",
            "perfwatch-notify",
            "perfwatch-series",
            "perfwatch-ssh",
            "perfwatch-store",
            "perfwatch-hub",
            "perfwatch-testkit",
        ],
    ),
    ("perfwatch-testkit", &[]),
    ("xtask", &[]),
];

/// A heavy dependency and the only crates that may name it.
const OWNERS: &[(&str, &[&str])] = &[
    ("axum", &["perfwatch-hub"]),
    ("tokio", &["perfwatch-hub", "perfwatch-ssh", "perfwatch-store", "perfwatch", "perfwatch-bench"]),
    ("russh", &["perfwatch-ssh"]),
    ("prost", &["perfwatch-model", "perfwatch-series", "perfwatch-bench"]),
    ("pco", &["perfwatch-series"]),
    ("rustix", &["perfwatch-collect", "perfwatch-store", "perfwatch"]),
    ("rusqlite", &["perfwatch-store"]),
    ("tokio-postgres", &["perfwatch-store"]),
    ("ureq", &["perfwatch-agent", "perfwatch-hub", "perfwatch-notify", "perfwatch-bench"]),
    ("rustls", &["perfwatch-agent", "perfwatch-hub", "perfwatch-notify", "perfwatch-store"]),
    ("lettre", &["perfwatch-notify"]),
    ("minijinja", &["perfwatch-notify"]),
    ("axum-server", &["perfwatch-hub"]),
    ("argon2", &["perfwatch-hub"]),
    ("jsonwebtoken", &["perfwatch-hub"]),
    ("utoipa", &["perfwatch-model", "perfwatch-alert", "perfwatch-store", "perfwatch-hub"]),
    ("clap", &["perfwatch"]),
    ("rust-embed", &["perfwatch-hub"]),
];

/// Every manifest's own dependencies, by crate.
fn manifests() -> BTreeMap<String, Vec<String>> {
    let mut folders = vec![root().join("xtask"), root().join("bench")];
    folders.extend(std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()));
    let mut all = BTreeMap::new();
    for folder in folders {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let dependencies = manifest.get("dependencies").and_then(|table| table.as_table());
        all.insert(name, dependencies.map(|table| table.keys().cloned().collect()).unwrap_or_default());
    }
    all
}

#[test]
fn arrows_point_down_only() {
    let known: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (name, dependencies) in manifests() {
        let allowed =
            known.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the table of arrows"));
        let ours = dependencies.iter().filter(|dependency| dependency.starts_with("perfwatch"));
        for dependency in ours {
            assert!(allowed.contains(&dependency.as_str()), "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn heavy_things_have_one_owner() {
    for (name, dependencies) in manifests() {
        for (heavy, owners) in OWNERS {
            let uses = dependencies.iter().any(|dependency| dependency == heavy);
            assert!(!uses || owners.contains(&name.as_str()), "{name} may not use {heavy}; {owners:?} may");
        }
    }
}

#[test]
fn the_table_has_no_ghosts() {
    let there = manifests();
    for (name, _) in ARROWS {
        assert!(there.contains_key(*name), "{name} stands in the table and nowhere else");
    }
}
