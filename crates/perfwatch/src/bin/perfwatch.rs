//! `perfwatch`: hub, agent and dashboard in one binary.

/// Returns freed memory to the system in the background. The allocator of the C library does not after bursts of large
/// requests.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    perfwatch::cli::main()
}
