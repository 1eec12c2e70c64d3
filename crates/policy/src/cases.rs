//! Recorded requests with the verdict that is expected: folders of regression tests for a policy.

use serde::Deserialize;
use serde_json::Value;

use crate::{Engine, EvaluateError};

/// One recorded request. A file of them is a JSON list; they are judged in order by one policy, so state carries over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RecordedCase {
    /// What the case is about.
    pub description: String,
    /// Kind of the request, for example `CreateContainerRequest`.
    pub kind: String,
    /// The request, with the field names of the agent's protobuf.
    pub request: Value,
    /// Whether it must be allowed.
    pub allowed: bool,
}

/// What the policy said about a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseVerdict {
    /// Whether the request was allowed.
    pub allowed: bool,
    /// When not, the first reason; empty where the kind of request is never allowed.
    pub reason: String,
}

/// Judges recorded requests in order. A request that cannot be evaluated is refused, as by the agent.
///
/// # Errors
/// When the policy cannot be loaded.
pub fn judge_cases(rego: &str, cases: &[RecordedCase]) -> Result<Vec<CaseVerdict>, EvaluateError> {
    let mut engine = Engine::load(rego)?;
    let verdict = |case: &RecordedCase| match engine.allow(&case.kind, &case.request) {
        Ok(decision) => CaseVerdict {
            allowed: decision.allowed,
            reason: decision.reasons.into_iter().next().unwrap_or_default(),
        },
        Err(error) => CaseVerdict {
            allowed: false,
            reason: error.to_string(),
        },
    };
    Ok(cases.iter().map(verdict).collect())
}
