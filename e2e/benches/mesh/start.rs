//! How long a sidecar takes until it is ready, and what it needs.

use std::{
    fs,
    time::{Duration, Instant},
};

use contrast_e2e::harness::mesh::{Bed, Generation, MeshPod};

use crate::{by_hand::ByHand, measure::median};

const STARTS: usize = 15;

pub(crate) fn report(bed: &mut Bed, generation: &Generation, by_hand: &ByHand, deadline: Duration) {
    let begun = Instant::now();
    let (mut ours, mut envoys, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    let mut phases = String::new();
    while ours.len() < STARTS && begun.elapsed() < deadline {
        let (time, memory, log) = start(bed, generation);
        ours.push(time.as_secs_f64() * 1e3);
        resident.push(memory);
        phases = log;
        envoys.push(by_hand.start_again(bed).as_secs_f64() * 1e3);
    }
    println!(
        "\nstart to ready with certificates present, median of {}: {:.0} ms; an Envoy by hand until it listens: {:.0} ms",
        ours.len(),
        median(ours),
        median(envoys)
    );
    println!(
        "resident memory of the sidecar without Envoy: {:.1} MiB",
        median(resident) / 1024.0
    );
    println!("\nlog of the last start:\n{phases}");
}

fn start(bed: &mut Bed, generation: &Generation) -> (Duration, f64, String) {
    let mut pod: MeshPod = bed.pod(&[]).expect("pod");
    let identity = generation.issue("test/deployment/started", &pod.names());
    identity
        .and_then(|identity| pod.install(&identity))
        .expect("certificate");
    let begun = Instant::now();
    pod.start().expect("starts");
    pod.wait_until_ready().expect("ready");
    let time = begun.elapsed();
    let pid = pod.sidecar().expect("sidecar").id();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|text| text.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .expect("resident memory");
    let log = pod.log();
    pod.stop().expect("ends");
    (time, resident, log)
}
