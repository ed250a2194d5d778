//! `perfwatch`: hub, agent and dashboard in one binary.

fn main() -> std::process::ExitCode {
    perfwatch::cli::main()
}
