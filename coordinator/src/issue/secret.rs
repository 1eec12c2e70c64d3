use contrast_pki::{Derivation, DeriveError, WorkloadSecret};

use super::Admission;

/// The pod's workload secret; `None` when the manifest gives it no secret id.
pub(crate) fn workload_secret(
    derivation: &Derivation,
    admission: Admission<'_>,
) -> Result<Option<WorkloadSecret>, DeriveError> {
    match admission.entry.workload_secret_id.as_str() {
        "" => Ok(None),
        id => derivation.workload_secret(id).map(Some),
    }
}
