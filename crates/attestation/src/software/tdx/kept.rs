use std::sync::{Mutex, PoisonError};

use crate::software::SoftwareTeeError;

/// What was made last, with what it was made from. A platform has one PCK certificate and Intel one answer at a time, so that
/// verifiers meet the same bytes again; a guest whose facts a test changed gets new ones.
#[derive(Debug)]
pub(super) struct Kept<Facts, Made>(Mutex<Option<(Facts, Made)>>);

impl<Facts, Made> Default for Kept<Facts, Made> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<Facts: PartialEq, Made: Clone> Kept<Facts, Made> {
    /// What was made from `facts`, made now unless it was made last time.
    pub(super) fn get(
        &self,
        facts: Facts,
        make: impl FnOnce(&Facts) -> Result<Made, SoftwareTeeError>,
    ) -> Result<Made, SoftwareTeeError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, made)) = &*kept
            && *from == facts
        {
            return Ok(made.clone());
        }
        let made = make(&facts)?;
        *kept = Some((facts, made.clone()));
        Ok(made)
    }
}
