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
