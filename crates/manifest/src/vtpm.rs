//! What a reference value says about virtual TPMs.

use std::collections::BTreeMap;

use contrast_attestation::{VtpmDemands, vtpm::POLICY_PCR};

use crate::{JsonPath, VtpmDocument, problem::Problems, validate::hex_array};

/// The PCR that measures what the firmware starts: boot loader, or unified kernel image.
const BOOT_PCR: u8 = 4;
/// From PCR 16 on, PCRs can be reset while the guest runs, by the guest itself or by a dynamic launch (TCG PC Client Platform TPM
/// Profile, PCR attributes). Such values prove nothing about how it was started.
const STATIC_PCRS: u8 = 16;

/// What `document` demands: nothing when it is absent; `None` when it is wrong.
pub(crate) fn check(
    document: Option<&VtpmDocument>,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<Option<VtpmDemands>> {
    let Some(document) = document else {
        return Some(None);
    };
    let path = path.key("PCRs");
    let mut pcrs = BTreeMap::new();
    let mut complete = true;
    for (key, value) in &document.pcrs {
        let at = path.key(key);
        let index = index(key, &at, problems);
        let value = match value.as_str() {
            _ if index.is_none() => None,
            "" => {
                problems.fill_in(&at, "missing; fill in 64 hex digits");
                None
            }
            value => hex_array(value, "a SHA-256 PCR", &at, problems),
        };
        match index.zip(value) {
            Some((index, value)) => {
                pcrs.insert(index, value);
            }
            None => complete = false,
        }
    }
    if !document.pcrs.contains_key(&BOOT_PCR.to_string()) {
        problems.fill_in(
            &path.key(&BOOT_PCR.to_string()),
            "missing; PCR 4 measures the boot loader or unified kernel image. The launch measurement covers the paravisor only, so \
             that without PCR 4 any image could claim any policy",
        );
        complete = false;
    }
    complete.then_some(Some(VtpmDemands { pcrs }))
}

fn index(key: &str, path: &JsonPath, problems: &mut Problems) -> Option<u8> {
    let index = key.parse().ok();
    // One spelling for each, so that no PCR can stand there twice.
    let index = index.filter(|index: &u8| *index < STATIC_PCRS && index.to_string() == key);
    match index {
        None => {
            problems.malformed(
                path,
                format!(
                    "expected the index of a PCR, `0` to `15`, found `{key}`; PCRs from 16 on can be reset while the guest runs"
                ),
            );
            None
        }
        Some(POLICY_PCR) => {
            problems.malformed(
                path,
                "remove it; PCR 8 must show the hash of a policy in `Policies`, which is always demanded",
            );
            None
        }
        index => index,
    }
}

impl From<&VtpmDemands> for VtpmDocument {
    fn from(demands: &VtpmDemands) -> Self {
        let pcrs = demands.pcrs.iter();
        Self {
            pcrs: pcrs
                .map(|(index, value)| (index.to_string(), hex::encode(value)))
                .collect(),
        }
    }
}
