//! `perfwatch`: hub, agent and dashboard in one binary.

/// Returns freed memory to the system from a thread of its own; the allocator of the C library keeps what bursts of
/// large requests leave behind.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    perfwatch::cli::main()
}
