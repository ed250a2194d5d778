//! `perfwatch`: hub, agent and dashboard in one.

fn main() -> std::process::ExitCode {
    perfwatch::cli::main()
}
