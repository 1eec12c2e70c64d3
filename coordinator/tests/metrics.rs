//! The metrics of a real Coordinator: what happened is in them, and tools can read them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::time::Duration;

use contrast_proto::mesh::NewMeshCertRequest;
use contrast_testbed::lint_metrics;
use support::{Deployment, WEB_INITDATA, get_as, mesh_client, now, user_client};

const OPEN_METRICS: &str =
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

fn value(text: &str, name: &str) -> f64 {
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let found = found.unwrap_or_else(|| panic!("{name} in\n{text}"));
    found.parse().expect("a number")
}

#[tokio::test]
async fn metrics_tell_what_happened_in_a_form_that_tools_read() {
    let started = now();
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let ops = coordinator.addresses.ops;
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets");
    let transition = set.into_inner().transition;
    let mut forged = deployment.request(&deployment.manifest("web2"), &transition);
    forged.signatures.clear();
    user.set_manifest(forged).await.expect_err("nobody signed");
    let guest = deployment.guest(WEB_INITDATA);
    let mesh = mesh_client(coordinator.addresses.mesh_api, &manifest, guest).await;
    let mut mesh = mesh.expect("connects");
    for _ in 0..2 {
        mesh.new_mesh_cert(NewMeshCertRequest::default())
            .await
            .expect("issues");
    }

    // The disk is measured beside everything else.
    let mut text = String::new();
    for _ in 0..200 {
        text = get_as(ops, "/metrics", "*/*").2;
        if value(&text, "contrast_store_size_bytes") > 0.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (size, free) = (
        value(&text, "contrast_store_size_bytes"),
        value(&text, "contrast_store_free_bytes"),
    );
    assert!(size > 0.0 && free <= size, "{free} of {size}");
    let unix = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_secs_f64()
    };
    for (name, expected) in [
        ("contrast_meshapi_certificates_issued_total", 2.0),
        (
            "contrast_userapi_manifest_updates_total{outcome=\"accepted\"}",
            1.0,
        ),
        (
            "contrast_userapi_manifest_updates_total{outcome=\"refused\"}",
            1.0,
        ),
        (
            "contrast_userapi_manifest_updates_total{outcome=\"failed\"}",
            0.0,
        ),
        ("contrast_cluster_serving", 1.0),
        ("contrast_cluster_voters", 1.0),
        ("contrast_cluster_has_leader", 1.0),
    ] {
        assert_eq!(value(&text, name), expected, "{name}");
    }
    for name in [
        "process_start_time_seconds",
        "contrast_clock_timestamp_seconds",
    ] {
        let found = value(&text, name);
        assert!(
            (unix(started) - 1.0..=unix(now())).contains(&found),
            "{name} {found}"
        );
    }
    let years = (value(
        &text,
        "contrast_coordinator_mesh_ca_expiry_timestamp_seconds",
    ) - unix(now()))
        / (365.0 * 86400.0);
    assert!((9.9..10.0).contains(&years), "{years}");
    lint_metrics(&text);
}

#[tokio::test]
async fn form_is_what_the_scraper_asks_for() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let ops = coordinator.addresses.ops;
    let (status, headers, open_metrics) = get_as(ops, "/metrics", OPEN_METRICS);
    assert_eq!(status, 200);
    assert!(
        headers
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{headers}"
    );
    assert!(open_metrics.ends_with("# EOF\n"), "{open_metrics}");
    let (_, headers, plain) = get_as(ops, "/metrics", "text/plain");
    assert!(
        headers.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{headers}"
    );
    assert!(
        plain.contains("# TYPE contrast_meshapi_certificates_issued_total counter\n"),
        "{plain}"
    );
    assert!(!plain.contains("# EOF"), "{plain}");
}
