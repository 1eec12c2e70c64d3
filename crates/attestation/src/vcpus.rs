//! Measurements that depend on how many vCPUs a VM has.

use std::collections::BTreeMap;

use crate::{CheckList, PolicyHash, Root, appraisal::ByVcpus};

/// How many vCPUs the VMs of a policy have. A policy that is not listed says nothing about that.
pub(crate) type VcpusOfPolicies = BTreeMap<PolicyHash, u32>;

/// A reference value, seen by the code for one TEE.
pub(crate) struct Reference<'a, Demands> {
    /// The root that evidence must chain to.
    pub(crate) root: Root,
    /// What the evidence must show.
    pub(crate) demands: &'a Demands,
    /// Which measurement a policy needs.
    pub(crate) vcpus: &'a VcpusOfPolicies,
}

/// Records that `found` must be the measurement for `vcpus`, or any of them when the policy does not say how many it has.
///
/// A number without a measurement accepts nothing.
pub(crate) fn check(
    field: &str,
    accepted: &ByVcpus,
    vcpus: Option<u32>,
    found: &[u8; 48],
    checks: &mut CheckList,
) {
    let counts = || accepted.keys().copied();
    let (expected, passed) = match vcpus {
        Some(vcpus) => match accepted.get(&vcpus) {
            Some(measurement) => (
                format!(
                    "{} (for the {} of this policy)",
                    hex::encode(measurement),
                    number(vcpus)
                ),
                measurement == found,
            ),
            None => (
                format!(
                    "the measurement for the {} of this policy, which the reference value does not have (it has those for {})",
                    number(vcpus),
                    list(counts()),
                ),
                false,
            ),
        },
        None => (
            format!("one of the measurements for {}", list(counts())),
            accepted.values().any(|measurement| measurement == found),
        ),
    };
    let matching = accepted.iter().filter(|(_, listed)| *listed == found);
    let matching: Vec<u32> = matching.map(|(vcpus, _)| *vcpus).collect();
    let shown = hex::encode(found);
    let found = match matching.is_empty() {
        true => format!("{shown} (for no listed number of vCPUs)"),
        false => format!("{shown} (for {})", list(matching.into_iter())),
    };
    checks.record(field, expected, found, passed);
}

fn number(vcpus: u32) -> String {
    match vcpus {
        1 => "1 vCPU".to_owned(),
        vcpus => format!("{vcpus} vCPUs"),
    }
}

/// `1, 3 or 5 vCPUs`.
fn list(counts: impl Iterator<Item = u32>) -> String {
    let counts: Vec<u32> = counts.collect();
    match counts.as_slice() {
        [] => "no number of vCPUs".to_owned(),
        [one] => number(*one),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(u32::to_string).collect();
            format!("{} or {}", first.join(", "), number(*last))
        }
    }
}
