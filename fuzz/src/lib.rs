//! Fuzz targets: one function for each parser of input from outside. A target panics if an invariant does
//! not hold: what is accepted is valid, encodes and decodes to itself, and takes memory in proportion to the
//! input.
//!
//! `cargo test -p perfwatch-fuzz` runs each target on mutated seeds (`FUZZ_RUNS`, default 2,000);
//! `scripts/fuzz` runs a target with coverage feedback (libFuzzer). Both use the same functions, the seeds of
//! [`Target::seeds`] and the files in `fuzz/corpus`.

mod block;
mod capsule;
mod host;
mod ingest;
pub mod measure;
mod mutate;
mod operator;
mod terminal;
mod text;

pub use mutate::Mutator;

use std::path::{Path, PathBuf};

/// Peak memory that a target may take: fixed, and for each byte of input.
#[derive(Debug, Clone, Copy)]
pub struct MemoryBound {
    /// Independent of the input: tables, compression state, buffers of limited size.
    pub fixed_bytes: usize,
    /// Bytes for each byte of the input.
    pub per_byte: usize,
}

/// Parser under test.
pub struct Target {
    /// Name of the target, of its corpus and of its libFuzzer program.
    pub name: &'static str,
    /// Runs the parser and checks the invariants; returns whether it accepted the input.
    pub run: fn(&[u8]) -> bool,
    /// Valid inputs, from which others are mutated.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Tokens of the format, which mutations insert.
    pub dictionary: &'static [&'static str],
    /// Maximum length of a generated input.
    pub max_len: usize,
    /// Maximum of memory.
    pub memory: MemoryBound,
}

/// All targets, by the sender of their input: agents and scripts, watched hosts, operators, hubs, browsers.
pub const TARGETS: &[Target] = &[
    ingest::WIRE_BATCH,
    ingest::SNAPSHOT_JSON,
    ingest::COMPRESSED_BODY,
    ingest::CLIENT_MESSAGE,
    block::BLOCK,
    capsule::CAPSULE,
    host::CAPTURE,
    host::COMMAND_LINE,
    operator::CONFIGURATION,
    operator::SSH_CONFIG,
    operator::CSV,
    operator::SERVERS_YAML,
    operator::PRIVATE_KEY,
    operator::TEMPLATE,
    operator::RULE,
    terminal::HUB_RESPONSE,
    terminal::TYPED_TIME,
    text::GLOB,
    text::HEADERS,
    text::EXPRESSIONS,
];

/// Target of a name.
///
/// # Panics
/// Panics if no target has the name.
pub fn find_target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("unknown target {name:?}"))
}

/// Directory of the committed inputs of a target: inputs that once failed, and those that no mutation finds.
pub fn corpus_dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Seeds and committed inputs of a target, in a fixed order.
///
/// # Errors
/// Returns the error of reading a file of the corpus.
pub fn inputs(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let mut inputs = (target.seeds)();
    let mut paths = match std::fs::read_dir(corpus_dir(target)) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    for path in paths {
        inputs.push(std::fs::read(path)?);
    }
    Ok(inputs)
}

/// Runs a target and checks its memory, where [`measure`] is the allocator of the program. Returns whether
/// the input was accepted.
///
/// # Panics
/// Panics if an invariant does not hold.
pub fn run(target: &Target, data: &[u8]) -> bool {
    let (is_accepted, peak) = measure::peak_bytes(|| (target.run)(data));
    let max = target.memory.fixed_bytes + target.memory.per_byte * data.len();
    assert!(peak <= max, "{} bytes of memory for {} bytes of input; allowed are {max}", peak, data.len());
    is_accepted
}
