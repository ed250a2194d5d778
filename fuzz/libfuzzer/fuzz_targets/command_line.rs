//! libFuzzer program of the target `command_line`.
#![no_main]

perfwatch_libfuzzer::program!("command_line");
