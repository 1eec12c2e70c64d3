use contrast_audit::{Kind, Outcome};
use contrast_testbed::MetricsReference;

use super::*;
use crate::replica::{
    message::Place,
    status::{ClusterStatus, MemberStatus, Role},
};

fn outside() -> Status {
    Status {
        place: Place::new("a:7778"),
        role: Role::Empty,
        serving: Err("empty".to_owned()),
        cluster: None,
        active: None,
        confirmed_ago: None,
        confirmation_bound: Duration::from_secs(10),
    }
}

/// A leader that knows everything about another member, so that no metric is left out.
fn leader() -> Status {
    let member = MemberStatus {
        node: 2,
        place: Place::new("b:7778"),
        voter: true,
        heard_ago: Some(Duration::from_secs(1)),
        matched: Some(7),
        evidence: None,
    };
    Status {
        role: Role::Leader,
        serving: Ok(()),
        cluster: Some(ClusterStatus {
            id: crate::cluster::ClusterId([0; 32]),
            node: 1,
            term: 3,
            leader: Some(1),
            committed: 9,
            applied: 9,
            members: vec![member],
        }),
        confirmed_ago: Some(Duration::from_millis(1500)),
        ..outside()
    }
}

const COLLATERAL: Statistics = Statistics {
    known: 4,
    stale: 1,
    fetched: 5,
    failed: 2,
};

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Metrics of a Coordinator to which everything happened that is counted.
fn touched() -> Metrics {
    let metrics = Metrics::new(start());
    metrics.attestation_failed();
    metrics.certificate_issued();
    metrics.attest_answered(200);
    metrics.transit_answered("encrypt", 200);
    metrics.observe_request("NewMeshCert", Code::Ok, Duration::from_micros(200));
    metrics.store_measured(1000, 900);
    metrics.audit().decided(Kind::Certificate, Outcome::Done);
    metrics
}

fn render(metrics: &Metrics, status: &Status) -> String {
    let now = start() + Duration::from_secs(60);
    metrics.render(Format::OpenMetrics, now, &Phase::Empty, status, COLLATERAL)
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|found| found == *line),
            "{line} in\n{text}"
        );
    }
}

#[test]
fn exposes_the_promised_names() {
    let text = render(&touched(), &outside());
    let build = format!(
        "contrast_build_info{{program=\"coordinator\",version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert_lines(
        &text,
        &[
            &build,
            "process_start_time_seconds 1800000000",
            "contrast_clock_timestamp_seconds 1800000060",
            "contrast_coordinator_manifest_generation 0",
            "contrast_coordinator_insecure_reference_values 0",
            "contrast_coordinator_mesh_ca_expiry_timestamp_seconds 0",
            "contrast_meshapi_attestation_failures_total 1",
            "contrast_meshapi_certificates_issued_total 1",
            "contrast_meshapi_insecure_evidence_total 0",
            r#"contrast_transitapi_answers_total{operation="encrypt",status="200"} 1"#,
            "contrast_transitapi_worn_keys_total 0",
            "contrast_collateral_documents 4",
            "contrast_collateral_stale_documents 1",
            "contrast_collateral_fetched_total 5",
            "contrast_collateral_fetch_failures_total 2",
            "contrast_store_size_bytes 1000",
            "contrast_store_free_bytes 900",
            "contrast_cluster_serving 0",
            "contrast_cluster_voters 0",
            r#"contrast_cluster_role{role="empty"} 1"#,
            r#"contrast_cluster_role{role="leader"} 0"#,
            "contrast_cluster_confirmation_age_seconds -1.0",
            r#"contrast_grpc_request_duration_seconds_bucket{le="0.0001",method="NewMeshCert",code="OK"} 0"#,
            r#"contrast_grpc_request_duration_seconds_bucket{le="0.00025",method="NewMeshCert",code="OK"} 1"#,
            r#"contrast_grpc_request_duration_seconds_bucket{le="5.0",method="NewMeshCert",code="OK"} 1"#,
        ],
    );
}

#[test]
fn leader_tells_of_its_members() {
    let metrics = touched();
    assert_lines(
        &render(&metrics, &leader()),
        &[
            "contrast_cluster_serving 1",
            "contrast_cluster_voters 1",
            "contrast_cluster_has_leader 1",
            "contrast_cluster_term 3",
            "contrast_cluster_confirmation_age_seconds 1.5",
            r#"contrast_cluster_member_heard_age_seconds{place="b:7778",voter="true"} 1.0"#,
            r#"contrast_cluster_member_lag_entries{place="b:7778",voter="true"} 2"#,
        ],
    );
    let later = render(&metrics, &outside());
    assert!(!later.contains("b:7778"), "{later}");
}

#[test]
fn updates_are_told_apart_by_whose_fault_it_is() {
    let metrics = Metrics::new(start());
    let updates = |outcome: &str| {
        format!("contrast_userapi_manifest_updates_total{{outcome=\"{outcome}\"}} ")
    };
    let none = render(&metrics, &outside());
    assert_lines(
        &none,
        &OUTCOMES
            .map(|outcome| updates(outcome) + "0")
            .each_ref()
            .map(String::as_str),
    );
    for (method, code) in [
        ("SetManifest", Code::Ok),
        ("ImportSeed", Code::Ok),
        ("SetManifest", Code::PermissionDenied),
        ("SetManifest", Code::Unavailable),
        ("SetManifest", Code::ResourceExhausted),
        ("SetManifest", Code::Internal),
        ("NewMeshCert", Code::PermissionDenied),
        ("GetManifests", Code::Ok),
    ] {
        metrics.observe_request(method, code, Duration::ZERO);
    }
    let text = render(&metrics, &outside());
    let expected = [("accepted", "2"), ("refused", "1"), ("failed", "3")];
    for (outcome, count) in expected {
        assert_lines(&text, &[&(updates(outcome) + count)]);
    }
}

/// The table is the reference. With `UPDATE_REFERENCE=1` the test writes it there.
#[test]
fn reference_lists_every_metric() {
    let reference = MetricsReference {
        section: "coordinator",
        exposition: &render(&touched(), &leader()),
    };
    reference.check();
}
