//! libFuzzer program of the target `typed_time`.
#![no_main]

perfwatch_libfuzzer::program!("typed_time");
