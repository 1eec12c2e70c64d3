//! Generates the Rust types from the `.proto` files without a system `protoc`.

use std::{env, error::Error};

const FILES: [&str; 8] = [
    "contrast/v1/evidence.proto",
    "contrast/v1/user.proto",
    "contrast/v1/mesh.proto",
    "contrast/v1/peer.proto",
    "envoy/secret.proto",
    "kata/image_pull.proto",
    "spiffe/workload.proto",
    "ttrpc/message.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for directory in ["contrast", "envoy", "kata", "spiffe", "ttrpc"] {
        println!("cargo:rerun-if-changed={directory}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let services = env::var("CARGO_CFG_TARGET_ARCH")? != "wasm32";
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(services)
        .build_server(services)
        .compile_fds(descriptors)?;
    Ok(())
}
