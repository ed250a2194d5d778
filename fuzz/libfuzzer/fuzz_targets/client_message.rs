//! libFuzzer program of the target `client_message`.
#![no_main]

perfwatch_libfuzzer::program!("client_message");
