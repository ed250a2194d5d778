//! Runs the code blocks of the documentation that are marked `sh run`, page by page, beside a real hub.

use crate::support::{BINARY, TestHub};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Pages with blocks that are marked.
const PAGES: &[&str] = &[
    "AGENTS.md",
    "API.md",
    "BACKUP.md",
    "FIRST-STEPS.md",
    "PACKAGES.md",
    "QUICK-START.md",
    "TROUBLESHOOTING.md",
];
/// Address of the hub in the documentation.
const DOCUMENTED_ADDRESS: &str = "127.0.0.1:8000";

fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// Marked blocks of a page as a script, with the address of a hub.
fn script(page: &str, address: &str) -> String {
    let text = std::fs::read_to_string(docs().join(page)).unwrap();
    let blocks = text.split("\n```sh run\n").skip(1);
    let blocks: Vec<&str> = blocks.map(|block| block.split("\n```").next().unwrap()).collect();
    blocks.join("\n").replace(DOCUMENTED_ADDRESS, address)
}

#[test]
fn marked_blocks_run() {
    let pages = std::fs::read_dir(docs()).unwrap().map(|entry| entry.unwrap().path());
    let is_marked = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|extension| extension == "md")
            && std::fs::read_to_string(path).unwrap().contains("\n```sh run\n")
    };
    let mut marked: Vec<String> = pages
        .filter(is_marked)
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    marked.sort();
    assert_eq!(marked, PAGES);

    for page in PAGES {
        let folder = tempfile::tempdir().unwrap();
        let hub = TestHub::start(folder.path());
        let script = script(page, &hub.address);
        if !script.contains("user add mira") {
            let body = json!({ "name": "mira", "password": "documentation-password", "role": "operator" });
            assert_eq!(hub.admin_request("POST", "/api/v1/users", &body).status, 201);
        }
        let binaries = Path::new(BINARY).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let work = tempfile::tempdir().unwrap();
        let output = Command::new("sh")
            .args(["-euc", &script])
            .current_dir(work.path())
            .env("PATH", path)
            .env("PERFWATCH_DATA", folder.path().join("hub"))
            // A page sets the variables that it uses.
            .env_remove("PASSWORD")
            .env_remove("TOKEN")
            .output()
            .unwrap();
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{page}:\n{script}\n--- {}\n{out}\n{err}", output.status);
    }
}
