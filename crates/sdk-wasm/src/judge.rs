//! From the inputs' bytes to the JSON of the outcome.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use contrast_attestation::printable;
use contrast_sdk::{
    Nonce,
    history::{KnownTransition, Memory},
    report::Report,
    rows::Verdict,
    transition::{TransitionHash, TransitionHashError},
};
use serde::{Deserialize, Serialize};

use crate::{ABI_VERSION, slots::Inputs};

/// The last moment that the `Date` of JavaScript can name, in milliseconds since 1970.
const TIME_MAX: f64 = 8.64e15;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum NoVerdict {
    #[error("expected a nonce of 32 bytes in slot 2, found {found}")]
    Nonce { found: usize },
    #[error(
        "expected the time as milliseconds since 1970, a number from 0 to {TIME_MAX:e}, found {found}"
    )]
    Time { found: f64 },
    #[error(
        "the memory in slot 3 is not JSON of the form {{\"transitions\": [\"<64 hex digits>\"], \"root_ca\": \"<PEM>\"}}"
    )]
    Memory(#[source] serde_json::Error),
    #[error("the memory in slot 3 names a transition that is none")]
    Transition(#[source] TransitionHashError),
    #[error(transparent)]
    Document(#[from] contrast_sdk::DocumentError),
    #[error("the report cannot be written as JSON")]
    Output(#[source] serde_json::Error),
}

impl NoVerdict {
    fn code(&self) -> &'static str {
        match self {
            Self::Nonce { .. } => "BAD_NONCE",
            Self::Time { .. } => "BAD_TIME",
            Self::Memory(_) | Self::Transition(_) => "BAD_MEMORY",
            Self::Document(error) => error.code(),
            Self::Output(_) => "INTERNAL",
        }
    }

    /// The error and its causes in one line.
    fn message(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        // Causes quote what they could not read.
        printable(&text).into_owned()
    }
}

/// [`Memory`] as the host writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Remembered {
    transitions: Vec<String>,
    root_ca: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome<'a> {
    Report(&'a Report),
    Error { code: &'a str, message: String },
}

#[derive(Serialize)]
struct Output<'a> {
    abi: u32,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

impl Output<'_> {
    fn json(outcome: Outcome<'_>) -> Result<Vec<u8>, serde_json::Error> {
        let abi = ABI_VERSION;
        serde_json::to_vec(&Output { abi, outcome })
    }
}

/// Returns the code for the host and the JSON.
pub(crate) fn judge(inputs: &Inputs, now: f64) -> (u32, Vec<u8>) {
    match verdict(inputs, now) {
        Ok((Verdict::Verified, json)) => (0, json),
        Ok((Verdict::Refused, json)) => (1, json),
        Err(error) => {
            let (code, message) = (error.code(), error.message());
            let json = Output::json(Outcome::Error { code, message });
            (2, json.unwrap_or_default())
        }
    }
}

fn verdict(inputs: &Inputs, now: f64) -> Result<(Verdict, Vec<u8>), NoVerdict> {
    let found = inputs.nonce.len();
    let nonce = <[u8; 32]>::try_from(&inputs.nonce[..]).map_err(|_| NoVerdict::Nonce { found })?;
    let (memory, now) = (memory(&inputs.memory)?, time(now)?);
    let (answer, manifest) = (&inputs.answer, &inputs.manifest);
    let report = Report::of_answer(answer, &Nonce(nonce), manifest, &memory, now)?;
    let json = Output::json(Outcome::Report(&report)).map_err(NoVerdict::Output)?;
    Ok((report.verdict, json))
}

fn memory(json: &[u8]) -> Result<Memory, NoVerdict> {
    if json.is_empty() {
        return Ok(Memory::default());
    }
    let given: Remembered = serde_json::from_slice(json).map_err(NoVerdict::Memory)?;
    let known = |text: &String| {
        let hash: TransitionHash = text.parse().map_err(NoVerdict::Transition)?;
        let source = "your notes".to_owned();
        Ok(KnownTransition { hash, source })
    };
    let transitions = given.transitions.iter().map(known);
    Ok(Memory {
        transitions: transitions.collect::<Result<_, NoVerdict>>()?,
        root_ca: given.root_ca,
    })
}

fn time(milliseconds: f64) -> Result<SystemTime, NoVerdict> {
    let refused = NoVerdict::Time {
        found: milliseconds,
    };
    if !(0.0..=TIME_MAX).contains(&milliseconds) {
        return Err(refused);
    }
    // Within the range, so that only a fraction of a millisecond is lost.
    let since = Duration::from_millis(milliseconds as u64);
    SystemTime::UNIX_EPOCH.checked_add(since).ok_or(refused)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn code_of(inputs: &Inputs, now: f64) -> String {
        let (code, json) = judge(inputs, now);
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!((code, &json["abi"]), (2, &Value::from(1)), "{json}");
        assert!(!json["error"]["message"].as_str().expect("text").is_empty());
        json["error"]["code"].as_str().expect("a code").to_owned()
    }

    #[test]
    fn every_input_that_is_none_has_its_code() {
        let good = Inputs {
            nonce: vec![7; 32],
            ..Inputs::default()
        };
        let with = |change: fn(&mut Inputs)| {
            let mut inputs = good.clone();
            change(&mut inputs);
            inputs
        };
        for (inputs, now, code) in [
            (with(|inputs| inputs.nonce.truncate(31)), 0.0, "BAD_NONCE"),
            (good.clone(), f64::NAN, "BAD_TIME"),
            (good.clone(), -1.0, "BAD_TIME"),
            (good.clone(), f64::INFINITY, "BAD_TIME"),
            (
                with(|inputs| inputs.memory = b"[]]".to_vec()),
                0.0,
                "BAD_MEMORY",
            ),
            (
                with(|inputs| inputs.memory = br#"{"transition":[]}"#.to_vec()),
                0.0,
                "BAD_MEMORY",
            ),
            (
                with(|inputs| inputs.memory = br#"{"transitions":["12"]}"#.to_vec()),
                0.0,
                "BAD_MEMORY",
            ),
            (good.clone(), TIME_MAX, "NOT_AN_ANSWER"),
            (
                with(|inputs| inputs.answer = br#"{"version":2}"#.to_vec()),
                0.0,
                "UNKNOWN_VERSION",
            ),
        ] {
            assert_eq!(code_of(&inputs, now), code, "{inputs:?} at {now}");
        }
    }

    #[test]
    fn milliseconds_are_those_of_the_host() {
        let time = time(1_764_000_000_123.0).expect("a time");
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970");
        assert_eq!(since.as_millis(), 1_764_000_000_123);
    }

    #[test]
    fn memory_is_read_in_full() {
        let json = format!(
            r#"{{"transitions":["{}"],"root_ca":"PEM"}}"#,
            "0a".repeat(32)
        );
        let memory = memory(json.as_bytes()).expect("memory");
        assert_eq!(memory.transitions[0].hash, TransitionHash([10; 32]));
        assert_eq!(memory.root_ca.as_deref(), Some("PEM"));
    }
}
