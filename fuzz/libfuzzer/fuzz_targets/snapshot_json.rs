//! libFuzzer program of the target `snapshot_json`.
#![no_main]

perfwatch_libfuzzer::program!("snapshot_json");
