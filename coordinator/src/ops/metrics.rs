use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use contrast_collateral::Statistics;
use contrast_telemetry::metrics::{LATENCY_BUCKETS_S, render};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};
use tonic::Code;

use super::{audit_metrics::AuditMetrics, cluster_metrics::ClusterMetrics};
use crate::{replica::status::Status, state::Phase};

/// Names of metrics, as they are exposed. Dashboards depend on them.
const GENERATION: &str = "contrast_coordinator_manifest_generation";
const INSECURE_REFERENCE_VALUES: &str = "contrast_coordinator_insecure_reference_values";
/// `_total` is appended when exposed.
const ATTESTATION_FAILURES: &str = "contrast_meshapi_attestation_failures";
const INSECURE_EVIDENCE: &str = "contrast_meshapi_insecure_evidence";
const COLLATERAL_DOCUMENTS: &str = "contrast_collateral_documents";
const COLLATERAL_STALE: &str = "contrast_collateral_stale_documents";
const COLLATERAL_FETCHED: &str = "contrast_collateral_fetched";
const COLLATERAL_FAILURES: &str = "contrast_collateral_fetch_failures";
/// `_total` is appended when exposed.
const ATTEST_ANSWERS: &str = "contrast_attestapi_answers";
const TRANSIT_ANSWERS: &str = "contrast_transitapi_answers";
const TRANSIT_KEYS_WORN: &str = "contrast_transitapi_worn_keys";
const REQUEST_SECONDS: &str = "contrast_grpc_request_duration_seconds";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitLabels {
    operation: &'static str,
    status: u16,
}

#[derive(Debug, Clone)]
struct LatencyBuckets;

impl MetricConstructor<Histogram> for LatencyBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCY_BUCKETS_S)
    }
}

/// All metrics of the Coordinator.
pub(crate) struct Metrics {
    registry: Registry,
    generation: Gauge<u64, AtomicU64>,
    insecure_reference_values: Gauge<u64, AtomicU64>,
    attestation_failures: Counter,
    insecure_evidence: Counter,
    requests: Family<RequestLabels, Histogram, LatencyBuckets>,
    attest_answers: Family<AnswerLabels, Counter>,
    transit_answers: Family<TransitLabels, Counter>,
    transit_keys_worn: Counter,
    collateral: CollateralMetrics,
    cluster: ClusterMetrics,
    audit: AuditMetrics,
}

/// What CPU vendors publish, as far as this Coordinator needed it.
#[derive(Default)]
struct CollateralMetrics {
    documents: Gauge<u64, AtomicU64>,
    stale: Gauge<u64, AtomicU64>,
    fetched: Counter,
    failures: Counter,
}

impl CollateralMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            COLLATERAL_DOCUMENTS,
            "Documents of CPU vendors (certificates, CRLs, TCB infos) that were needed and are known",
            metrics.documents.clone(),
        );
        registry.register(
            COLLATERAL_STALE,
            "Those of them that are not valid now, so that evidence which needs them is refused",
            metrics.stale.clone(),
        );
        registry.register(
            COLLATERAL_FETCHED,
            "Documents that were fetched",
            metrics.fetched.clone(),
        );
        registry.register(
            COLLATERAL_FAILURES,
            "Documents that could not be fetched, after all attempts",
            metrics.failures.clone(),
        );
        metrics
    }

    fn set(&self, statistics: Statistics) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let Statistics {
            known,
            stale,
            fetched,
            failed,
        } = statistics;
        self.documents.set(number(known));
        self.stale.set(number(stale));
        // The counts are kept where fetching happens, and only grow.
        self.fetched.inner().store(fetched, Ordering::Relaxed);
        self.failures.inner().store(failed, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let generation = Gauge::default();
        registry.register(
            GENERATION,
            "Number of transitions in the active history; 0 while there is no active manifest",
            generation.clone(),
        );
        let insecure_reference_values = Gauge::default();
        registry.register(
            INSECURE_REFERENCE_VALUES,
            "1 while the active manifest accepts evidence of a software TEE, which protects nothing",
            insecure_reference_values.clone(),
        );
        let attestation_failures = Counter::default();
        registry.register(
            ATTESTATION_FAILURES,
            "Peers of the mesh API whose evidence was refused",
            attestation_failures.clone(),
        );
        let insecure_evidence = Counter::default();
        registry.register(
            INSECURE_EVIDENCE,
            "Certificates issued for evidence of a software TEE",
            insecure_evidence.clone(),
        );
        let requests = Family::new_with_constructor(LatencyBuckets);
        registry.register(
            REQUEST_SECONDS,
            "Time from a decoded gRPC request to its answer",
            requests.clone(),
        );
        let attest_answers = Family::default();
        registry.register(
            ATTEST_ANSWERS,
            "Answers of the attest API by HTTP status",
            attest_answers.clone(),
        );
        let transit_answers = Family::default();
        registry.register(
            TRANSIT_ANSWERS,
            "Answers of the transit API by operation and HTTP status",
            transit_answers.clone(),
        );
        let transit_keys_worn = Counter::default();
        registry.register(
            TRANSIT_KEYS_WORN,
            "Transit keys that encrypted 2^31 messages since the start, half of what AES-GCM permits",
            transit_keys_worn.clone(),
        );
        let collateral = CollateralMetrics::register(&mut registry);
        let cluster = ClusterMetrics::register(&mut registry);
        let audit = AuditMetrics::register(&mut registry);
        Self {
            registry,
            cluster,
            audit,
            collateral,
            generation,
            insecure_reference_values,
            attestation_failures,
            insecure_evidence,
            requests,
            attest_answers,
            transit_answers,
            transit_keys_worn,
        }
    }

    pub(crate) fn audit(&self) -> AuditMetrics {
        self.audit.clone()
    }

    pub(crate) fn attestation_failed(&self) {
        self.attestation_failures.inc();
    }

    pub(crate) fn insecure_evidence_accepted(&self) {
        self.insecure_evidence.inc();
    }

    pub(crate) fn attest_answered(&self, status: u16) {
        self.attest_answers
            .get_or_create(&AnswerLabels { status })
            .inc();
    }

    pub(crate) fn transit_answered(&self, operation: &'static str, status: u16) {
        self.transit_answers
            .get_or_create(&TransitLabels { operation, status })
            .inc();
    }

    pub(crate) fn transit_key_worn(&self) {
        self.transit_keys_worn.inc();
    }

    #[cfg(test)]
    pub(crate) fn transit_keys_worn(&self) -> u64 {
        self.transit_keys_worn.get()
    }

    pub(crate) fn observe_request(&self, method: &'static str, code: Code, took: Duration) {
        let labels = RequestLabels {
            method,
            code: name(code),
        };
        self.requests
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// The exposition, with gauges that follow from `phase`, `cluster` and `collateral`.
    pub(crate) fn render(&self, phase: &Phase, cluster: &Status, collateral: Statistics) -> String {
        self.collateral.set(collateral);
        self.cluster.set(cluster);
        let (generation, insecure) = match phase {
            Phase::Empty | Phase::Sealed(_) | Phase::Held(_) => (0, false),
            Phase::Active(active) => (
                active.history().generation(),
                active.manifest().accepts_insecure_evidence(),
            ),
        };
        self.generation
            .set(u64::try_from(generation).unwrap_or(u64::MAX));
        self.insecure_reference_values.set(insecure.into());
        render(&self.registry)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Names of gRPC status codes as metrics of other gRPC servers show them.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{message::Place, status::Role};

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

    #[test]
    fn exposes_the_promised_names() {
        let metrics = Metrics::new();
        metrics.attestation_failed();
        metrics.transit_answered("encrypt", 200);
        metrics.observe_request("NewMeshCert", Code::Ok, Duration::from_micros(200));
        let text = metrics.render(
            &Phase::Empty,
            &outside(),
            Statistics {
                known: 4,
                stale: 1,
                fetched: 5,
                failed: 2,
            },
        );
        for line in [
            "contrast_coordinator_manifest_generation 0",
            "contrast_coordinator_insecure_reference_values 0",
            "contrast_meshapi_attestation_failures_total 1",
            "contrast_meshapi_insecure_evidence_total 0",
            r#"contrast_transitapi_answers_total{operation="encrypt",status="200"} 1"#,
            "contrast_transitapi_worn_keys_total 0",
            "contrast_collateral_documents 4",
            "contrast_collateral_stale_documents 1",
            "contrast_collateral_fetched_total 5",
            "contrast_collateral_fetch_failures_total 2",
            "contrast_cluster_serving 0",
            "contrast_cluster_voters 0",
            r#"contrast_cluster_role{role="empty"} 1"#,
            r#"contrast_cluster_role{role="leader"} 0"#,
            "contrast_cluster_confirmation_age_seconds -1.0",
            r#"contrast_grpc_request_duration_seconds_bucket{le="0.0001",method="NewMeshCert",code="OK"} 0"#,
            r#"contrast_grpc_request_duration_seconds_bucket{le="0.00025",method="NewMeshCert",code="OK"} 1"#,
            r#"contrast_grpc_request_duration_seconds_bucket{le="5.0",method="NewMeshCert",code="OK"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
