//! libFuzzer program of the target `hub_response`.
#![no_main]

perfwatch_libfuzzer::program!("hub_response");
