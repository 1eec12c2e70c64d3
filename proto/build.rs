//! Generates the Rust types from `contrast/v1/*.proto` without a system `protoc`.

use std::error::Error;

const FILES: [&str; 4] = [
    "contrast/v1/evidence.proto",
    "contrast/v1/user.proto",
    "contrast/v1/mesh.proto",
    "contrast/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=contrast");
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
