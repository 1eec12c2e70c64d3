//! Checks the history that a Coordinator returned: an attested Coordinator is trusted to tell the truth, but the check
//! costs little, and a disk that the host put back shows here.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use contrast_attestation::PolicyHash;
use contrast_manifest::{Manifest, ManifestHash};
use contrast_proto::user::GetManifestsResponse;

use crate::{
    certificate::public_key,
    digest::sha256,
    meaning::Kind,
    rows::Rows,
    signature::verify_p384_sha384,
    transition::{TransitionHash, transition_hash},
};

/// A transition that the caller saw before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTransition {
    /// Its hash.
    pub hash: TransitionHash,
    /// Where the caller has it from, for people: for example a file.
    pub source: String,
}

/// What the caller saw before and what must therefore still be true.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Transitions that must be part of the history.
    pub transitions: Vec<KnownTransition>,
    /// Root CA certificate that an earlier verification gave, PEM.
    pub root_ca: Option<String>,
}

/// The outcome of checking a history.
#[derive(Debug, Clone)]
pub struct History {
    /// Hash of each transition, oldest first; recomputed here.
    pub chain: Vec<TransitionHash>,
    /// The valid ones of the manifests, by hash.
    pub manifests: BTreeMap<ManifestHash, Manifest>,
    /// Initdata documents by hash; recomputed here.
    pub initdata: BTreeMap<PolicyHash, Vec<u8>>,
    /// Checks of the history against itself.
    pub consistent: Rows,
    /// Checks of the history against what the caller saw before; empty the first time.
    pub remembered: Rows,
}

impl History {
    /// Whether any manifest, also an earlier one, accepts a software TEE. Whoever passed for a Coordinator under one has the seed, which is the
    /// same for the deployment's whole life.
    pub fn was_insecure(&self) -> bool {
        self.manifests
            .values()
            .any(Manifest::accepts_insecure_evidence)
    }

    /// Checks everything that `response` says about itself and against `memory`.
    ///
    /// Whether the key that signed the transitions is the deployment's, only `memory` can tell: each of its transitions covers that key. Without
    /// it, whoever can answer over an attested connection is the Coordinator that holds it.
    pub fn check(response: &GetManifestsResponse, memory: &Memory) -> Self {
        Self::check_with(response, memory, check_initdata)
    }

    /// Like [`Self::check`], for an answer that was asked for without initdata documents and must hold none. The manifests name their hashes.
    pub fn check_without_initdata(response: &GetManifestsResponse, memory: &Memory) -> Self {
        Self::check_with(response, memory, |response, _, rows| {
            let found = response.policies.len().to_string();
            let name = "initdata documents, left out as asked";
            rows.equal(Kind::Initdata, name, "0", found);
            BTreeMap::new()
        })
    }

    fn check_with(
        response: &GetManifestsResponse,
        memory: &Memory,
        check_initdata: impl FnOnce(
            &GetManifestsResponse,
            &BTreeMap<ManifestHash, Manifest>,
            &mut Rows,
        ) -> BTreeMap<PolicyHash, Vec<u8>>,
    ) -> Self {
        let mut rows = Rows::default();
        let chain = check_chain(response, &mut rows);
        check_signatures(response, &chain, &mut rows);
        let manifests = check_manifests(response, &mut rows);
        let initdata = check_initdata(response, &manifests, &mut rows);
        check_certificates(response, &mut rows);
        let mut remembered = Rows::default();
        if let Some(pem) = &memory.root_ca {
            let found = shown_key(&response.root_ca);
            remembered.equal(
                Kind::Memory,
                "root CA public key, as last time",
                shown_key(pem),
                found,
            );
        }
        for known in &memory.transitions {
            let passed = chain.contains(&known.hash);
            let found = if passed {
                known.hash.to_string()
            } else {
                "not in the history".into()
            };
            let name = format!("transition of `{}`", known.source);
            remembered.record(
                Kind::Memory,
                name,
                format!("{} in the history", known.hash),
                found,
                passed,
            );
        }
        Self {
            chain,
            manifests,
            initdata,
            consistent: rows,
            remembered,
        }
    }

    /// The latest transition; none when the history is empty.
    pub fn latest(&self) -> Option<TransitionHash> {
        self.chain.last().copied()
    }
}

/// The manifest that the latest transition names; none when it is not in the answer.
pub fn newest_manifest(response: &GetManifestsResponse) -> Option<&[u8]> {
    let wanted = &response.transitions.last()?.manifest_hash;
    response
        .manifests
        .iter()
        .map(AsRef::as_ref)
        .find(|bytes| sha256(bytes)[..] == wanted[..])
}

/// Recomputes every link. A link that cannot be computed ends the chain, so that nothing after it counts as known.
fn check_chain(response: &GetManifestsResponse, rows: &mut Rows) -> Vec<TransitionHash> {
    let count = response.transitions.len();
    let noun = if count == 1 {
        "transition"
    } else {
        "transitions"
    };
    rows.record(
        Kind::History,
        "history",
        "at least 1 transition",
        format!("{count} {noun}"),
        count > 0,
    );
    let mut chain = Vec::with_capacity(count);
    let mut previous = TransitionHash::NONE;
    for (index, transition) in response.transitions.iter().enumerate() {
        let name = format!("transition {index} follows");
        rows.equal(
            Kind::Link,
            name,
            previous.to_string(),
            hex::encode(&transition.previous),
        );
        match transition_hash(transition) {
            Ok(hash) => {
                chain.push(hash);
                previous = hash;
            }
            Err(error) => {
                let name = format!("transition {index}");
                let expected = "three hashes of 32 bytes";
                rows.record(Kind::Link, name, expected, error.to_string(), false);
                break;
            }
        }
    }
    chain
}

/// Every transition must be signed, and all of them by the same key, which follows from the deployment's seed.
fn check_signatures(response: &GetManifestsResponse, chain: &[TransitionHash], rows: &mut Rows) {
    let Some(first) = response.transitions.first() else {
        return;
    };
    let key = &first.signing_public_key;
    let signed = response.transitions.iter().zip(chain).enumerate();
    let wrong = signed.filter_map(|(index, (transition, hash))| {
        if transition.signing_public_key != key {
            let other = fingerprint(&transition.signing_public_key);
            return Some((index, format!("signed by another key, {other}")));
        }
        verify_p384_sha384(key, &hash.0, &transition.signature)
            .err()
            .map(|error| (index, error.to_string()))
    });
    let wrong: Vec<_> = wrong.collect();
    let found = match wrong.len() {
        0 => format!("signed by {}", fingerprint(key)),
        some => format!("{some} of {} are not", response.transitions.len()),
    };
    rows.record(
        Kind::TransitionSignature,
        "transition signatures",
        "by the key of the first transition",
        found,
        wrong.is_empty(),
    );
    for (index, why) in wrong {
        let expected = format!("signed by {}", fingerprint(key));
        rows.record(
            Kind::TransitionSignature,
            format!("transition {index} signature"),
            expected,
            why,
            false,
        );
    }
}

/// The answer must hold exactly the manifests that the transitions name, in order of first use, each of them valid.
fn check_manifests(
    response: &GetManifestsResponse,
    rows: &mut Rows,
) -> BTreeMap<ManifestHash, Manifest> {
    let mut seen = HashSet::new();
    let transitions = response.transitions.iter();
    let named = transitions.filter(|transition| seen.insert(&transition.manifest_hash));
    let named: Vec<String> = named
        .map(|transition| hex::encode(&transition.manifest_hash))
        .collect();
    let found: Vec<String> = response
        .manifests
        .iter()
        .map(|bytes| hex::encode(sha256(bytes)))
        .collect();
    for index in 0..named.len().max(found.len()) {
        let text = |list: &[String], none: &str| {
            list.get(index).cloned().unwrap_or_else(|| none.to_owned())
        };
        let name = format!("manifest {index} SHA-256");
        rows.equal(
            Kind::ManifestHash,
            name,
            text(&named, "no further manifest"),
            text(&found, "missing"),
        );
    }
    let mut manifests = BTreeMap::new();
    for (index, bytes) in response.manifests.iter().enumerate() {
        match Manifest::parse(bytes) {
            Ok(manifest) => {
                manifests.insert(manifest.hash(), manifest);
            }
            Err(error) => {
                let problems = error.problems().iter().map(ToString::to_string);
                let problems = problems.collect::<Vec<_>>().join("; ");
                let name = format!("manifest {index}");
                rows.record(Kind::ManifestForm, name, "valid", problems, false);
            }
        }
    }
    manifests
}

/// The answer must hold exactly the initdata documents that its manifests name.
fn check_initdata(
    response: &GetManifestsResponse,
    manifests: &BTreeMap<ManifestHash, Manifest>,
    rows: &mut Rows,
) -> BTreeMap<PolicyHash, Vec<u8>> {
    let documents: BTreeMap<PolicyHash, Vec<u8>> = response
        .policies
        .iter()
        .map(|bytes| (PolicyHash(sha256(bytes)), bytes.to_vec()))
        .collect();
    let named: BTreeSet<PolicyHash> = manifests
        .values()
        .flat_map(|manifest| manifest.policies().keys().copied())
        .collect();
    let held: BTreeSet<PolicyHash> = documents.keys().copied().collect();
    let found = match held.difference(&named).count() {
        0 => format!("{} of them", named.intersection(&held).count()),
        others => format!(
            "{} of them and {others} more",
            named.intersection(&held).count()
        ),
    };
    let expected = format!("the {} that the manifests name, no more", named.len());
    rows.record(
        Kind::Initdata,
        "initdata documents",
        expected,
        found,
        named == held,
    );
    for hash in named.difference(&held) {
        rows.record(
            Kind::Initdata,
            format!("initdata {hash}"),
            "present",
            "missing",
            false,
        );
    }
    for hash in held.difference(&named) {
        rows.record(
            Kind::Initdata,
            format!("initdata {hash}"),
            "absent, no manifest names it",
            "present",
            false,
        );
    }
    documents
}

fn check_certificates(response: &GetManifestsResponse, rows: &mut Rows) {
    let expected = response.transitions.last().map_or_else(
        || "no transition".to_owned(),
        |last| fingerprint(&last.mesh_ca_public_key),
    );
    rows.equal(
        Kind::MeshCa,
        "mesh CA public key",
        expected,
        shown_key(&response.mesh_ca),
    );
    let passed = public_key(&response.root_ca).is_ok();
    let found = shown_key(&response.root_ca);
    rows.record(
        Kind::RootCa,
        "root CA public key",
        "an X.509 certificate's",
        found,
        passed,
    );
}

fn shown_key(pem: &str) -> String {
    match public_key(pem) {
        Ok(key) => fingerprint(&key),
        Err(error) => format!("none: {error}"),
    }
}

/// How keys are shown: SHA-256 of the SubjectPublicKeyInfo.
fn fingerprint(spki: &[u8]) -> String {
    format!("SHA-256 {}", hex::encode(sha256(spki)))
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
