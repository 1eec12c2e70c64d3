use std::fmt;

use regorus::Value;

/// Package of the rules.
const PACKAGE: &str = "data.agent_policy";

/// A policy could not be loaded or evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// Not Rego.
    #[error("the policy is not valid: {reason}")]
    Policy {
        /// What the engine says.
        reason: String,
    },
    /// Evaluation failed.
    #[error("the policy could not be evaluated for {request}: {reason}")]
    Evaluation {
        /// Kind of the request.
        request: String,
        /// What the engine says.
        reason: String,
    },
}

/// Verdict on one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// When not: why, one reason each; empty when the kind of request is never allowed.
    pub reasons: Vec<String>,
}

/// A policy with its state, as kata-agent holds it.
pub struct Engine(regorus::Engine);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// Loads a policy's Rego text, with empty state.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn load(rego: &str) -> Result<Self, EvaluateError> {
        let mut engine = regorus::Engine::new();
        engine.set_rego_v0(true);
        engine.set_strict_builtin_errors(false);
        engine
            .add_policy("policy.rego".to_owned(), rego.to_owned())
            .map_err(|error| EvaluateError::Policy {
                reason: error.to_string(),
            })?;
        Ok(Self(engine))
    }

    /// Judges a request of `kind` (for example `CreateContainerRequest`) and, if it is allowed, changes the state.
    ///
    /// # Errors
    /// When the policy cannot be evaluated for it; kata-agent refuses the request then.
    pub fn allow(
        &mut self,
        kind: &str,
        request: &serde_json::Value,
    ) -> Result<Decision, EvaluateError> {
        let failed = |error: &dyn fmt::Display| EvaluateError::Evaluation {
            request: kind.to_owned(),
            reason: error.to_string(),
        };
        self.0
            .set_input_json(&request.to_string())
            .map_err(|error| failed(&error))?;
        let verdict = self
            .0
            .eval_rule(format!("{PACKAGE}.{kind}"))
            .map_err(|error| failed(&error))?;
        let allowed = match &verdict {
            Value::Bool(allowed) => *allowed,
            Value::Object(fields) => {
                let allowed = fields.get(&Value::from("allowed")) == Some(&Value::Bool(true));
                if allowed && let Some(ops) = fields.get(&Value::from("ops")) {
                    self.apply(ops).map_err(|error| failed(&error))?;
                }
                allowed
            }
            _ => false,
        };
        let reasons = match allowed {
            true => Vec::new(),
            false => self.reasons(),
        };
        Ok(Decision { allowed, reasons })
    }

    fn reasons(&mut self) -> Vec<String> {
        let found = self.0.eval_rule(format!("{PACKAGE}.denials"));
        match found {
            Ok(Value::Set(reasons)) => reasons
                .iter()
                .filter_map(|reason| reason.as_string().ok().map(ToString::to_string))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Applies the patch that an allowed request returns to the engine's data.
    fn apply(&mut self, ops: &Value) -> Result<(), String> {
        let text = ops.to_json_str().map_err(|error| error.to_string())?;
        let ops: Vec<Op> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let mut data = serde_json::Map::new();
        for op in ops {
            match (op.op.as_str(), op.path.strip_prefix('/')) {
                ("add", Some(key)) if !key.contains('/') => data.insert(key.to_owned(), op.value),
                _ => return Err(format!("unexpected state change {} {}", op.op, op.path)),
            };
        }
        self.0.clear_data();
        let data = serde_json::Value::Object(data).to_string();
        self.0
            .add_data_json(&data)
            .map_err(|error| error.to_string())
    }
}

/// One operation of RFC 6902. The rules only ever write their whole state.
#[derive(serde::Deserialize)]
struct Op {
    op: String,
    path: String,
    value: serde_json::Value,
}
