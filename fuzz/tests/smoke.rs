//! Smoke run of every fuzz target: `FUZZ_RUNS` mutated inputs each (default 2,000), and the corpus.

use perfwatch_fuzz::measure::{MeasuringAllocator, total_bytes};
use perfwatch_fuzz::{Mutator, TARGETS, corpus_dir, find_target, inputs, run};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

fn runs() -> u64 {
    std::env::var("FUZZ_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// Runs an input and returns whether it was accepted; a failing input is written to a file.
fn check(name: &str, input: &[u8]) -> bool {
    let target = find_target(name);
    catch_unwind(AssertUnwindSafe(|| run(target, input))).unwrap_or_else(|panic| {
        let path = std::env::temp_dir().join(format!("fuzz-{name}-{:08x}", crc32fast::hash(input)));
        std::fs::write(&path, input).unwrap();
        eprintln!("{name}: failing input in {}; keep it in {}", path.display(), corpus_dir(target).display());
        resume_unwind(panic)
    })
}

fn smoke(name: &str) {
    let target = find_target(name);
    let inputs = inputs(target).unwrap();
    let accepted = inputs.iter().filter(|input| check(name, input)).count();
    assert!(accepted > 0, "no seed of {name} is accepted: the target tests nothing");
    let mut mutator = Mutator::new(16, &inputs, target.dictionary, target.max_len);
    let accepted = (0..runs()).filter(|_| check(name, &mutator.next_input())).count();
    println!("{name}: {} inputs, {accepted} accepted", runs());
}

/// Allocated bytes stand for work, which a test can count: four times the input may allocate six times as
/// much, and a fixed amount.
#[test]
fn repeated_inputs_take_linear_allocations() {
    const FIXED_BYTES: u64 = 4 << 20;
    for target in TARGETS {
        for seed in inputs(target).unwrap() {
            let allocated = |len: usize| {
                let mut input = seed.repeat(len.div_ceil(seed.len().max(1)));
                input.truncate(len);
                let before = total_bytes();
                check(target.name, &input);
                total_bytes() - before
            };
            let (small, large) = (allocated(target.max_len / 4), allocated(target.max_len));
            assert!(large <= 6 * small + FIXED_BYTES, "{}: {small} bytes, then {large}", target.name);
        }
    }
}

macro_rules! smoke_tests {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                smoke(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_a_smoke_test_and_a_program() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/libfuzzer/fuzz_targets");
            for name in names {
                assert!(std::path::Path::new(programs).join(format!("{name}.rs")).exists(), "{name}");
            }
        }
    };
}

smoke_tests!(
    wire_batch,
    snapshot_json,
    compressed_body,
    client_message,
    block,
    capsule,
    capture,
    command_line,
    configuration,
    ssh_config,
    csv,
    servers_yaml,
    private_key,
    template,
    rule,
    hub_response,
    typed_time,
    glob,
    headers,
    expressions,
);
