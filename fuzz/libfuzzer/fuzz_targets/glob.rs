//! libFuzzer program of the target `glob`.
#![no_main]

perfwatch_libfuzzer::program!("glob");
