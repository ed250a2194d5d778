//! Rebuilds the crate when the embedded dashboard changes.

fn main() {
    println!("cargo:rerun-if-changed=../../web/dist");
}
