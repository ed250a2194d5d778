//! libFuzzer program of the target `template`.
#![no_main]

perfwatch_libfuzzer::program!("template");
