use std::{
    fmt,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use crate::{Enrolled, MeshCaCertificate, Sealed};

/// Longest time between trusting a new mesh CA and presenting a certificate of it. All pods hear of a manifest at the same
/// time, so a few seconds are enough for their Envoys to read the new bundle.
const GRACE_MAX: Duration = Duration::from_secs(10);
/// So many mesh CAs whose time is over are remembered.
const ENDED_MAX: usize = 16;

/// What the pod presents and trusts at one moment, ready to be installed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Mesh CA certificates that are trusted, PEM, the newest first; never empty.
    pub trusted: Vec<String>,
    /// Root CA certificate, PEM.
    pub root_ca: String,
    /// Leaf and intermediate, PEM, leaf first.
    pub certificate_chain: String,
    /// Workload secret, 64 bytes, when the manifest gives this workload one.
    pub workload_secret: Option<Zeroizing<Vec<u8>>>,
    /// Sealed secrets that the manifest gives this pod.
    pub sealed: Sealed,
}

impl Credentials {
    /// The trusted mesh CA certificates as one PEM file, the newest first.
    pub fn bundle(&self) -> String {
        let mut bundle = String::new();
        for certificate in &self.trusted {
            bundle.push_str(certificate.trim_end());
            bundle.push('\n');
        }
        bundle
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("trusted", &self.trusted.len())
            .field("workload_secret", &self.workload_secret.is_some())
            .finish_non_exhaustive()
    }
}

/// A certificate, and the mesh CA that issued it.
struct Issued {
    chain: String,
    mesh_ca: MeshCaCertificate,
}

/// A mesh CA of an earlier manifest.
struct Previous {
    mesh_ca: MeshCaCertificate,
    until: Instant,
}

/// A certificate that waits until its mesh CA is known everywhere.
struct Pending {
    issued: Issued,
    at: Instant,
}

/// Leads a pod from one mesh CA to the next without a moment at which two members refuse each other: the new CA is trusted
/// at once, its certificate is presented a little later, and the old CA is dropped when the overlap ends.
///
/// Does nothing by itself. Call [`Rollover::receive`] with each answer of the Coordinator and [`Rollover::advance`] when
/// [`Rollover::next_change`] has come, and install [`Rollover::credentials`] after each.
///
/// At every moment the presented certificate's issuer is trusted, and no CA is trusted beyond the time that the Coordinator
/// gave when it was first heard of as a previous one.
pub struct Rollover {
    mesh_ca: MeshCaCertificate,
    root_ca: String,
    workload_secret: Option<Zeroizing<Vec<u8>>>,
    sealed: Sealed,
    presented: Issued,
    pending: Option<Pending>,
    /// Newest first.
    previous: Vec<Previous>,
    /// Whose time is over: no Coordinator with another clock brings them back.
    ended: Vec<MeshCaCertificate>,
}

impl fmt::Debug for Rollover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rollover")
            .field("pending", &self.pending.is_some())
            .field("previous", &self.previous.len())
            .finish_non_exhaustive()
    }
}

impl Rollover {
    /// Begins with the first certificate, which is presented at once.
    pub fn begin(now: Instant, first: &Enrolled) -> Self {
        let mut rollover = Self {
            mesh_ca: first.mesh_ca.clone(),
            root_ca: first.root_ca.clone(),
            workload_secret: first.workload_secret.clone(),
            sealed: first.sealed.clone(),
            presented: issued(first),
            pending: None,
            previous: Vec::new(),
            ended: Vec::new(),
        };
        rollover.trust_previous(now, first);
        rollover
    }

    /// Takes the Coordinator's answer to a renewal or after a change of the manifest.
    pub fn receive(&mut self, now: Instant, answer: &Enrolled) {
        self.drop_ended(now);
        // A transition that this pod has not seen may have revoked what came before it.
        let changed = self.mesh_ca != answer.mesh_ca;
        if changed && answer.previous_mesh_ca.as_ref() != Some(&self.mesh_ca) {
            self.end_all();
        }
        self.trust_previous(now, answer);
        self.mesh_ca.clone_from(&answer.mesh_ca);
        self.root_ca.clone_from(&answer.root_ca);
        self.workload_secret.clone_from(&answer.workload_secret);
        self.sealed.clone_from(&answer.sealed);
        let new = issued(answer);
        if self.presented.mesh_ca == new.mesh_ca {
            self.pending = None;
            self.presented = new;
            return;
        }
        // A renewal during the grace period does not make it longer.
        let begun = self.pending.take();
        let at = match begun.filter(|pending| pending.issued.mesh_ca == new.mesh_ca) {
            Some(pending) => pending.at,
            None => later(now, GRACE_MAX.min(overlap(answer) / 2)),
        };
        self.pending = Some(Pending { issued: new, at });
        self.advance(now);
    }

    /// Does what is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        self.drop_ended(now);
        let presented = &self.presented.mesh_ca;
        let refused = self.trusted().all(|mesh_ca| mesh_ca != presented);
        let due = |pending: &mut Pending| refused || pending.at <= now;
        if let Some(pending) = self.pending.take_if(due) {
            self.presented = pending.issued;
        }
    }

    /// When [`Rollover::advance`] has something to do.
    pub fn next_change(&self) -> Option<Instant> {
        let switch = self.pending.iter().map(|pending| pending.at);
        let ends = self.previous.iter().map(|previous| previous.until);
        switch.chain(ends).min()
    }

    /// What is to be installed now.
    pub fn credentials(&self) -> Credentials {
        Credentials {
            trusted: self.trusted().map(|mesh_ca| mesh_ca.pem.clone()).collect(),
            root_ca: self.root_ca.clone(),
            certificate_chain: self.presented.chain.clone(),
            workload_secret: self.workload_secret.clone(),
            sealed: self.sealed.clone(),
        }
    }

    fn trusted(&self) -> impl Iterator<Item = &MeshCaCertificate> {
        let previous = self.previous.iter().map(|previous| &previous.mesh_ca);
        std::iter::once(&self.mesh_ca).chain(previous)
    }

    fn drop_ended(&mut self, now: Instant) {
        let over = self
            .previous
            .extract_if(.., |previous| previous.until <= now);
        self.ended.extend(over.map(|previous| previous.mesh_ca));
        // One answer names one: more than a few are of no use.
        let old = self.ended.len().saturating_sub(ENDED_MAX);
        self.ended.drain(..old);
    }

    fn end_all(&mut self) {
        let all = self.previous.drain(..).map(|previous| previous.mesh_ca);
        self.ended.extend(all);
    }

    /// Takes over how long the CA before the answer's is trusted. A CA before that stays no longer: an owner who shortens the
    /// overlap wants all old certificates refused.
    fn trust_previous(&mut self, now: Instant, answer: &Enrolled) {
        let overlap = overlap(answer);
        let named = answer.previous_mesh_ca.as_ref();
        let Some(mesh_ca) = named.filter(|named| !overlap.is_zero() && !self.ended.contains(named))
        else {
            self.end_all();
            return;
        };
        let until = later(now, overlap);
        let known = self
            .previous
            .iter()
            .position(|known| known.mesh_ca == *mesh_ca);
        let newest = match known.map(|index| self.previous.remove(index)) {
            Some(known) => known,
            None => Previous {
                mesh_ca: mesh_ca.clone(),
                until,
            },
        };
        self.previous.insert(0, newest);
        for previous in &mut self.previous {
            previous.until = previous.until.min(until);
        }
        self.previous
            .retain(|previous| previous.mesh_ca != answer.mesh_ca);
    }
}

fn issued(answer: &Enrolled) -> Issued {
    Issued {
        chain: answer.certificate_chain.clone(),
        mesh_ca: answer.mesh_ca.clone(),
    }
}

fn overlap(answer: &Enrolled) -> Duration {
    match answer.previous_mesh_ca {
        Some(_) => answer.previous_mesh_ca_trusted,
        None => Duration::ZERO,
    }
}

/// Saturates: an overlap that no clock reaches never ends before the pod does.
fn later(now: Instant, delay: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(delay.min(CENTURY)).unwrap_or(now)
}

#[cfg(test)]
#[path = "rollover_tests.rs"]
pub(crate) mod tests;
