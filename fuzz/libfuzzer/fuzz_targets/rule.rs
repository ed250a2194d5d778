//! libFuzzer program of the target `rule`.
#![no_main]

perfwatch_libfuzzer::program!("rule");
