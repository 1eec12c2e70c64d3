//! `contrast policy diff`.

use std::io::{self, Write};

use contrast_policy::{Change, Difference, differences};
use serde::Serialize;

use super::pods::{self, Pod, PodError};
use crate::{
    commands::policy::DiffArgs,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
};

#[derive(Debug, thiserror::Error)]
#[error("the policies cannot be compared")]
struct Incomparable(#[source] serde_json::Error);

impl Diagnose for Incomparable {
    fn exit(&self) -> Exit {
        Exit::Internal
    }
}

#[derive(Debug, Serialize)]
struct Differences {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<Changed>,
    /// Pods whose policy is the same, data and rules.
    unchanged: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Changed {
    pod: String,
    /// Whether the rules differ: another version of `contrast` generated them.
    rules: bool,
    differences: Vec<Difference>,
}

impl Render for Differences {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        for pod in &self.removed {
            writeln!(out, "{pod}: {}", paint.bad("no longer there"))?;
        }
        for pod in &self.added {
            writeln!(out, "{pod}: {}", paint.alarming("new"))?;
        }
        for changed in &self.changed {
            writeln!(out, "{}", paint.strong(&changed.pod))?;
            if changed.rules {
                writeln!(out, "  the rules are those of another version of contrast")?;
            }
            for Difference {
                place,
                what,
                change,
            } in &changed.differences
            {
                let change = match change {
                    Change::Allowed { value } => {
                        format!("{} {value}", paint.alarming("now accepted:"))
                    }
                    Change::Forbidden { value } => format!("no longer accepted: {value}"),
                    Change::Replaced { old, new } => {
                        format!("was {old}, is {}", paint.alarming(new))
                    }
                };
                writeln!(out, "  {place}: {what}: {change}")?;
            }
        }
        if self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() {
            writeln!(out, "no differences in {} policies", self.unchanged.len())?;
        }
        Ok(())
    }
}

pub(crate) fn run(args: &DiffArgs, output: &Output) -> Result<(), Failure> {
    let read = |path| pods::read(path).map_err(PodError::Deployment);
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let key = |pod: &Pod| (pod.kind.clone(), pod.namespace.clone(), pod.name.clone());
    let missing_in = |pods: &[Pod], others: &[Pod]| -> Vec<String> {
        let missing = pods
            .iter()
            .filter(|pod| !others.iter().any(|other| key(other) == key(pod)));
        missing.map(Pod::shown).collect()
    };
    let mut result = Differences {
        added: missing_in(&new, &old),
        removed: missing_in(&old, &new),
        changed: Vec::new(),
        unchanged: Vec::new(),
    };
    for new in &new {
        let Some(old) = old.iter().find(|old| key(old) == key(new)) else {
            continue;
        };
        if old.initdata.policy() == new.initdata.policy() {
            result.unchanged.push(new.shown());
            continue;
        }
        let (old_data, new_data) = (old.policy()?, new.policy()?);
        let rules = |pod: &Pod, data: &contrast_policy::PodPolicy| {
            data.to_rego()
                .is_ok_and(|rego| rego == pod.initdata.policy())
        };
        result.changed.push(Changed {
            pod: new.shown(),
            rules: rules(old, &old_data) != rules(new, &new_data),
            differences: differences(&old_data, &new_data).map_err(Incomparable)?,
        });
    }
    output.result(args.format.format, &result)?;
    Ok(())
}
