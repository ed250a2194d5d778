//! libFuzzer program of the target `configuration`.
#![no_main]

perfwatch_libfuzzer::program!("configuration");
