//! `perfwatch-agent`: the agent without the hub.

fn main() -> std::process::ExitCode {
    perfwatch::cli::agent_main()
}
