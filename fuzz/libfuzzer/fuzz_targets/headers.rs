//! libFuzzer program of the target `headers`.
#![no_main]

perfwatch_libfuzzer::program!("headers");
