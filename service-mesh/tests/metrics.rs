//! Metrics of a sidecar with a real Envoy.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
};

mod testbed;

use contrast_telemetry::enrolment::{Enrolment, FILE};
use contrast_testbed::lint_metrics;
use testbed::{Sidecar, certificates::Generation, connect, echo, echoes, eventually, free_port};

/// The whole answer to one request.
fn ask(port: u16, request: &str) -> String {
    let mut stream = connect((Ipv4Addr::LOCALHOST, port).into()).expect("metrics");
    let head = format!("{request} HTTP/1.1\r\nhost: pod\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

#[test]
fn metrics_count_what_entries_took_and_refused() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let generation = Generation::new();
    let bundle = generation.issue();
    let ip = Ipv4Addr::new(127, 79, 1, 1);
    let port = echo();
    let egress = SocketAddr::from((ip, free_port(ip)));
    let metrics = free_port(Ipv4Addr::LOCALHOST);
    let environment = [
        ("CONTRAST_INGRESS_PROXY_CONFIG", format!("app#{port}#false")),
        (
            "CONTRAST_EGRESS_PROXY_CONFIG",
            format!("self#{egress}#{ip}:{port}#identity=any"),
        ),
        ("CONTRAST_POD_IP", ip.to_string()),
        ("CONTRAST_METRICS_PORT", metrics.to_string()),
    ];
    let mut enrolment = Enrolment::default();
    enrolment.succeeded(1_800_000_000, 1_800_003_600);
    let _sidecar = Sidecar::ready(&envoy, &environment, |directory| {
        bundle.install(directory);
        let base = directory.parent().expect("the base directory");
        fs::write(base.join(FILE), enrolment.to_string()).expect("writes");
    });

    assert!(echoes(egress));
    assert!(!echoes((ip, port).into()), "a plain client was served");
    // Envoy's workers hand their counts to its main thread from time to time, and an answer may be a second old.
    let mut text = String::new();
    let mut is_counted = |wanted: &str| {
        text = ask(metrics, "GET /metrics");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        text.lines().any(|line| line.starts_with(wanted))
    };
    for wanted in [
        "contrast_mesh_connections_total{direction=\"ingress\",entry=\"app\"} 2",
        "contrast_mesh_connections_total{direction=\"egress\",entry=\"self\"} 1",
        "contrast_mesh_refused_total{direction=\"ingress\",entry=\"app\",reason=\"no_handshake\"} 1",
        "contrast_mesh_certificate_updates_total{what=\"certificate\"} 1",
        "contrast_mesh_certificate_expiry_timestamp_seconds{} ",
        "contrast_mesh_envoy_up{} 1",
        "contrast_initializer_enrolments_total{} 1",
    ] {
        eventually(wanted, || is_counted(wanted));
    }
    let (head, plain) = text.split_once("\r\n\r\n").expect("an answer");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    lint_metrics(plain);
    assert!(ask(metrics, "GET /config_dump").starts_with("HTTP/1.1 404"));
    assert!(ask(metrics, "POST /metrics").starts_with("HTTP/1.1 404"));
}
