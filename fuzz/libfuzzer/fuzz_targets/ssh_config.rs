//! libFuzzer program of the target `ssh_config`.
#![no_main]

perfwatch_libfuzzer::program!("ssh_config");
