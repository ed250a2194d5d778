//! libFuzzer program of the target `private_key`.
#![no_main]

perfwatch_libfuzzer::program!("private_key");
