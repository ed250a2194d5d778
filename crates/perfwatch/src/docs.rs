//! The generated pages: `docs/METRICS.md` from the collectors' tables, `docs/CONFIG.md` from
//! the settings. A test holds them against the repository; `UPDATE_DOCS=1` writes them.

use crate::config::{SETTINGS, Settings};
use perfwatch_collect::COLLECTORS;
use perfwatch_model::MetricDef;
use std::fmt::Write as _;

/// The text form of an enum, as the API says it.
fn enum_text(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn metric_row(def: &MetricDef) -> String {
    let name = if def.dimension.is_empty() {
        def.name.to_owned()
    } else {
        format!("{}{{{}}}", def.name, def.dimension)
    };
    format!("| `{name}` | {} | {} | {} |", enum_text(def.unit), enum_text(def.kind), def.help)
}

/// `docs/METRICS.md`.
pub fn metrics_page() -> String {
    let mut page = "# Metrics\n\nGenerated from the collectors' own tables; `make docs` writes it anew. A name with braces has one \
                    series for each value of what stands between them. What a machine does not have is absent, not zero.\n"
        .to_owned();
    let agent = ("agent", perfwatch_agent::METRICS, "each tick".to_owned());
    let collectors = COLLECTORS.iter().filter(|collector| !collector.metrics.is_empty()).map(|collector| {
        let every = collector.cadence.min_interval();
        let every = if every.is_zero() {
            "each tick".to_owned()
        } else {
            format!("every {} s at most", every.as_secs())
        };
        (collector.name, collector.metrics, every)
    });
    for (name, metrics, every) in collectors.chain([agent]) {
        let _ = write!(
            page,
            "\n## {name}\n\nRead {every}.\n\n| metric | unit | kind | what |\n|---|---|---|---|\n"
        );
        for def in metrics {
            let _ = writeln!(page, "{}", metric_row(def));
        }
    }
    page
}

/// `docs/CONFIG.md`.
pub fn config_page() -> String {
    // The data folder depends on who runs it; the page says what it is for everyone.
    let settings = Settings { data: "/var/lib/perfwatch".into(), ..Settings::default() };
    let defaults = serde_json::to_value(settings).unwrap_or_default();
    let mut page = "# Configuration\n\nGenerated from the settings; `make docs` writes it anew.\n\n\
        One file (`--config FILE` or `PERFWATCH_CONFIG`; YAML, JSON or TOML by its ending), then the environment, then flags; \
        the later wins. Dots in a key are levels in the file and underscores in the environment. Lists are separated by commas \
        there, maps written as `name=value,name=value`. Times are written `500ms`, `2s`, `5m`, `1h`. Whatever is no setting is an \
        error that names its key and place.\n\n\
        `data` is `/var/lib/perfwatch` for root and `~/.local/state/perfwatch` for everyone else.\n\n\
        | key | variable | default | what |\n|---|---|---|---|\n"
        .to_owned();
    for (key, help) in SETTINGS {
        let default =
            key.split('.').try_fold(&defaults, |value, part| value.get(part)).cloned().unwrap_or_default();
        let shown = match &default {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let variable = format!("PERFWATCH_{}", key.replace('.', "_").to_ascii_uppercase());
        let _ = writeln!(
            page,
            "| `{key}` | `{variable}` | {} | {help} |",
            shown.replace("`[]`", "").replace("`{}`", "")
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn generated_docs_are_up_to_date() {
        for (name, page) in [("METRICS.md", super::metrics_page()), ("CONFIG.md", super::config_page())] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::write(&path, &page).unwrap();
            }
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(there == page, "docs/{name} is out of date: make docs");
        }
    }
}
