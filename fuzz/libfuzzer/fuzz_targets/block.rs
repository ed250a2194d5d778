//! libFuzzer program of the target `block`.
#![no_main]

perfwatch_libfuzzer::program!("block");
