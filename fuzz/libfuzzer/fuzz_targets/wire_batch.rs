//! libFuzzer program of the target `wire_batch`.
#![no_main]

perfwatch_libfuzzer::program!("wire_batch");
