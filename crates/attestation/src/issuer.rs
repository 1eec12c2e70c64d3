use std::fmt::Debug;

use crate::{Evidence, ReportData};

/// The TEE could not produce evidence.
#[derive(Debug, thiserror::Error)]
#[error("the {tee} could not issue evidence: {reason}")]
pub struct IssueError {
    /// The TEE, for people.
    pub tee: &'static str,
    /// What failed.
    pub reason: String,
}

/// The attester's side: asks the TEE that this code runs in for evidence.
pub trait Issuer: Debug + Send + Sync {
    /// Issues evidence that carries `report_data`. May block for as long as the TEE takes; async callers use
    /// `spawn_blocking`.
    ///
    /// # Errors
    /// When the TEE refuses or is gone.
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError>;
}
