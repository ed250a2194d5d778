//! Commands of the repository checks: `cargo run -p xtask -- vocabulary`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the report of a command is its output")]

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: xtask vocabulary [--list METRIC | --fix-spelling] [--root DIRECTORY]";

fn run(arguments: &[String]) -> Result<String, String> {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut root = xtask::root();
    if let [rest @ .., "--root", directory] = words.as_slice() {
        root = PathBuf::from(directory);
        words = rest.to_vec();
    }
    match words.as_slice() {
        ["vocabulary"] => xtask::vocabulary::report(&root, None),
        ["vocabulary", "--list", metric] => xtask::vocabulary::report(&root, Some(metric)),
        ["vocabulary", "--fix-spelling"] => Ok(xtask::vocabulary::fix_spelling(&root)?.join("\n")),
        _ => Err(USAGE.to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
