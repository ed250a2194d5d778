//! libFuzzer program of the target `compressed_body`.
#![no_main]

perfwatch_libfuzzer::program!("compressed_body");
