//! Allowed dependencies between the crates, and the owners of heavy third-party dependencies.
//! Development dependencies are free: tests may use every crate.

use super::root;
use std::collections::BTreeMap;

type Dependencies = &'static [(&'static str, &'static [&'static str])];

/// Crates of the workspace, each with those it may depend on (ARCHITECTURE.md draws them).
const ALLOWED_DEPENDENCIES: Dependencies = &[
    ("perfwatch-model", &[]),
    ("perfwatch-redact", &["perfwatch-model"]),
    ("perfwatch-collect", &["perfwatch-model", "perfwatch-redact"]),
    ("perfwatch-tsdb", &["perfwatch-model"]),
    ("perfwatch-rules", &["perfwatch-model"]),
    ("perfwatch-workers", &["perfwatch-model"]),
    ("perfwatch-files", &[]),
    ("perfwatch-postgres", &[]),
    ("perfwatch-terminal", &["perfwatch-model"]),
    ("perfwatch-agent", &["perfwatch-model", "perfwatch-collect", "perfwatch-files"]),
    ("perfwatch-ssh", &["perfwatch-model", "perfwatch-collect", "perfwatch-workers"]),
    ("perfwatch-notify", &["perfwatch-model", "perfwatch-rules", "perfwatch-workers"]),
    ("perfwatch-store", &["perfwatch-model", "perfwatch-tsdb", "perfwatch-files", "perfwatch-postgres"]),
    ("perfwatch-auth", &["perfwatch-model", "perfwatch-store"]),
    ("perfwatch-history", &["perfwatch-model", "perfwatch-tsdb", "perfwatch-store"]),
    ("perfwatch-live", &["perfwatch-model", "perfwatch-tsdb", "perfwatch-store"]),
    ("perfwatch-http", &["perfwatch-model", "perfwatch-store", "perfwatch-auth", "perfwatch-workers"]),
    (
        "perfwatch-alerting",
        &[
            "perfwatch-model",
            "perfwatch-tsdb",
            "perfwatch-rules",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-workers",
        ],
    ),
    (
        "perfwatch-agentless",
        &[
            "perfwatch-model",
            "perfwatch-rules",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-live",
            "perfwatch-alerting",
            "perfwatch-workers",
        ],
    ),
    (
        "perfwatch-overview",
        &[
            "perfwatch-model",
            "perfwatch-tsdb",
            "perfwatch-rules",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-alerting",
        ],
    ),
    (
        "perfwatch-query",
        &[
            "perfwatch-model",
            "perfwatch-tsdb",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-http",
        ],
    ),
    (
        "perfwatch-status",
        &[
            "perfwatch-model",
            "perfwatch-tsdb",
            "perfwatch-rules",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-alerting",
            "perfwatch-overview",
            "perfwatch-http",
        ],
    ),
    (
        "perfwatch-capsule",
        &[
            "perfwatch-model",
            "perfwatch-redact",
            "perfwatch-tsdb",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-http",
            "perfwatch-alerting",
            "perfwatch-overview",
        ],
    ),
    (
        "perfwatch-settings",
        &[
            "perfwatch-model",
            "perfwatch-tsdb",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-http",
        ],
    ),
    (
        "perfwatch-metrics",
        &[
            "perfwatch-model",
            "perfwatch-rules",
            "perfwatch-store",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-alerting",
            "perfwatch-agentless",
            "perfwatch-http",
            "perfwatch-workers",
        ],
    ),
    (
        "perfwatch-ingest",
        &[
            "perfwatch-model",
            "perfwatch-tsdb",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-alerting",
            "perfwatch-agentless",
            "perfwatch-metrics",
            "perfwatch-settings",
        ],
    ),
    ("perfwatch-accounts", &["perfwatch-model", "perfwatch-store", "perfwatch-auth", "perfwatch-http"]),
    (
        "perfwatch-hub",
        &[
            "perfwatch-accounts",
            "perfwatch-metrics",
            "perfwatch-ingest",
            "perfwatch-model",
            "perfwatch-tsdb",
            "perfwatch-rules",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-alerting",
            "perfwatch-agentless",
            "perfwatch-overview",
            "perfwatch-query",
            "perfwatch-status",
            "perfwatch-capsule",
            "perfwatch-settings",
            "perfwatch-http",
            "perfwatch-workers",
        ],
    ),
    ("perfwatch", EVERY_CRATE),
    ("perfwatch-bench", EVERY_CRATE),
    ("perfwatch-fuzz", EVERY_CRATE),
    ("perfwatch-testkit", &[]),
    ("xtask", &[]),
];

/// Dependencies of the binary, the benchmarks and the fuzz targets.
const EVERY_CRATE: &[&str] = &["*"];

/// Heavy dependencies, each with the crates that may use it.
const DEPENDENCY_OWNERS: Dependencies = &[
    ("axum", &["perfwatch-http", "perfwatch-accounts", "perfwatch-hub"]),
    (
        "tokio",
        &[
            "perfwatch-workers",
            "perfwatch-ssh",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-history",
            "perfwatch-live",
            "perfwatch-alerting",
            "perfwatch-agentless",
            "perfwatch-overview",
            "perfwatch-status",
            "perfwatch-settings",
            "perfwatch-http",
            "perfwatch-metrics",
            "perfwatch-ingest",
            "perfwatch-hub",
            "perfwatch",
            "perfwatch-bench",
        ],
    ),
    ("russh", &["perfwatch-ssh"]),
    ("prost", &["perfwatch-model", "perfwatch-tsdb", "perfwatch-bench"]),
    ("pco", &["perfwatch-tsdb"]),
    (
        "rustix",
        &[
            "perfwatch-agent",
            "perfwatch-collect",
            "perfwatch-files",
            "perfwatch-store",
            "perfwatch",
            "perfwatch-bench",
        ],
    ),
    ("rusqlite", &["perfwatch-store"]),
    ("tokio-postgres", &["perfwatch-postgres", "perfwatch-store"]),
    ("ureq", &["perfwatch-agent", "perfwatch-auth", "perfwatch-notify", "perfwatch-bench"]),
    (
        "rustls",
        &[
            "perfwatch-agent",
            "perfwatch-auth",
            "perfwatch-live",
            "perfwatch-http",
            "perfwatch-notify",
            "perfwatch-postgres",
        ],
    ),
    ("redis", &["perfwatch-live"]),
    ("lettre", &["perfwatch-notify"]),
    ("minijinja", &["perfwatch-notify"]),
    ("hyper", &["perfwatch-http"]),
    ("argon2", &["perfwatch-auth"]),
    ("jsonwebtoken", &["perfwatch-auth"]),
    (
        "utoipa",
        &[
            "perfwatch-model",
            "perfwatch-rules",
            "perfwatch-store",
            "perfwatch-auth",
            "perfwatch-live",
            "perfwatch-alerting",
            "perfwatch-agentless",
            "perfwatch-overview",
            "perfwatch-query",
            "perfwatch-status",
            "perfwatch-settings",
            "perfwatch-http",
            "perfwatch-metrics",
            "perfwatch-accounts",
            "perfwatch-hub",
            "perfwatch-capsule",
        ],
    ),
    ("clap", &["perfwatch"]),
    ("rust-embed", &["perfwatch-http"]),
    ("ratatui", &["perfwatch-terminal"]),
    ("tikv-jemallocator", &["perfwatch"]),
];

/// Dependencies of every manifest, by crate.
fn manifests() -> BTreeMap<String, Vec<String>> {
    let mut folders = vec![root().join("xtask"), root().join("bench"), root().join("fuzz")];
    folders.extend(std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()));
    let mut all = BTreeMap::new();
    for folder in folders.iter().filter(|folder| folder.join("Cargo.toml").exists()) {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let dependencies = manifest.get("dependencies").and_then(|table| table.as_table());
        all.insert(name, dependencies.map(|table| table.keys().cloned().collect()).unwrap_or_default());
    }
    all
}

/// Names in the row of a crate or dependency; `None` without a row.
fn names(table: Dependencies, key: &str) -> Option<&'static [&'static str]> {
    table.iter().find(|(row, _)| *row == key).map(|(_, names)| *names)
}

#[test]
fn dependencies_follow_the_layers() {
    for (name, dependencies) in manifests() {
        let allowed = names(ALLOWED_DEPENDENCIES, &name);
        let allowed = allowed.unwrap_or_else(|| panic!("{name} is not in ALLOWED_DEPENDENCIES"));
        let crates = dependencies.iter().filter(|dependency| dependency.starts_with("perfwatch"));
        for dependency in crates.filter(|_| allowed != EVERY_CRATE) {
            assert!(allowed.contains(&dependency.as_str()), "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn heavy_dependencies_have_owners() {
    for (name, dependencies) in manifests() {
        for (heavy, owners) in DEPENDENCY_OWNERS {
            let is_used = dependencies.iter().any(|dependency| dependency == heavy);
            assert!(
                !is_used || owners.contains(&name.as_str()),
                "{name} may not use {heavy}; {owners:?} may"
            );
        }
    }
}

#[test]
fn layer_table_lists_existing_crates() {
    let present = manifests();
    for (name, _) in ALLOWED_DEPENDENCIES {
        assert!(present.contains_key(*name), "{name} is in ALLOWED_DEPENDENCIES but does not exist");
    }
}
