//! The service mesh sidecar: configures and supervises Envoy.
