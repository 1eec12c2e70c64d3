//! Generates the Rust types from the `.proto` files without a system `protoc`.

use std::error::Error;

const FILES: [&str; 6] = [
    "contrast/v1/evidence.proto",
    "contrast/v1/user.proto",
    "contrast/v1/mesh.proto",
    "contrast/v1/peer.proto",
    "envoy/secret.proto",
    "spiffe/workload.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for directory in ["contrast", "envoy", "spiffe"] {
        println!("cargo:rerun-if-changed={directory}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
