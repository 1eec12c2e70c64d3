use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use contrast_collateral::Statistics;
use contrast_telemetry::metrics::{Format, LATENCY_BUCKETS_S, Process, unix_seconds};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
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
/// `_seconds` is appended when exposed.
const MESH_CA_EXPIRY: &str = "contrast_coordinator_mesh_ca_expiry_timestamp";
/// `_total` is appended when exposed.
const CERTIFICATES_ISSUED: &str = "contrast_meshapi_certificates_issued";
const MANIFEST_UPDATES: &str = "contrast_userapi_manifest_updates";
/// `_bytes` is appended when exposed.
const STORE_SIZE: &str = "contrast_store_size";
const STORE_FREE: &str = "contrast_store_free";
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

/// How a request to set a manifest ended: `accepted`, `refused` for what is wrong with it, `failed` for what is wrong here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpdateLabels {
    outcome: &'static str,
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
    process: Process,
    mesh_ca_expiry: Gauge<u64, AtomicU64>,
    certificates_issued: Counter,
    manifest_updates: Family<UpdateLabels, Counter>,
    store: StoreMetrics,
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
            "Known documents of CPU vendors that are not valid now, so that evidence which needs them is refused",
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

/// The file system that the history is on.
#[derive(Default)]
struct StoreMetrics {
    size: Gauge<u64, AtomicU64>,
    free: Gauge<u64, AtomicU64>,
}

impl StoreMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_with_unit(
            STORE_SIZE,
            "Size of the file system that the history is on; 0 while it is unknown",
            Unit::Bytes,
            metrics.size.clone(),
        );
        registry.register_with_unit(
            STORE_FREE,
            "Free space of the file system that the history is on",
            Unit::Bytes,
            metrics.free.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// The numbers of a Coordinator that started at `started`.
    pub(crate) fn new(started: SystemTime) -> Self {
        let mut registry = Registry::default();
        let version = env!("CARGO_PKG_VERSION");
        let process = Process::register(&mut registry, "coordinator", version, started);
        let mesh_ca_expiry = Gauge::default();
        registry.register_with_unit(
            MESH_CA_EXPIRY,
            "When the certificate of the active mesh CA expires, since 1970-01-01; 0 while there is none",
            Unit::Seconds,
            mesh_ca_expiry.clone(),
        );
        let certificates_issued = Counter::default();
        registry.register(
            CERTIFICATES_ISSUED,
            "Certificates that were issued to pods",
            certificates_issued.clone(),
        );
        let manifest_updates = Family::<UpdateLabels, Counter>::default();
        // So that the first one of each is seen as an increase.
        for outcome in OUTCOMES {
            drop(manifest_updates.get_or_create(&UpdateLabels { outcome }));
        }
        registry.register(
            MANIFEST_UPDATES,
            "Requests to set a manifest by outcome: accepted, refused, or failed for want of a quorum or a disk",
            manifest_updates.clone(),
        );
        let store = StoreMetrics::register(&mut registry);
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
            process,
            mesh_ca_expiry,
            certificates_issued,
            manifest_updates,
            store,
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

    pub(crate) fn certificate_issued(&self) {
        self.certificates_issued.inc();
    }

    /// Notes the file system that the history is on.
    pub(crate) fn store_measured(&self, size: u64, free: u64) {
        self.store.size.set(size);
        self.store.free.set(free);
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
        if matches!(method, "SetManifest" | "ImportSeed") {
            let outcome = outcome(code);
            self.manifest_updates
                .get_or_create(&UpdateLabels { outcome })
                .inc();
        }
    }

    /// The exposition, with gauges that follow from `phase`, `cluster` and `collateral` as they are at `now`.
    pub(crate) fn render(
        &self,
        format: Format,
        now: SystemTime,
        phase: &Phase,
        cluster: &Status,
        collateral: Statistics,
    ) -> String {
        self.process.set_clock(now);
        self.collateral.set(collateral);
        self.cluster.set(cluster);
        let (generation, insecure, mesh_ca_expiry) = match phase {
            Phase::Empty | Phase::Sealed(_) | Phase::Held(_) => (0, false, 0),
            Phase::Active(active) => (
                active.history().generation(),
                active.manifest().accepts_insecure_evidence(),
                unix_seconds(active.mesh_ca().not_after()),
            ),
        };
        self.mesh_ca_expiry.set(mesh_ca_expiry);
        self.generation
            .set(u64::try_from(generation).unwrap_or(u64::MAX));
        self.insecure_reference_values.set(insecure.into());
        format.render(&self.registry)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

const OUTCOMES: [&str; 3] = ["accepted", "refused", "failed"];

/// One of [`OUTCOMES`].
fn outcome(code: Code) -> &'static str {
    match code {
        Code::Ok => "accepted",
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => "refused",
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => "failed",
    }
}

/// Names of gRPC status codes as metrics of other gRPC servers show them.
pub(crate) fn name(code: Code) -> &'static str {
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
#[path = "metrics_tests.rs"]
mod tests;
