//! libFuzzer program of the target `capture`.
#![no_main]

perfwatch_libfuzzer::program!("capture");
