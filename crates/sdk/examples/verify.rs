//! Verifies a Coordinator over its attest API, and, if asked to, reaches a workload of its deployment:
//!
//! `cargo run --package contrast-sdk --features network --example verify -- URL MANIFEST [HOST:PORT NAME]`

#![allow(
    clippy::print_stdout,
    reason = "an example that shows what it found to a person"
)]

use std::{error::Error, fs, sync::Arc, time::Duration};

use contrast_clock::{Entropy as _, SystemEntropy, SystemWallClock, WallClock};
use contrast_sdk::{
    Nonce,
    history::Memory,
    network::{AttestUrl, Policies, dial, fetch},
    verify_answer,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, manifest, workload) = match arguments.as_slice() {
        [url, manifest] => (url, manifest, None),
        [url, manifest, address, name] => (url, manifest, Some((address, name))),
        _ => return Err("expected URL MANIFEST [HOST:PORT NAME]".into()),
    };
    let url: AttestUrl = url.parse()?;
    let manifest = fs::read(manifest)?;
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);

    let mut nonce = Nonce([0; 32]);
    SystemEntropy.fill(&mut nonce.0)?;
    let answer = fetch(&url, &nonce, Policies::Included, PATIENCE)?;
    // A program that runs more than once keeps the last transition, and gives it here.
    let memory = Memory::default();
    let (verified, _) = verify_answer(&answer, &nonce, &manifest, &memory, clock.now())?;
    if verified.insecure {
        println!("INSECURE: the manifest accepts a software TEE");
    }
    let checks = verified.checks.all().len();
    println!("verified: {checks} checks passed");
    if let Some(latest) = verified.transitions.last() {
        println!("latest transition: {latest}");
    }
    if let Some((address, name)) = workload {
        dial(address, name, &verified.mesh_ca, &clock, PATIENCE)?;
        println!("{address} is a workload of this manifest with the name {name}");
    }
    Ok(())
}
