//! Whether the node is as wanted.

use crate::{
    config::Config,
    containerd::{Entry, judge},
    error::Error,
    node::Node,
    plan::Change,
};

impl Node {
    /// Everything in which the node is not as wanted.
    ///
    /// # Errors
    /// When it cannot be told, or the node is not fit.
    pub fn findings(&self, config: &Config, quick: bool) -> Result<Vec<String>, Error> {
        let comparison = self.compare(config, quick)?;
        let changes = &comparison.plan.changes;
        let mut findings: Vec<String> = changes.iter().map(finding).collect();
        let target = &comparison.observed.target;
        let edited = !changes
            .iter()
            .any(|change| matches!(change, Change::EditContainerd { .. }));
        if edited {
            let effective = match target.template {
                // Without a unit nobody restarted k3s, so nothing is rendered yet.
                true if target.units.is_empty() => None,
                true => {
                    let text = self.tree.read(&target.main)?;
                    text.map(|text| String::from_utf8_lossy(&text.bytes).into_owned())
                }
                false => match self.dump(target, &target.main) {
                    Ok(dump) => dump,
                    Err(error @ Error::Rejected(_)) => {
                        findings.push(chain(&error));
                        None
                    }
                    Err(error) => return Err(error),
                },
            };
            if let Some(effective) = effective
                && let Err(error) = judge(&effective, None, &Entry::of(config))
            {
                findings.push(error.to_string());
            }
            // Whoever restarts containerd without the installer may not have done it yet.
            if findings.is_empty() && !target.units.is_empty() {
                let found = self.not_serving(target)?;
                findings.extend(
                    found.map(|found| format!("containerd does not serve the kubelet: {found}")),
                );
            }
        }
        Ok(findings)
    }
}

fn finding(change: &Change) -> String {
    match change {
        Change::MakeDirectory { path } => format!("directory {path} is not there"),
        Change::Complete => "an earlier run was not completed".into(),
        Change::Restart { units } => format!("{} is to be restarted", units.join(" or ")),
        Change::EditContainerd { file, .. } => format!("{file} does not have the runtime"),
        Change::CleanContainerd { file } => {
            format!("{file} has the runtime, which belongs into another file now")
        }
        Change::RemoveFile { path } => format!("file {path} is wanted no more"),
        put @ Change::PutFile { .. } => put.to_string(),
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
