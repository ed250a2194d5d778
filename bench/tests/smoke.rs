//! Every benchmark runs once with minimal numbers, so that none rots.

use std::process::Command;

#[test]
fn benchmarks_run_with_tiny_numbers() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_perfwatch-bench")).arg("smoke").output().expect("perfwatch-bench");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
}
