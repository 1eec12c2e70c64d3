//! Those who must get nothing: pods that the manifest does not name, clients that prove nothing, people who are not the owner, and the
//! owner's own request of yesterday.

use std::sync::Arc;

use contrast_attestation::{Issuer, PolicyHash, software::SoftwareTee};
use contrast_clock::SystemEntropy;
use contrast_e2e::{
    linearizability::Hash,
    load::{Connection, Deployment, Refusal},
};
use contrast_pki::WorkloadOwnerKey;
use contrast_proto::user::OwnerSignature;
use tokio::runtime::Runtime;

use crate::{
    ledger::{Ledger, Refusal as Noted, now_ms},
    random::Random,
};

pub(crate) struct Strangers {
    deployment: Deployment,
    tee: SoftwareTee,
    key: WorkloadOwnerKey,
    random: Random,
    turn: u64,
    runtime: Runtime,
}

/// Kinds of attempts.
const KINDS: u64 = 4;

impl Strangers {
    pub(crate) fn new(deployment: Deployment, tee: SoftwareTee, seed: u64) -> Self {
        Self {
            deployment,
            tee,
            key: WorkloadOwnerKey::generate(&SystemEntropy).expect("a key"),
            random: Random::new(seed, "strangers"),
            turn: 0,
            runtime: Runtime::new().expect("runtime"),
        }
    }

    /// Each of them tries, when all replicas are well.
    pub(crate) fn attempt_all(&mut self, ledger: &Ledger) {
        let before = ledger.note(|facts| facts.unattested);
        for _ in 0..KINDS {
            self.attempt(ledger);
        }
        let refused = ledger.note(|facts| facts.unattested) - before;
        ledger.require(refused == 1, || {
            format!("{refused} clients without evidence were asked for it, expected 1")
        });
    }

    /// One of them tries, each in turn.
    pub(crate) fn attempt(&mut self, ledger: &Ledger) {
        let replica = self.random.index(self.deployment.replicas.len());
        self.turn += 1;
        match self.turn % KINDS {
            0 => self.unattested(replica, ledger),
            1 => self.update(replica, false, ledger),
            2 => self.update(replica, true, ledger),
            _ => self.impostor(replica, ledger),
        }
    }

    fn impostor(&mut self, replica: usize, ledger: &Ledger) {
        let policy = PolicyHash(self.random.bytes());
        let guest: Arc<dyn Issuer> = Arc::new(self.tee.snp_guest(policy));
        let apis = self.deployment.replicas[replica];
        let mut connection = Connection::new(apis, &self.deployment.coordinators, &guest);
        let reason = match self.runtime.block_on(connection.certificate()) {
            Ok(_) => {
                ledger.wrong(format!("replica {replica} admits policy {policy}"));
                return;
            }
            Err(Refusal::NoConnection(why)) if why.contains("HOSTDATA") => {
                Some("EVIDENCE_REFUSED".to_owned())
            }
            // Nobody listens, or the replica has no manifest to judge by and refuses everybody.
            Err(Refusal::NoConnection(why)) if !why.contains("closed") => {
                ledger.happened(format!("impostor at replica {replica}: {why}"));
                return;
            }
            Err(_) => None,
        };
        ledger.happened(format!("impostor at replica {replica}: {reason:?}"));
        note(ledger, policy.to_string(), "attestation", reason);
    }

    fn unattested(&mut self, replica: usize, ledger: &Ledger) {
        let apis = self.deployment.replicas[replica];
        let mut connection = Connection::without_evidence(apis, &self.deployment.coordinators);
        match self.runtime.block_on(connection.certificate()) {
            Ok(_) => ledger.wrong(format!(
                "replica {replica} admits somebody without evidence"
            )),
            // The replica's handshake demands evidence; any other error may be a replica that is down.
            Err(Refusal::NoConnection(why)) if why.contains("requires evidence") => {
                ledger.note(|facts| facts.unattested += 1);
                ledger.happened(format!("client without evidence at replica {replica}"));
            }
            Err(refusal) => ledger.happened(format!(
                "client without evidence at replica {replica}: {refusal}"
            )),
        }
    }

    /// An update that the owner did not approve, or, when `late`, approved for a base that is not the latest.
    fn update(&mut self, replica: usize, late: bool, ledger: &Ledger) {
        let latest = ledger.note(|facts| {
            let mut sets = facts.sets.iter().filter_map(|set| set.transition.clone());
            sets.next_back()
        });
        let latest = latest.and_then(|hash| Hash::try_from(hash).ok());
        let base = match (late, latest) {
            (false, Some(latest)) => latest,
            _ => Hash(self.random.bytes()),
        };
        let variant = format!("stranger-{:x}", self.random.next());
        let update = self.deployment.update(&variant, base);
        let (mut request, manifest) = update.expect("signs");
        if !late {
            let signature = self.key.approve_update(&manifest.0, &base.0);
            request.signatures = vec![OwnerSignature {
                public_key: self.key.public_key_spki().to_vec().into(),
                signature: signature.expect("signs").into(),
            }];
        }
        let apis = self.deployment.replicas[replica];
        let mut connection = Connection::without_evidence(apis, &self.deployment.coordinators);
        let reason = match self.runtime.block_on(connection.set(request)) {
            Ok(_) => {
                ledger.wrong(format!("replica {replica} takes a stranger's manifest"));
                return;
            }
            Err(Refusal::NoConnection(_) | Refusal::Evidence(_)) => return,
            Err(Refusal::NoAnswer(_)) => None,
            Err(Refusal::Status { reason, .. }) => Some(reason),
        };
        ledger.happened(format!(
            "stranger's update at replica {replica}: {reason:?}"
        ));
        note(ledger, String::from(manifest), "manifest", reason);
    }
}

fn note(ledger: &Ledger, marker: String, kind: &'static str, reason: Option<String>) {
    let refusal = Noted {
        kind,
        reason,
        at_ms: now_ms(),
    };
    ledger.note(|facts| facts.refusals.insert(marker, refusal));
}
