//! Prometheus text exposition of a registry.

use prometheus_client::{encoding::text::encode, registry::Registry};

/// Content type of [`render`]'s text (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds, in seconds, of latency histograms: 0.1 ms to 5 s.
pub const LATENCY_BUCKETS_S: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Renders every metric of `registry`.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = encode(&mut text, registry);
    text
}
