//! libFuzzer program of the target `servers_yaml`.
#![no_main]

perfwatch_libfuzzer::program!("servers_yaml");
