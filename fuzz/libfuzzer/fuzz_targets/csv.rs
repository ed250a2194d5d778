//! libFuzzer program of the target `csv`.
#![no_main]

perfwatch_libfuzzer::program!("csv");
