//! Runs fuzz targets without libFuzzer: reproduces an input, writes the seeds, or runs for long.

use anyhow::Context as _;
use perfwatch_fuzz::measure::MeasuringAllocator;
use perfwatch_fuzz::{Mutator, TARGETS, find_target, inputs, run};
use std::path::Path;

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

const USAGE: &str =
    "usage: perfwatch-fuzz list | seeds TARGET DIRECTORY | replay TARGET FILE… | run TARGET COUNT SEED";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => {
            for target in TARGETS {
                println!("{} {}", target.name, target.max_len);
            }
        }
        ["seeds", name, directory] => {
            std::fs::create_dir_all(directory)?;
            for (index, input) in inputs(find_target(name))?.iter().enumerate() {
                std::fs::write(Path::new(directory).join(format!("seed-{index}")), input)?;
            }
        }
        ["replay", name, ref files @ ..] => {
            for file in files {
                run(find_target(name), &std::fs::read(file).with_context(|| (*file).to_owned())?);
                println!("{file}: ok");
            }
        }
        ["run", name, count, seed] => {
            let (target, count) = (find_target(name), count.parse::<u64>()?);
            let inputs = inputs(target)?;
            let mut mutator = Mutator::new(seed.parse()?, &inputs, target.dictionary, target.max_len);
            // Written first, because a crash ends the process.
            let last = std::env::temp_dir().join(format!("perfwatch-fuzz-{name}-{seed}"));
            for _ in 0..count {
                let input = mutator.next_input();
                std::fs::write(&last, &input)?;
                run(target, &input);
            }
            std::fs::remove_file(&last)?;
            println!("{name}: {count} inputs, no finding");
        }
        _ => anyhow::bail!(USAGE),
    }
    Ok(())
}
