//! `contrast policy explain`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use contrast_policy::{Engine, EvaluateError};
use serde::{Deserialize, Serialize};

use super::pods;
use crate::{
    commands::policy::ExplainArgs,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
    workspace::{self, Workspace},
};

/// One recorded request; more fields, as in `testcases.json`, are left aside.
#[derive(Debug, Deserialize)]
struct Recorded {
    kind: String,
    request: serde_json::Value,
}

#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error("`{}` holds no requests; expected `{{\"kind\": …, \"request\": {{…}}}}`, a list of them, or one per line", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Policy(#[from] EvaluateError),
}

impl Diagnose for ExplainError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the policy refuses {refused} of {total} requests")]
struct Refused {
    refused: usize,
    total: usize,
}

impl Diagnose for Refused {
    fn exit(&self) -> Exit {
        Exit::Negative
    }
}

#[derive(Debug, Serialize)]
struct Explained {
    pod: String,
    requests: Vec<Verdict>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    kind: String,
    allowed: bool,
    /// Why not, the decisive reason first.
    reasons: Vec<String>,
}

impl Render for Explained {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        for (position, verdict) in self.requests.iter().enumerate() {
            let word = match verdict.allowed {
                true => paint.good("allowed"),
                false => paint.bad("refused"),
            };
            writeln!(
                out,
                "{} {}: {word}",
                position.saturating_add(1),
                verdict.kind
            )?;
            for reason in &verdict.reasons {
                writeln!(out, "    {reason}")?;
            }
        }
        Ok(())
    }
}

pub(crate) fn run(
    args: &ExplainArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let pod = pods::find(&args.pod, &args.paths, workspace)?;
    let bytes = workspace::read("recorded requests", &args.request, "")?;
    let recorded = parse(&bytes).map_err(|source| ExplainError::Format {
        path: args.request.clone(),
        source,
    })?;
    let mut engine = Engine::load(pod.initdata.policy()).map_err(ExplainError::Policy)?;
    let requests = recorded.iter().map(|recorded| {
        let (allowed, reasons) = match engine.allow(&recorded.kind, &recorded.request) {
            Ok(decision) => (decision.allowed, decision.reasons),
            Err(error) => (false, vec![error.to_string()]),
        };
        let reasons = match allowed || !reasons.is_empty() {
            true => reasons,
            false => vec!["requests of this kind are never allowed".to_owned()],
        };
        Verdict {
            kind: recorded.kind.clone(),
            allowed,
            reasons,
        }
    });
    let explained = Explained {
        pod: pod.shown(),
        requests: requests.collect(),
    };
    output.result(args.format.format, &explained)?;
    let total = explained.requests.len();
    let refused = explained
        .requests
        .iter()
        .filter(|verdict| !verdict.allowed)
        .count();
    match refused {
        0 => Ok(()),
        refused => Err(Refused { refused, total }.into()),
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Recorded>, serde_json::Error> {
    if let Ok(list) = serde_json::from_slice::<Vec<Recorded>>(bytes) {
        return Ok(list);
    }
    serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .collect()
}
