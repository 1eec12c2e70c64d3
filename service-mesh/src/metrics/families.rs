//! Envoy's statistics under names that stay when Envoy's change: one label per entry, nothing per peer or connection.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::{Registry, Unit},
};

/// Labels of one value: name and value each, in the order of the text.
type Labels = Vec<(&'static str, String)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Connections,
    OpenConnections,
    ReceivedBytes,
    SentBytes,
    Requests,
    Refused,
    CertificateUpdates,
    CertificateExpiry,
}

impl Family {
    /// Name (without the suffixes that the text form adds), and what it counts.
    const fn describe(self) -> (&'static str, &'static str, Option<Unit>) {
        match self {
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
        }
    }

    const fn is_gauge(self) -> bool {
        matches!(self, Self::OpenConnections | Self::CertificateExpiry)
    }
}

/// What one scrape found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Families(BTreeMap<Family, BTreeMap<Labels, u64>>);

impl Families {
    /// Reads Envoy's `/stats`: lines of `name: value`. What is not understood is left out.
    pub(super) fn of(statistics: &str) -> Self {
        let mut families = Self::default();
        for line in statistics.lines() {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            // Histograms and texts are no numbers.
            let Ok(value) = value.trim().parse() else {
                continue;
            };
            if let Some((family, labels)) = meaning(name) {
                let known = families.0.entry(family).or_default();
                let sum = known.entry(labels).or_default();
                *sum = match family {
                    // Listeners and clusters all present the same certificate.
                    Family::CertificateExpiry => value,
                    _ => sum.saturating_add(value),
                };
            }
        }
        families
    }

    /// Text for Prometheus.
    pub(super) fn render(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        contrast_telemetry::metrics::render(&registry)
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

/// Family and labels of Envoy's statistic `name`.
fn meaning(name: &str) -> Option<(Family, Labels)> {
    if let Some(rest) = name.strip_prefix("sds.") {
        let what = match rest.strip_suffix(".update_success")? {
            "mesh_certificate" => "certificate",
            "mesh_ca" => "ca",
            _ => return None,
        };
        return Some((Family::CertificateUpdates, vec![("what", what.to_owned())]));
    }
    let (scope, rest) = match name.split_once('.')? {
        (scope @ ("tcp" | "http" | "cluster" | "listener"), rest) => (scope, rest),
        _ => ("", name),
    };
    let (entry, statistic) = rest.split_once('.')?;
    let (direction, entry) = entry.split_once('/')?;
    if statistic == "ssl.certificate.mesh_certificate.expiration_unix_time_seconds" {
        return Some((Family::CertificateExpiry, Vec::new()));
    }
    let mut labels = vec![
        ("direction", direction.to_owned()),
        ("entry", entry.to_owned()),
    ];
    let family = match (scope, statistic) {
        ("tcp" | "http", "downstream_cx_total") => Family::Connections,
        ("tcp" | "http", "downstream_cx_rx_bytes_total") => Family::ReceivedBytes,
        ("tcp" | "http", "downstream_cx_tx_bytes_total") => Family::SentBytes,
        ("cluster", "upstream_cx_active") => Family::OpenConnections,
        ("http", statistic) => {
            let class = statistic.strip_prefix("downstream_rq_")?;
            let is_class = matches!(class, "1xx" | "2xx" | "3xx" | "4xx" | "5xx");
            labels.push(("status", is_class.then(|| class.to_owned())?));
            Family::Requests
        }
        (scope, statistic) => {
            labels.push(("reason", refusal(scope, direction, statistic)?.to_owned()));
            Family::Refused
        }
    };
    Some((family, labels))
}

/// Why `statistic` counts refused connections. Ingress judges handshakes at the listener, egress in the cluster.
fn refusal(scope: &str, direction: &str, statistic: &str) -> Option<&'static str> {
    if scope.is_empty() {
        let (_, end) = statistic.split_once("rbac.").unwrap_or(("", statistic));
        return (end == "denied").then_some("not_allowed");
    }
    let judges = match direction {
        "ingress" => "listener",
        _ => "cluster",
    };
    match statistic {
        _ if scope != judges => None,
        "ssl.fail_verify_no_cert" => Some("no_certificate"),
        "ssl.fail_verify_error" => Some("bad_certificate"),
        "ssl.fail_verify_san" => Some("other_identity"),
        "ssl.connection_error" => Some("no_handshake"),
        "upstream_cx_connect_fail" => Some("no_connection"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATISTICS: &str = "\
cluster.egress/api.ssl.fail_verify_san: 2
cluster.egress/api.ssl.certificate.mesh_certificate.expiration_unix_time_seconds: 1800000000
cluster.egress/api.upstream_cx_active: 3
cluster.egress/api.upstream_cx_connect_ms: P0(nan,0) P25(nan,0)
cluster.ingress/other.ssl.connection_error: 7
http.ingress/web.downstream_cx_total: 5
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
nonsense
server.uptime: 12
";

    #[test]
    fn statistics_become_families_with_the_entry_as_label() {
        let text = Families::of(STATISTICS).render();
        let values: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            values,
            [
                "contrast_mesh_connections_total{direction=\"ingress\",entry=\"web\"} 5",
                "contrast_mesh_open_connections{direction=\"egress\",entry=\"api\"} 3",
                "contrast_mesh_received_bytes_total{direction=\"egress\",entry=\"api\"} 100",
                "contrast_mesh_requests_total{direction=\"ingress\",entry=\"web\",status=\"2xx\"} 11",
                "contrast_mesh_refused_total{direction=\"egress\",entry=\"api\",reason=\"other_identity\"} 2",
                "contrast_mesh_refused_total{direction=\"ingress\",entry=\"mutual-tls\",reason=\"no_certificate\"} 1",
                "contrast_mesh_refused_total{direction=\"ingress\",entry=\"web\",reason=\"not_allowed\"} 4",
                "contrast_mesh_certificate_updates_total{what=\"ca\"} 2",
                "contrast_mesh_certificate_expiry_timestamp_seconds{} 1800000000",
            ]
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
