use super::{
    Dashboard,
    Kind::{self, Number, Series, Zero},
    Panel, Row,
};

/// Every dashboard.
pub(super) const ALL: &[Dashboard] = &[COORDINATORS, ISSUING, MESH];

const fn panel(
    title: &'static str,
    description: &'static str,
    kind: Kind,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel {
        title,
        description,
        kind,
        unit,
        queries,
    }
}

const COORDINATORS: Dashboard = Dashboard {
    name: "contrast-coordinators",
    title: "Contrast: Coordinators",
    description: "Whether the Coordinators serve and agree, and how their programs do.",
    rows: &[
        Row {
            title: "Now",
            panels: &[
                panel(
                    "Serving",
                    "Replicas that issue certificates and answer for the deployment.",
                    Kind::Some,
                    "none",
                    &[("sum(contrast_cluster_serving{@})", "")],
                ),
                panel(
                    "Leader",
                    "1 if any replica knows a leader.",
                    Kind::Some,
                    "none",
                    &[("max(contrast_cluster_has_leader{@})", "")],
                ),
                panel(
                    "Voters",
                    "Three survive the loss of one, five of two.",
                    Number,
                    "none",
                    &[("max(contrast_cluster_voters{@})", "")],
                ),
                panel(
                    "Learners",
                    "Members that do not vote: new ones, and spares.",
                    Number,
                    "none",
                    &[("max(contrast_cluster_learners{@})", "")],
                ),
                panel(
                    "Manifests",
                    "Number of transitions in the history.",
                    Number,
                    "none",
                    &[("max(contrast_coordinator_manifest_generation{@})", "")],
                ),
                panel(
                    "Alerts",
                    "Alerts that fire.",
                    Zero,
                    "none",
                    &[(
                        r#"count(ALERTS{@,alertname=~"Contrast.+",alertstate="firing"}) or vector(0)"#,
                        "",
                    )],
                ),
            ],
        },
        Row {
            title: "Agreement",
            panels: &[
                panel(
                    "Roles",
                    "What each replica is. Exactly one leads.",
                    Series,
                    "none",
                    &[("contrast_cluster_role{@} == 1", "{{instance}} is {{role}}")],
                ),
                panel(
                    "Serving replicas",
                    "0 for a replica that does not answer for the deployment.",
                    Series,
                    "none",
                    &[("contrast_cluster_serving{@}", "{{instance}}")],
                ),
                panel(
                    "Age of the confirmation by a quorum",
                    "Above 10 s a replica stops issuing. -1 is a replica that was never confirmed.",
                    Series,
                    "s",
                    &[(
                        "contrast_cluster_confirmation_age_seconds{@}",
                        "{{instance}}",
                    )],
                ),
                panel(
                    "Term",
                    "Each step is an election.",
                    Series,
                    "none",
                    &[("contrast_cluster_term{@}", "{{instance}}")],
                ),
                panel(
                    "Silence of members",
                    "On the leader: how long ago it heard of a member.",
                    Series,
                    "s",
                    &[("contrast_cluster_member_heard_age_seconds{@}", "{{place}}")],
                ),
                panel(
                    "Lag of members",
                    "On the leader: log entries that a member is not known to have.",
                    Series,
                    "none",
                    &[("contrast_cluster_member_lag_entries{@}", "{{place}}")],
                ),
                panel(
                    "Log",
                    "The last entries that a replica knows to be committed, and applied.",
                    Series,
                    "none",
                    &[
                        (
                            "contrast_cluster_committed_index{@}",
                            "{{instance}} committed",
                        ),
                        ("contrast_cluster_applied_index{@}", "{{instance}} applied"),
                    ],
                ),
                panel(
                    "Manifests per replica",
                    "Serving replicas have the same number, within seconds.",
                    Series,
                    "none",
                    &[(
                        "contrast_coordinator_manifest_generation{@}",
                        "{{instance}}",
                    )],
                ),
                panel(
                    "Audit log",
                    "Decisions in a second, records that are missing, and writes that failed.",
                    Series,
                    "cps",
                    &[
                        (
                            "sum by (kind, outcome) (rate(contrast_audit_decisions_total{@}[$__rate_interval]))",
                            "{{kind}} {{outcome}}",
                        ),
                        (
                            "rate(contrast_audit_lost_records_total{@}[$__rate_interval])",
                            "{{instance}} lost",
                        ),
                        (
                            "rate(contrast_audit_write_failures_total{@}[$__rate_interval])",
                            "{{instance}} failed writes",
                        ),
                    ],
                ),
            ],
        },
        Row {
            title: "Programs",
            panels: &[
                panel(
                    "Versions",
                    "How many programs of which version are scraped.",
                    Series,
                    "none",
                    &[(
                        "count by (program, version) (contrast_build_info{@})",
                        "{{program}} {{version}}",
                    )],
                ),
                panel(
                    "Age of processes",
                    "A Coordinator that restarts loses its identity.",
                    Series,
                    "s",
                    &[("time() - process_start_time_seconds{@}", "{{instance}}")],
                ),
                panel(
                    "Clocks against Prometheus",
                    "Certificates and collateral are judged by these clocks, which the host can set.",
                    Series,
                    "s",
                    &[(
                        "contrast_clock_timestamp_seconds{@} - timestamp(contrast_clock_timestamp_seconds{@})",
                        "{{instance}}",
                    )],
                ),
                panel(
                    "Free space of the history",
                    "A leader whose disk is full refuses new manifests.",
                    Series,
                    "percentunit",
                    &[(
                        "contrast_store_free_bytes{@} / contrast_store_size_bytes{@}",
                        "{{instance}}",
                    )],
                ),
                panel(
                    "Rest of the mesh CA's life",
                    "Made anew with each manifest and each start.",
                    Series,
                    "s",
                    &[(
                        "(contrast_coordinator_mesh_ca_expiry_timestamp_seconds{@} > 0) - time()",
                        "{{instance}}",
                    )],
                ),
            ],
        },
    ],
};

const ISSUING: Dashboard = Dashboard {
    name: "contrast-issuing",
    title: "Contrast: certificates and refusals",
    description: "What the Coordinators grant and refuse, and how long it takes.",
    rows: &[
        Row {
            title: "Now",
            panels: &[
                panel(
                    "Issued in an hour",
                    "Certificates for pods.",
                    Number,
                    "none",
                    &[(
                        "sum(increase(contrast_meshapi_certificates_issued_total{@}[1h]))",
                        "",
                    )],
                ),
                panel(
                    "Refused evidence in an hour",
                    "Peers that are none of the manifest's.",
                    Zero,
                    "none",
                    &[(
                        "sum(increase(contrast_meshapi_attestation_failures_total{@}[1h]))",
                        "",
                    )],
                ),
                panel(
                    "Insecure manifest",
                    "1 if the manifest accepts a software TEE.",
                    Zero,
                    "none",
                    &[("max(contrast_coordinator_insecure_reference_values{@})", "")],
                ),
                panel(
                    "Insecure certificates in an hour",
                    "Issued for evidence of a software TEE.",
                    Zero,
                    "none",
                    &[(
                        "sum(increase(contrast_meshapi_insecure_evidence_total{@}[1h]))",
                        "",
                    )],
                ),
                panel(
                    "Stale collateral",
                    "Documents of CPU vendors that ended: evidence that needs them is refused.",
                    Zero,
                    "none",
                    &[("max(contrast_collateral_stale_documents{@})", "")],
                ),
                panel(
                    "Worn transit keys",
                    "Half of what AES-GCM permits is used.",
                    Zero,
                    "none",
                    &[("max(contrast_transitapi_worn_keys_total{@})", "")],
                ),
            ],
        },
        Row {
            title: "Certificates",
            panels: &[
                panel(
                    "Certificates",
                    "Issued in a second, by replica.",
                    Series,
                    "cps",
                    &[(
                        "rate(contrast_meshapi_certificates_issued_total{@}[$__rate_interval])",
                        "{{instance}}",
                    )],
                ),
                panel(
                    "Time for a certificate",
                    "From the request to the answer.",
                    Series,
                    "s",
                    &[
                        (
                            r#"histogram_quantile(0.5, sum by (le) (rate(contrast_grpc_request_duration_seconds_bucket{@,method="NewMeshCert"}[$__rate_interval])))"#,
                            "half are faster than",
                        ),
                        (
                            r#"histogram_quantile(0.99, sum by (le) (rate(contrast_grpc_request_duration_seconds_bucket{@,method="NewMeshCert"}[$__rate_interval])))"#,
                            "99 % are faster than",
                        ),
                        (
                            r#"sum(rate(contrast_grpc_request_duration_seconds_sum{@,method="NewMeshCert"}[$__rate_interval])) / sum(rate(contrast_grpc_request_duration_seconds_count{@,method="NewMeshCert"}[$__rate_interval]))"#,
                            "mean",
                        ),
                    ],
                ),
                panel(
                    "Refused evidence",
                    "Peers of the mesh API that were turned away, in a second.",
                    Series,
                    "cps",
                    &[
                        (
                            "rate(contrast_meshapi_attestation_failures_total{@}[$__rate_interval])",
                            "{{instance}}",
                        ),
                        (
                            "rate(contrast_meshapi_insecure_evidence_total{@}[$__rate_interval])",
                            "{{instance}} accepted a software TEE",
                        ),
                    ],
                ),
            ],
        },
        Row {
            title: "Requests",
            panels: &[
                panel(
                    "Requests",
                    "Of pods and owners, in a second.",
                    Series,
                    "reqps",
                    &[(
                        "sum by (method) (rate(contrast_grpc_request_duration_seconds_count{@}[$__rate_interval]))",
                        "{{method}}",
                    )],
                ),
                panel(
                    "Requests that were not granted",
                    "By method and gRPC status. Unavailable is a cluster without a quorum, PermissionDenied somebody whom the manifest does not admit.",
                    Series,
                    "reqps",
                    &[(
                        r#"sum by (method, code) (rate(contrast_grpc_request_duration_seconds_count{@,code!="OK"}[$__rate_interval]))"#,
                        "{{method}} {{code}}",
                    )],
                ),
                panel(
                    "Manifests",
                    "Requests to set one, by outcome.",
                    Series,
                    "none",
                    &[(
                        "sum by (outcome) (increase(contrast_userapi_manifest_updates_total{@}[$__rate_interval]))",
                        "{{outcome}}",
                    )],
                ),
                panel(
                    "Attest API",
                    "Answers by HTTP status.",
                    Series,
                    "reqps",
                    &[(
                        "sum by (status) (rate(contrast_attestapi_answers_total{@}[$__rate_interval]))",
                        "{{status}}",
                    )],
                ),
                panel(
                    "Transit engine",
                    "Answers by operation and HTTP status.",
                    Series,
                    "reqps",
                    &[(
                        "sum by (operation, status) (rate(contrast_transitapi_answers_total{@}[$__rate_interval]))",
                        "{{operation}} {{status}}",
                    )],
                ),
            ],
        },
        Row {
            title: "Collateral",
            panels: &[
                panel(
                    "Documents of CPU vendors",
                    "Those that were needed and are known, and those of them that ended.",
                    Series,
                    "none",
                    &[
                        ("contrast_collateral_documents{@}", "{{instance}} known"),
                        (
                            "contrast_collateral_stale_documents{@}",
                            "{{instance}} stale",
                        ),
                    ],
                ),
                panel(
                    "Fetching",
                    "In an hour.",
                    Series,
                    "none",
                    &[
                        (
                            "increase(contrast_collateral_fetched_total{@}[1h])",
                            "{{instance}} fetched",
                        ),
                        (
                            "increase(contrast_collateral_fetch_failures_total{@}[1h])",
                            "{{instance}} failed",
                        ),
                    ],
                ),
            ],
        },
    ],
};

const MESH: Dashboard = Dashboard {
    name: "contrast-mesh",
    title: "Contrast: service mesh",
    description: "Pods with the sidecar and its annotation for metrics: their certificates and their connections.",
    rows: &[
        Row {
            title: "Now",
            panels: &[
                panel(
                    "Pods",
                    "Whose Envoy answers.",
                    Number,
                    "none",
                    &[("sum(contrast_mesh_envoy_up{@})", "")],
                ),
                panel(
                    "Pods without Envoy",
                    "Whose Envoy does not answer.",
                    Zero,
                    "none",
                    &[("count(contrast_mesh_envoy_up{@} == 0) or vector(0)", "")],
                ),
                panel(
                    "Not admitted",
                    "Pods that are not in the active manifest.",
                    Zero,
                    "none",
                    &[("sum(contrast_initializer_not_admitted{@})", "")],
                ),
                panel(
                    "Not renewing",
                    "Pods whose latest attempt to get a certificate failed.",
                    Zero,
                    "none",
                    &[("sum(contrast_initializer_failing{@})", "")],
                ),
                panel(
                    "Next end of a certificate",
                    "Of all that are presented.",
                    Number,
                    "s",
                    &[(
                        "min(contrast_mesh_certificate_expiry_timestamp_seconds{@}) - time()",
                        "",
                    )],
                ),
                panel(
                    "Open connections",
                    "To applications and remotes.",
                    Number,
                    "none",
                    &[("sum(contrast_mesh_open_connections{@})", "")],
                ),
            ],
        },
        Row {
            title: "Certificates",
            panels: &[
                panel(
                    "Rest of the life of certificates",
                    "Pods renew when a third is left.",
                    Series,
                    "percentunit",
                    &[(
                        "(contrast_initializer_certificate_expiry_timestamp_seconds{@} - time()) / (contrast_initializer_certificate_expiry_timestamp_seconds{@} - contrast_initializer_certificate_issued_timestamp_seconds{@})",
                        "{{instance}}",
                    )],
                ),
                panel(
                    "Enrolments",
                    "Certificates that Initializers received, and attempts that failed, in an hour.",
                    Series,
                    "none",
                    &[
                        (
                            "increase(contrast_initializer_enrolments_total{@}[1h])",
                            "{{instance}} received",
                        ),
                        (
                            "increase(contrast_initializer_enrolment_failures_total{@}[1h])",
                            "{{instance}} failed",
                        ),
                    ],
                ),
                panel(
                    "Updates that Envoy took",
                    "In an hour, of the certificate and of CAs.",
                    Series,
                    "none",
                    &[(
                        "increase(contrast_mesh_certificate_updates_total{@}[1h])",
                        "{{instance}} {{what}}",
                    )],
                ),
            ],
        },
        Row {
            title: "Connections",
            panels: &[
                panel(
                    "Refused",
                    "In a second, by entry and reason.",
                    Series,
                    "cps",
                    &[(
                        "sum by (instance, direction, entry, reason) (rate(contrast_mesh_refused_total{@}[$__rate_interval]))",
                        "{{instance}} {{direction}} {{entry}}: {{reason}}",
                    )],
                ),
                panel(
                    "Connections",
                    "That came, in a second, with those that were refused.",
                    Series,
                    "cps",
                    &[(
                        "sum by (instance, direction, entry) (rate(contrast_mesh_connections_total{@}[$__rate_interval]))",
                        "{{instance}} {{direction}} {{entry}}",
                    )],
                ),
                panel(
                    "Open connections",
                    "To the application (ingress) or the remote (egress).",
                    Series,
                    "none",
                    &[(
                        "sum by (instance, direction, entry) (contrast_mesh_open_connections{@})",
                        "{{instance}} {{direction}} {{entry}}",
                    )],
                ),
                panel(
                    "Requests",
                    "Of entries that speak HTTP, by class of the answer.",
                    Series,
                    "reqps",
                    &[(
                        "sum by (instance, direction, entry, status) (rate(contrast_mesh_requests_total{@}[$__rate_interval]))",
                        "{{instance}} {{direction}} {{entry}} {{status}}",
                    )],
                ),
                panel(
                    "Bytes",
                    "From and to whoever connected, in a second.",
                    Series,
                    "Bps",
                    &[
                        (
                            "sum by (instance, direction) (rate(contrast_mesh_received_bytes_total{@}[$__rate_interval]))",
                            "{{instance}} {{direction}} received",
                        ),
                        (
                            "sum by (instance, direction) (rate(contrast_mesh_sent_bytes_total{@}[$__rate_interval]))",
                            "{{instance}} {{direction}} sent",
                        ),
                    ],
                ),
            ],
        },
    ],
};
