use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{self, SHA256};
use dcap_qvl::QuoteClaims;

use crate::TdxCollateral;

/// How many platforms are kept.
const CAPACITY: usize = 1024;
/// How many bytes of collateral the kept platforms may have, each counted with its own although equal ones are shared.
const COLLATERAL_BYTES: usize = 64 << 20;

/// What a verified platform is known by: everything of its quotes that is not the guest's alone, the root, and the signatures
/// of the collateral.
pub(super) type Key = [u8; 32];

/// Platforms whose certificates, collateral, quoting enclave and TCB were verified, so that the next quote of the same platform
/// costs one P-256 verification, the quote's own, instead of nine and the reading of two JSON documents.
///
/// An entry stands for one exact PCK chain, QE report, attestation key, TDX module, set of TD attributes and collateral under
/// one root. It is used only while every certificate, CRL and document in it is valid. Only what was verified up to a pinned
/// root gets in. What is not in an entry is the verdict: status, dates and measurements are judged for every quote. Beyond
/// 1024 entries, or 64 MiB of collateral, the least recently used ones go.
#[derive(Debug, Default)]
pub struct PlatformCache {
    entries: Mutex<HashMap<Key, Entry>>,
    /// Counts lookups: the age of entries in an order that no clock disturbs.
    tick: AtomicU64,
    verifications: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    collateral: Arc<TdxCollateral>,
    claims: Arc<QuoteClaims>,
    last_used: u64,
}

impl PlatformCache {
    /// Number of platforms in the cache, at most 1024.
    pub fn len(&self) -> usize {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether the cache holds no platform.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a quote was verified from scratch because the cache had no valid entry for its platform.
    pub fn verifications(&self) -> u64 {
        self.verifications.load(Ordering::Relaxed)
    }

    pub(super) fn count_verification(&self) {
        self.verifications.fetch_add(1, Ordering::Relaxed);
    }

    /// What verification proved about the platform, while that still holds at `now`.
    pub(super) fn lookup(
        &self,
        key: &Key,
        collateral: &TdxCollateral,
        now: SystemTime,
    ) -> Option<Arc<QuoteClaims>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(key)?;
        if !is_valid(&entry.claims, now) || *entry.collateral != *collateral {
            return None;
        }
        entry.last_used = self.tick.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&entry.claims))
    }

    pub(super) fn insert(&self, key: Key, collateral: &TdxCollateral, claims: Arc<QuoteClaims>) {
        let needed = bytes_of(collateral);
        if needed > COLLATERAL_BYTES {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&key);
        let mut kept: usize = entries.values().map(|e| bytes_of(&e.collateral)).sum();
        while entries.len() >= CAPACITY || kept.saturating_add(needed) > COLLATERAL_BYTES {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.last_used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            let gone = entries.remove(&oldest);
            kept = kept.saturating_sub(gone.map_or(0, |entry| bytes_of(&entry.collateral)));
        }
        let known = entries.values().find(|e| *e.collateral == *collateral);
        let collateral = known.map_or_else(
            || Arc::new(collateral.clone()),
            |entry| Arc::clone(&entry.collateral),
        );
        let last_used = self.tick.fetch_add(1, Ordering::Relaxed);
        entries.insert(
            key,
            Entry {
                collateral,
                claims,
                last_used,
            },
        );
    }
}

/// The key for a quote's `platform` (see `TdQuote::platform`) with `collateral`. The signatures stand for what they sign, which is
/// compared byte by byte when an entry is found.
pub(super) fn key(platform: &[u8; 32], collateral: &TdxCollateral) -> Key {
    let mut context = digest::Context::new(&SHA256);
    context.update(platform);
    for signature in [
        &collateral.tcb_info_signature,
        &collateral.qe_identity_signature,
    ] {
        context.update(&(signature.len() as u64).to_be_bytes());
        context.update(signature);
    }
    let mut key = Key::default();
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Whether every certificate, CRL and document behind `claims` is valid at `now`. Both dates cover the PCK chain, the issuer
/// chains, the root certificate, both CRLs, TCB info and QE identity. The last second is left out: a CRL ends with it.
fn is_valid(claims: &QuoteClaims, now: SystemTime) -> bool {
    let Ok(since_epoch) = now.duration_since(UNIX_EPOCH) else {
        return false;
    };
    (claims.latest_issue_date..claims.earliest_expiration_date).contains(&since_epoch.as_secs())
}

fn bytes_of(collateral: &TdxCollateral) -> usize {
    let TdxCollateral {
        pck_crl_issuer_chain,
        root_ca_crl,
        pck_crl,
        tcb_info_issuer_chain,
        tcb_info,
        tcb_info_signature,
        qe_identity_issuer_chain,
        qe_identity,
        qe_identity_signature,
    } = collateral;
    [
        pck_crl_issuer_chain.len(),
        root_ca_crl.len(),
        pck_crl.len(),
        tcb_info_issuer_chain.len(),
        tcb_info.len(),
        tcb_info_signature.len(),
        qe_identity_issuer_chain.len(),
        qe_identity.len(),
        qe_identity_signature.len(),
    ]
    .into_iter()
    .fold(0, usize::saturating_add)
}

#[cfg(all(test, feature = "software-tee"))]
mod tests {
    use super::*;
    use crate::{
        CheckList, Evidence, Issuer, PolicyHash, ReportData, Root, TdxEvidence, Tee,
        software::fixture::{now, software_tee},
        tdx::{quote, verify},
    };

    /// A platform's claims and collateral, as verification leaves them.
    #[expect(
        clippy::expect_used,
        clippy::panic,
        reason = "helpers of tests fail like tests"
    )]
    fn known() -> (Arc<QuoteClaims>, TdxCollateral) {
        let guest = software_tee().tdx_guest(PolicyHash([1; 32]));
        let Ok(Evidence::Tdx(evidence)) = guest.issue(&ReportData([1; 64])) else {
            panic!("the software TEE issues TDX evidence");
        };
        let root = Root::Insecure {
            sha256: software_tee().root_sha256(Tee::Tdx),
        };
        let mut checks = CheckList::default();
        let quote = quote::parse(&evidence.quote, &mut checks).expect("a quote");
        let platforms = PlatformCache::default();
        let claims = verify::verify(&evidence, &quote, root, now(), &platforms, &mut checks);
        let TdxEvidence { collateral, .. } = evidence;
        (claims.expect("verified"), collateral.expect("collateral"))
    }

    fn name(number: usize) -> Key {
        let mut name = Key::default();
        name[..8].copy_from_slice(&(number as u64).to_be_bytes());
        name
    }

    #[test]
    fn beyond_its_capacity_the_least_recently_used_platform_goes() {
        let (claims, collateral) = known();
        let cache = PlatformCache::default();
        let insert = |number| cache.insert(name(number), &collateral, Arc::clone(&claims));
        let knows = |number| cache.lookup(&name(number), &collateral, now()).is_some();
        (0..CAPACITY).for_each(insert);
        assert!(knows(0));
        insert(CAPACITY);
        assert_eq!(cache.len(), CAPACITY);
        assert!(knows(0), "used last");
        assert!(!knows(1), "oldest");
    }

    #[test]
    fn bulky_collateral_cannot_fill_the_memory() {
        let (claims, collateral) = known();
        let bulky = |number: usize| TdxCollateral {
            pck_crl_issuer_chain: format!("{number}").repeat(COLLATERAL_BYTES / 4),
            ..collateral.clone()
        };
        let cache = PlatformCache::default();
        for number in 0..6 {
            cache.insert(name(number), &bulky(number), Arc::clone(&claims));
        }
        assert_eq!(cache.len(), 3);
        assert!(cache.lookup(&name(5), &bulky(5), now()).is_some());
        let excessive = TdxCollateral {
            pck_crl_issuer_chain: "x".repeat(COLLATERAL_BYTES),
            ..collateral
        };
        cache.insert(name(9), &excessive, claims);
        assert!(cache.lookup(&name(9), &excessive, now()).is_none());
        assert_eq!(cache.len(), 3, "nothing was given up for it");
    }

    #[test]
    fn an_entry_holds_for_exactly_its_collateral() {
        let (claims, collateral) = known();
        let cache = PlatformCache::default();
        cache.insert(name(0), &collateral, claims);
        let changes: [fn(&mut TdxCollateral); 9] = [
            |c| c.pck_crl_issuer_chain.push(' '),
            |c| c.root_ca_crl.push(0),
            |c| c.pck_crl.push(0),
            |c| c.tcb_info_issuer_chain.push(' '),
            |c| c.tcb_info.push(' '),
            |c| c.tcb_info_signature.push(0),
            |c| c.qe_identity_issuer_chain.push(' '),
            |c| c.qe_identity.push(' '),
            |c| c.qe_identity_signature.push(0),
        ];
        for change in changes {
            let mut other = collateral.clone();
            change(&mut other);
            assert!(cache.lookup(&name(0), &other, now()).is_none());
        }
        assert!(cache.lookup(&name(0), &collateral, now()).is_some());
    }

    #[test]
    fn an_entry_holds_from_the_latest_start_to_before_the_earliest_end() {
        let (claims, _) = known();
        let at = |seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let (from, to) = (claims.latest_issue_date, claims.earliest_expiration_date);
        assert!(!is_valid(&claims, at(from - 1)) && is_valid(&claims, at(from)));
        assert!(is_valid(&claims, at(to - 1)) && !is_valid(&claims, at(to)));
        let before_1970 = UNIX_EPOCH - std::time::Duration::from_secs(1);
        assert!(!is_valid(&claims, before_1970));
    }
}
