//! Envoy's statistics under names that stay when Envoy's change: one label per entry, nothing per peer or connection. And how the pod's
//! enrolment goes.

use std::{collections::BTreeMap, fmt};

use contrast_telemetry::enrolment::Enrolment;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// Labels of one value: name and value each, in the order of the text.
type Labels = Vec<(&'static str, String)>;

/// End of the statistics that say when the certificate expires.
const CERTIFICATE_EXPIRY: &str = ".ssl.certificate.mesh_certificate.expiration_unix_time_seconds";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    EnvoyUp,
    Connections,
    OpenConnections,
    ReceivedBytes,
    SentBytes,
    Requests,
    Refused,
    CertificateUpdates,
    CertificateExpiry,
    Enrolments,
    EnrolmentFailures,
    Failing,
    NotAdmitted,
    Issued,
    Expiry,
}

impl Family {
    /// Name (without the suffixes that the text form adds), and what it counts.
    const fn describe(self) -> (&'static str, &'static str, Option<Unit>) {
        match self {
            Self::EnvoyUp => (
                "contrast_mesh_envoy_up",
                "1 if Envoy answered the sidecar",
                None,
            ),
            Self::Connections => (
                "contrast_mesh_connections",
                "Connections that came to an entry, also those that were refused",
                None,
            ),
            Self::OpenConnections => (
                "contrast_mesh_open_connections",
                "Connections to the application (ingress) or the remote (egress) that are open",
                None,
            ),
            Self::ReceivedBytes => (
                "contrast_mesh_received",
                "Bytes from whoever connected",
                Some(Unit::Bytes),
            ),
            Self::SentBytes => (
                "contrast_mesh_sent",
                "Bytes to whoever connected",
                Some(Unit::Bytes),
            ),
            Self::Requests => (
                "contrast_mesh_requests",
                "Requests of entries that speak HTTP, by class of their answer",
                None,
            ),
            Self::Refused => (
                "contrast_mesh_refused",
                "Connections that were refused, by reason",
                None,
            ),
            Self::CertificateUpdates => (
                "contrast_mesh_certificate_updates",
                "How often Envoy took new certificates or CAs",
                None,
            ),
            Self::CertificateExpiry => (
                "contrast_mesh_certificate_expiry_timestamp",
                "When the certificate that Envoy presents expires, since 1970-01-01",
                Some(Unit::Seconds),
            ),
            Self::Enrolments => (
                "contrast_initializer_enrolments",
                "Certificates that the Initializer received since its container started",
                None,
            ),
            Self::EnrolmentFailures => (
                "contrast_initializer_enrolment_failures",
                "Attempts of the Initializer that failed",
                None,
            ),
            Self::Failing => (
                "contrast_initializer_failing",
                "1 while the latest attempt is one that failed",
                None,
            ),
            Self::NotAdmitted => (
                "contrast_initializer_not_admitted",
                "1 while the latest attempt failed because the active manifest does not admit the pod",
                None,
            ),
            Self::Issued => (
                "contrast_initializer_certificate_issued_timestamp",
                "When the Initializer received the latest certificate, since 1970-01-01",
                Some(Unit::Seconds),
            ),
            Self::Expiry => (
                "contrast_initializer_certificate_expiry_timestamp",
                "When the latest certificate expires, since 1970-01-01",
                Some(Unit::Seconds),
            ),
        }
    }

    const fn is_gauge(self) -> bool {
        match self {
            Self::EnvoyUp
            | Self::OpenConnections
            | Self::CertificateExpiry
            | Self::Failing
            | Self::NotAdmitted
            | Self::Issued
            | Self::Expiry => true,
            Self::Connections
            | Self::ReceivedBytes
            | Self::SentBytes
            | Self::Requests
            | Self::Refused
            | Self::CertificateUpdates
            | Self::Enrolments
            | Self::EnrolmentFailures => false,
        }
    }
}

/// What one scrape found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Families(BTreeMap<Family, BTreeMap<Labels, u64>>);

impl Families {
    /// Reads Envoy's `/stats`, lines of `name: value`, if Envoy answered, and what the Initializer left, if it did.
    pub(super) fn of(statistics: Option<&str>, enrolment: Option<&Enrolment>) -> Self {
        let mut families = Self::default();
        families.put(Family::EnvoyUp, statistics.is_some().into());
        families.add_statistics(statistics.unwrap_or_default());
        if let Some(enrolment) = enrolment {
            families.add_enrolment(enrolment);
        }
        families
    }

    fn put(&mut self, family: Family, value: u64) {
        self.0.insert(family, BTreeMap::from([(Vec::new(), value)]));
    }

    fn add_enrolment(&mut self, enrolment: &Enrolment) {
        self.put(Family::Enrolments, enrolment.enrolments);
        self.put(Family::EnrolmentFailures, enrolment.failures);
        self.put(Family::Failing, enrolment.failing);
        self.put(Family::NotAdmitted, enrolment.not_admitted);
        // A pod without a certificate has none that ended in 1970.
        if enrolment.expiry > 0 {
            self.put(Family::Issued, enrolment.issued);
            self.put(Family::Expiry, enrolment.expiry);
        }
    }

    /// What is not understood is left out.
    fn add_statistics(&mut self, statistics: &str) {
        for line in statistics.lines() {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            // Histograms and texts are no numbers.
            let Ok(value) = value.trim().parse() else {
                continue;
            };
            if let Some((family, labels)) = meaning(name) {
                let known = self.0.entry(family).or_default();
                let sum = known.entry(labels).or_default();
                *sum = match family {
                    // Listeners and clusters all present the same certificate.
                    Family::CertificateExpiry => value,
                    _ => sum.saturating_add(value),
                };
            }
        }
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (family, values) in &self.0 {
            let (name, help, unit) = family.describe();
            let kind = match family.is_gauge() {
                true => MetricType::Gauge,
                false => MetricType::Counter,
            };
            let mut described = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
            for (labels, value) in values {
                let mut encoder = described.encode_family(labels)?;
                match family.is_gauge() {
                    true => encoder.encode_gauge(value)?,
                    false => encoder.encode_counter::<NoLabelSet, _, u64>(value, None)?,
                }
            }
        }
        Ok(())
    }
}

/// Start and end of a statistic's name, what it counts, and a label that follows from it.
type Counted = (
    &'static str,
    &'static str,
    Family,
    Option<(&'static str, &'static str)>,
);

/// Statistics of one entry: where Envoy counts, what its name ends in, family, and a further label.
///
/// Names of entries may have dots in them, so that only the end of a name tells what it counts.
const OF_ENTRIES: [Counted; 21] = {
    use Family::{Connections, OpenConnections, ReceivedBytes, Refused, Requests, SentBytes};
    const fn reason(reason: &'static str) -> Option<(&'static str, &'static str)> {
        Some(("reason", reason))
    }
    const fn status(status: &'static str) -> Option<(&'static str, &'static str)> {
        Some(("status", status))
    }
    [
        ("tcp.", ".downstream_cx_total", Connections, None),
        ("http.", ".downstream_cx_total", Connections, None),
        ("tcp.", ".downstream_cx_rx_bytes_total", ReceivedBytes, None),
        (
            "http.",
            ".downstream_cx_rx_bytes_total",
            ReceivedBytes,
            None,
        ),
        ("tcp.", ".downstream_cx_tx_bytes_total", SentBytes, None),
        ("http.", ".downstream_cx_tx_bytes_total", SentBytes, None),
        ("cluster.", ".upstream_cx_active", OpenConnections, None),
        ("http.", ".downstream_rq_1xx", Requests, status("1xx")),
        ("http.", ".downstream_rq_2xx", Requests, status("2xx")),
        ("http.", ".downstream_rq_3xx", Requests, status("3xx")),
        ("http.", ".downstream_rq_4xx", Requests, status("4xx")),
        ("http.", ".downstream_rq_5xx", Requests, status("5xx")),
        // Ingress judges handshakes at the listener, egress in the cluster.
        (
            "listener.ingress/",
            ".ssl.fail_verify_no_cert",
            Refused,
            reason("no_certificate"),
        ),
        (
            "listener.ingress/",
            ".ssl.fail_verify_error",
            Refused,
            reason("bad_certificate"),
        ),
        (
            "listener.ingress/",
            ".ssl.fail_verify_san",
            Refused,
            reason("not_allowed"),
        ),
        (
            "listener.ingress/",
            ".ssl.connection_error",
            Refused,
            reason("no_handshake"),
        ),
        ("ingress/", ".rbac.denied", Refused, reason("not_allowed")),
        (
            "cluster.egress/",
            ".ssl.fail_verify_error",
            Refused,
            reason("bad_certificate"),
        ),
        (
            "cluster.egress/",
            ".ssl.fail_verify_san",
            Refused,
            reason("other_identity"),
        ),
        (
            "cluster.egress/",
            ".ssl.connection_error",
            Refused,
            reason("no_handshake"),
        ),
        (
            "cluster.egress/",
            ".upstream_cx_connect_fail",
            Refused,
            reason("no_connection"),
        ),
    ]
};

/// Family and labels of Envoy's statistic `name`.
fn meaning(name: &str) -> Option<(Family, Labels)> {
    let updates = |what: &str| Some((Family::CertificateUpdates, vec![("what", what.to_owned())]));
    match name {
        "sds.mesh_certificate.update_success" => return updates("certificate"),
        "sds.mesh_ca.update_success" => return updates("ca"),
        _ if name.ends_with(CERTIFICATE_EXPIRY) => {
            return Some((Family::CertificateExpiry, Vec::new()));
        }
        _ => {}
    }
    OF_ENTRIES.iter().find_map(|(start, end, family, further)| {
        let rest = name.strip_prefix(start)?.strip_suffix(end)?;
        // Some starts go as far as into the entry.
        let (direction, entry) = match start.strip_suffix('/') {
            Some(start) => (start.rsplit('.').next().unwrap_or(start), rest),
            None => rest.split_once('/')?,
        };
        let mut labels = vec![
            ("direction", direction.to_owned()),
            ("entry", entry.to_owned()),
        ];
        labels.extend(further.map(|(label, value)| (label, value.to_owned())));
        Some((*family, labels))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    const STATISTICS: &str = "\
cluster.egress/api.ssl.fail_verify_san: 2
cluster.egress/api.ssl.certificate.mesh_certificate.expiration_unix_time_seconds: 1800000000
cluster.egress/api.upstream_cx_active: 3
cluster.egress/api.upstream_cx_connect_ms: P0(nan,0) P25(nan,0)
cluster.ingress/other.ssl.connection_error: 7
http.ingress/web.downstream_cx_total: 5
http.ingress/web.v2.downstream_cx_total: 6
http.ingress/web.downstream_rq_2xx: 11
http.ingress/web.downstream_rq_total: 12
ingress/web.rbac.allowed: 1
ingress/web.rbac.denied: 4
listener.ingress/mutual-tls.ssl.certificate.mesh_certificate.expiration_unix_time_seconds: 1800000000
listener.ingress/mutual-tls.ssl.fail_verify_no_cert: 1
listener.ingress/mutual-tls.worker_0.downstream_cx_total: 9
sds.mesh_ca.update_success: 2
sds.mesh_ca.version_text: \"7\"
tcp.egress/api.downstream_cx_rx_bytes_total: 100
tcp.egress/api.downstream_cx_tx_bytes_total: 200
nonsense
server.uptime: 12
";

    /// No metric is missing.
    pub(in crate::metrics) fn everything() -> Families {
        let mut enrolment = Enrolment::default();
        enrolment.failed(false);
        enrolment.succeeded(1_800_000_000, 1_800_003_600);
        Families::of(Some(STATISTICS), Some(&enrolment))
    }

    fn render(families: Families) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(families));
        contrast_telemetry::metrics::render(&registry)
    }

    #[test]
    fn reference_describes_every_reason() {
        let reasons = OF_ENTRIES.iter().filter_map(|counted| counted.3);
        let reasons = reasons.filter_map(|(label, value)| (label == "reason").then_some(value));
        let reference = include_str!("../../../docs/reference/service-mesh.md");
        for word in reasons {
            assert!(reference.contains(&format!("| `{word}` |")), "{word}");
        }
    }

    #[test]
    fn statistics_become_families_with_the_entry_as_label() {
        let text = render(everything());
        let values: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "contrast_mesh_envoy_up{} 1",
                "contrast_mesh_connections_total{direction=\"ingress\",entry=\"web\"} 5",
                "contrast_mesh_connections_total{direction=\"ingress\",entry=\"web.v2\"} 6",
                "contrast_mesh_open_connections{direction=\"egress\",entry=\"api\"} 3",
                "contrast_mesh_received_bytes_total{direction=\"egress\",entry=\"api\"} 100",
                "contrast_mesh_sent_bytes_total{direction=\"egress\",entry=\"api\"} 200",
                "contrast_mesh_requests_total{direction=\"ingress\",entry=\"web\",status=\"2xx\"} 11",
                "contrast_mesh_refused_total{direction=\"egress\",entry=\"api\",reason=\"other_identity\"} 2",
                "contrast_mesh_refused_total{direction=\"ingress\",entry=\"mutual-tls\",reason=\"no_certificate\"} 1",
                "contrast_mesh_refused_total{direction=\"ingress\",entry=\"web\",reason=\"not_allowed\"} 4",
                "contrast_mesh_certificate_updates_total{what=\"ca\"} 2",
                "contrast_mesh_certificate_expiry_timestamp_seconds{} 1800000000",
                "contrast_initializer_enrolments_total{} 1",
                "contrast_initializer_enrolment_failures_total{} 1",
                "contrast_initializer_failing{} 0",
                "contrast_initializer_not_admitted{} 0",
                "contrast_initializer_certificate_issued_timestamp_seconds{} 1800000000",
                "contrast_initializer_certificate_expiry_timestamp_seconds{} 1800003600",
            ]
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
