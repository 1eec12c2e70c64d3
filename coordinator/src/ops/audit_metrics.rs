use std::sync::atomic::Ordering;

use contrast_audit::{Kind, Outcome};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// The audit stream in numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditMetrics {
    decisions: Family<DecisionLabels, Counter>,
    lost: Counter,
    write_failures: Counter,
}

impl AuditMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // `_total` is appended when exposed.
        registry.register(
            "contrast_audit_decisions",
            "Decisions by kind and outcome, as the audit stream names them, recorded or lost",
            metrics.decisions.clone(),
        );
        registry.register(
            "contrast_audit_lost_records",
            "Decisions that are not in the audit stream, which says how many are missing where",
            metrics.lost.clone(),
        );
        registry.register(
            "contrast_audit_write_failures",
            "Attempts to write to the audit log that failed; each is repeated",
            metrics.write_failures.clone(),
        );
        metrics
    }

    pub(crate) fn decided(&self, kind: Kind, outcome: Outcome) {
        let labels = DecisionLabels {
            kind: kind.name(),
            outcome: outcome.name(),
        };
        self.decisions.get_or_create(&labels).inc();
    }

    /// All that are lost, which only grows.
    pub(crate) fn lost(&self, count: u64) {
        self.lost.inner().store(count, Ordering::Relaxed);
    }

    pub(crate) fn write_failures(&self) -> Counter {
        self.write_failures.clone()
    }
}
