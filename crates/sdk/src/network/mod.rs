//! Feature `network`: ask a Coordinator's attest API, and reach workloads under the mesh CA that was verified. Blocking, for servers and
//! command lines.
//!
//! Nothing here judges: [`fetch`] returns bytes for [`crate::verify_answer`], and [`dial`] trusts the CA that it is given.

mod attest;
mod workload;

pub use attest::{AttestUrl, AttestUrlError, FetchError, Policies, fetch};
pub use workload::{DialError, WorkloadStream, dial};
