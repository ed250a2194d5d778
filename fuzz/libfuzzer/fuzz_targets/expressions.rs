//! libFuzzer program of the target `expressions`.
#![no_main]

perfwatch_libfuzzer::program!("expressions");
