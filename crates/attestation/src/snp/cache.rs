use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use aws_lc_rs::digest::{self, SHA256};

use crate::{CheckList, SnpEvidence};

use super::{
    chain::{self, Chain},
    roots::PinnedArk,
};

/// How many chains are kept. One chip at one TCB has one chain, about 1 KiB each.
const CAPACITY: usize = 1024;

type Fingerprint = [u8; 32];

/// Certificate chains that were verified, so that the next report of the same chip costs one P-384 verification instead of
/// three RSA-4096 ones on top of it.
///
/// An entry stands for one exact ARK, ASK, VEK and CRL (SHA-256 over all bytes) and is used only while all of them are
/// valid. Only chains that start with a pinned ARK get in, so a peer cannot fill the cache with chains of its own making;
/// beyond 1024 entries the least recently used one goes.
#[derive(Debug, Default)]
pub struct ChainCache {
    entries: Mutex<HashMap<Fingerprint, Entry>>,
    /// Counts lookups: the age of entries in an order that no clock disturbs.
    tick: AtomicU64,
    verifications: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    chain: Arc<Chain>,
    last_used: u64,
}

impl ChainCache {
    /// Number of chains in the cache, at most 1024.
    pub fn len(&self) -> usize {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether the cache holds no chain.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a chain was verified from scratch because the cache had no valid entry for it.
    pub fn verifications(&self) -> u64 {
        self.verifications.load(Ordering::Relaxed)
    }

    /// The chain of `evidence`, whose ARK the caller has compared with `ark_pin`. Failures are recorded; a chain with a
    /// failure is returned for the sake of further checks but never kept.
    pub(super) fn verify(
        &self,
        evidence: &SnpEvidence,
        ark_pin: &PinnedArk,
        now: SystemTime,
        checks: &mut CheckList,
    ) -> Option<Arc<Chain>> {
        let fingerprint = fingerprint(evidence);
        if let Some(chain) = self.lookup(&fingerprint, now) {
            checks.record(
                "certificate chain",
                "valid",
                "verified before, still valid",
                true,
            );
            return Some(chain);
        }
        self.verifications.fetch_add(1, Ordering::Relaxed);
        let mut own = CheckList::default();
        let chain = chain::verify(evidence, ark_pin, now, &mut own).map(Arc::new);
        let passed = own.passed();
        checks.append(own);
        if let (Some(chain), true) = (&chain, passed) {
            self.insert(fingerprint, Arc::clone(chain));
        }
        chain
    }

    fn lookup(&self, fingerprint: &Fingerprint, now: SystemTime) -> Option<Arc<Chain>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(fingerprint)?;
        if !entry.chain.window.contains(now) {
            return None;
        }
        entry.last_used = self.tick.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&entry.chain))
    }

    fn insert(&self, fingerprint: Fingerprint, chain: Arc<Chain>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY && !entries.contains_key(&fingerprint) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.last_used);
            if let Some(oldest) = oldest.map(|(fingerprint, _)| *fingerprint) {
                entries.remove(&oldest);
            }
        }
        let last_used = self.tick.fetch_add(1, Ordering::Relaxed);
        entries.insert(fingerprint, Entry { chain, last_used });
    }
}

/// SHA-256 over the four parts, each after its length, so that no two ways of cutting the same bytes collide.
fn fingerprint(evidence: &SnpEvidence) -> Fingerprint {
    let SnpEvidence {
        report: _,
        vek,
        ask,
        ark,
        crl,
    } = evidence;
    let mut context = digest::Context::new(&SHA256);
    for part in [ark, ask, vek, crl] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_depends_on_every_part_and_on_where_it_ends_but_not_on_the_report() {
        let part = |byte: u8| vec![byte; 10];
        let base = SnpEvidence {
            report: part(0),
            vek: part(1),
            ask: part(2),
            ark: part(3),
            crl: part(4),
        };
        let other_report = SnpEvidence {
            report: part(9),
            ..base.clone()
        };
        assert_eq!(fingerprint(&base), fingerprint(&other_report));
        let others = [
            SnpEvidence {
                vek: part(9),
                ..base.clone()
            },
            SnpEvidence {
                ask: part(9),
                ..base.clone()
            },
            SnpEvidence {
                ark: part(9),
                ..base.clone()
            },
            SnpEvidence {
                crl: Vec::new(),
                ..base.clone()
            },
            SnpEvidence {
                ask: [part(2), vec![1]].concat(),
                vek: vec![1; 9],
                ..base.clone()
            },
        ];
        for other in others {
            assert_ne!(fingerprint(&base), fingerprint(&other));
        }
    }

    #[cfg(feature = "software-tee")]
    #[test]
    fn beyond_its_capacity_the_least_recently_used_chain_goes() {
        use crate::{
            Evidence, Issuer, PolicyHash, ReportData, Root, Tee,
            appraisal::SnpProduct,
            software::fixture::{now, software_tee},
        };

        let guest = software_tee().snp_guest(PolicyHash([1; 32]));
        let Ok(Evidence::Snp(evidence)) = guest.issue(&ReportData([1; 64])) else {
            panic!("the software TEE issues SNP evidence");
        };
        let root = Root::Insecure {
            sha256: software_tee().root_sha256(Tee::Snp),
        };
        let pin = PinnedArk::of(root, SnpProduct::Milan);
        let chain = chain::verify(&evidence, &pin, now(), &mut CheckList::default());
        let chain = Arc::new(chain.expect("a readable chain"));

        let name = |number: usize| {
            let mut name = Fingerprint::default();
            name[..8].copy_from_slice(&(number as u64).to_be_bytes());
            name
        };
        let cache = ChainCache::default();
        for number in 0..CAPACITY {
            cache.insert(name(number), Arc::clone(&chain));
        }
        assert!(cache.lookup(&name(0), now()).is_some());
        cache.insert(name(CAPACITY), chain);
        assert_eq!(cache.len(), CAPACITY);
        assert!(cache.lookup(&name(0), now()).is_some(), "used last");
        assert!(cache.lookup(&name(1), now()).is_none(), "oldest");
    }
}
