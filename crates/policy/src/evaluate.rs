use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
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
    /// When not: why, one reason each, in the order of the rules' codes; empty when the kind of request is never allowed.
    pub reasons: Vec<String>,
}

/// A policy with its state, as kata-agent holds it.
#[derive(Clone)]
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
        engine.set_gather_prints(true);
        engine
            .add_policy("policy.rego".to_owned(), rego.to_owned())
            .map_err(|error| EvaluateError::Policy {
                reason: error.to_string(),
            })?;
        Ok(Self(engine))
    }

    /// Judges a request of `kind` (for example `CreateContainerRequest`) and, if it is allowed, changes the state.
    ///
    /// The request has the field names of the agent's protobuf. As the agent does, the `data` of a CopyFile request (text in base64,
    /// or a list of bytes) is replaced by its SHA-256 under `data_sha256` (lower-case hex).
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
        if !kind.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(failed(
                &"expected letters and digits as the kind of request",
            ));
        }
        let request = match kind {
            "CopyFileRequest" => &hashed(request),
            _ => request,
        };
        self.0
            .set_input_json(&request.to_string())
            .map_err(|error| failed(&error))?;
        let verdict = match self.0.eval_rule(format!("{PACKAGE}.{kind}")) {
            Ok(verdict) => verdict,
            // The engine's word for a rule that is nowhere: such a request is never allowed.
            Err(error) if error.to_string().contains("not a valid rule path") => Value::Undefined,
            Err(error) => return Err(failed(&error)),
        };
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
        // What the rules print is for the agent's error message.
        self.0.take_prints().map_err(|error| failed(&error))?;
        let reasons = match allowed {
            true => Vec::new(),
            false => self.reasons(kind),
        };
        Ok(Decision { allowed, reasons })
    }

    fn reasons(&mut self, kind: &str) -> Vec<String> {
        let set = match kind {
            "SignalProcessRequest"
            | "StatsContainerRequest"
            | "TtyWinResizeRequest"
            | "WaitProcessRequest" => "known".to_owned(),
            "CloseStdinRequest" => "why_WriteStreamRequest".to_owned(),
            kind => format!("why_{kind}"),
        };
        match self.0.eval_rule(format!("{PACKAGE}.{set}")) {
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

/// The request as the agent shows it to the policy: with the hash of its data, if it has data that can be read.
fn hashed(request: &serde_json::Value) -> serde_json::Value {
    let mut request = request.clone();
    let Some(fields) = request.as_object_mut() else {
        return request;
    };
    let data = match fields.get("data") {
        Some(serde_json::Value::String(text)) => STANDARD.decode(text).ok(),
        Some(serde_json::Value::Array(bytes)) => {
            let byte = |value: &serde_json::Value| u8::try_from(value.as_u64()?).ok();
            bytes.iter().map(byte).collect()
        }
        _ => None,
    };
    if let Some(data) = data {
        let hash = digest(&SHA256, &data);
        let hex: String = hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fields.insert("data_sha256".to_owned(), hex.into());
        fields.remove("data");
    }
    request
}

/// One operation of RFC 6902. The rules only ever write their whole state.
#[derive(serde::Deserialize)]
struct Op {
    op: String,
    path: String,
    value: serde_json::Value,
}
