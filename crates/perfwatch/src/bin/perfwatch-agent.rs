//! `perfwatch-agent`: the agent alone, without the hub in it.

fn main() -> std::process::ExitCode {
    perfwatch::cli::agent_main()
}
