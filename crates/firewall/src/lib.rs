//! Redirection of a pod's traffic to Envoy, and the default deny that stands before it.

mod redirection;

pub use redirection::{
    APPLICATION_V4, APPLICATION_V6, Capture, EGRESS_FIRST_PORT, EGRESS_MARK, ENVOY_UID,
    INGRESS_MTLS_PORT, INGRESS_TLS_PORT, Ingress, ROUTE_TABLE, RULE_PREFERENCE, Redirection,
    TPROXY_MARK,
};
