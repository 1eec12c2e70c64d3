//! Surroundings for tests, never for programs: services of CPU vendors on loopback ([`Vendor`], [`Silence`]), and evidence that was
//! collected from real machines ([`evidence`]), firmware and kernels to measure ([`Ovmf`], [`efi_kernel`]), and the Envoy that was fetched
//! ([`envoy()`]), and the checks of a server against its OpenAPI document ([`OpenApi`]), of metrics against their reference ([`MetricsReference`])
//! and by promtool ([`lint_metrics`]), and of pages that are made from programs ([`mod@reference`]).

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test whose surroundings are missing fails at once"
)]

mod envoy;
mod evidence;
mod metrics;
mod openapi;
mod ovmf;
pub mod reference;
mod vendor;

pub use envoy::envoy;
pub use evidence::{evidence, evidence_path};
pub use metrics::{MetricsReference, lint_metrics};
pub use openapi::{Answer, OpenApi};
pub use ovmf::{Ovmf, SevSection, TdxSection, VARIABLES_BYTES, efi_kernel};
pub use vendor::{Page, Silence, Vendor};
