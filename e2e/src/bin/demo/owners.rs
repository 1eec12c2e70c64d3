//! What several owners do together.

use anyhow::{Context, Result, ensure};
use contrast_e2e::harness::{Cluster, OwnerKeys};
use serde_json::json;

use crate::{
    Owners,
    steps::{Steps, only},
};

/// Makes the owners' keys; returns as many owners as must agree.
pub(crate) fn create(
    cluster: &Cluster,
    owners: Owners,
    steps: &mut Steps,
) -> Result<Vec<OwnerKeys>> {
    let Owners { needed, count } = owners;
    let mut keys = match count {
        1 => cluster.owner().share_with_others(1, 1)?,
        _ => steps.run_with(
            &format!("owners: {count} people, of whom {needed} must agree"),
            || {
                let keys = cluster.owner().share_with_others(needed, count)?;
                let facts = keys
                    .iter()
                    .map(|keys| format!("{} and {}", keys.workload, keys.seed_share));
                let facts = facts.collect();
                Ok((keys, facts))
            },
        )?,
    };
    keys.truncate(needed.into());
    Ok(keys)
}

/// An update that is approved by one owner after the other, in files.
pub(crate) fn approve(
    cluster: &Cluster,
    user_api: &str,
    owners: &[OwnerKeys],
    steps: &mut Steps,
) -> Result<()> {
    let owner = cluster.owner();
    owner.edit_manifest(|manifest| manifest["MeshCertLifetime"] = json!("48h"))?;
    let mut files = Vec::new();
    for (number, keys) in owners.iter().enumerate() {
        steps.run(
            &format!("sign: owner {} approves an update", number + 1),
            || {
                let file = format!("approval-{}.json", number + 1);
                owner.contrast(&[
                    "sign",
                    "--workload-owner-key",
                    &keys.workload,
                    "--out",
                    &file,
                ])?;
                files.extend(["--signature".to_owned(), file]);
                let named: Vec<&str> = files.iter().map(String::as_str).collect();
                let shown =
                    owner.try_contrast(&[&["approvals", "-c", user_api], &named[..]].concat())?;
                let enough = number + 1 == owners.len();
                ensure!((shown.code == 0) == enough, "{}", shown.stderr);
                let verdict = shown.stdout.lines().last().context("no verdict")?;
                Ok([
                    only(&shown.stdout, &["$.", "- ", "+ "]),
                    vec![verdict.to_owned()],
                ]
                .concat())
            },
        )?;
    }
    steps.run("set: with the approvals of all of them", || {
        let named: Vec<&str> = files.iter().map(String::as_str).collect();
        let set = owner.contrast(&[&["set", "-c", user_api, "resources"], &named[..]].concat())?;
        owner.contrast(&["verify", "-c", user_api])?;
        Ok(only(
            &set.stdout,
            &["manifest SHA-256", "latest transition"],
        ))
    })
}
