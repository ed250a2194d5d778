//! Rebuilds the hub when the dashboard it embeds was built anew.

fn main() {
    println!("cargo:rerun-if-changed=../../web/dist");
}
