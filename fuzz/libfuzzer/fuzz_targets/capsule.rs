//! libFuzzer program of the target `capsule`.
#![no_main]

perfwatch_libfuzzer::program!("capsule");
