//! Rebuilds the hub when the dashboard it embeds was built anew.

#![expect(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

fn main() {
    println!("cargo:rerun-if-changed=../../web/dist");
}
