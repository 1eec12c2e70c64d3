use contrast_attestation::PolicyHash;
use contrast_coordinator::replica::{
    message::Place,
    peers::{Caller, EvidenceSummary, Trusted},
};

/// What a process could prove on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the process, for people.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// The policy it was started with.
    pub policy: PolicyHash,
    /// Whether it is a confidential VM that meets the reference values. A stranger is not.
    pub genuine: bool,
}

impl Identity {
    /// Checks what attested TLS would check of its evidence.
    ///
    /// # Errors
    /// Says which check failed.
    pub fn check(&self, trusted: &Trusted) -> Result<(), String> {
        if !self.genuine {
            return Err(format!(
                "{}: the evidence meets no reference value",
                self.name
            ));
        }
        match trusted.coordinators.contains(&self.policy) {
            true => Ok(()),
            false => Err(format!(
                "{}: expected a policy with role coordinator, found {}",
                self.name, self.policy
            )),
        }
    }

    pub(super) fn summary(&self) -> EvidenceSummary {
        EvidenceSummary {
            tee: "SEV-SNP".to_owned(),
            reference: "simulated".to_owned(),
            policy: self.policy,
            insecure: false,
        }
    }
}

impl Caller for Identity {
    fn prove_coordinator(&self, trusted: &Trusted) -> Result<(), String> {
        self.check(trusted)
    }
}
