//! Restarts containerd through systemd, and waits until it stays up.

use std::time::Duration;

use crate::{
    containerd::Target,
    host::{Host, HostError},
};

const SYSTEMCTL: &str = "systemctl";
const ASK_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_secs(1);
/// A unit that systemd starts over and over is active now and then.
const STEADY_POLLS: u32 = 5;

/// containerd was not restarted, or did not stay up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestartError {
    /// No unit is there.
    #[error(
        "the host has none of the units {}; name the one that runs containerd in `containerd.units`, or none with [] to restart it yourself", units.join(", ")
    )]
    NoUnit {
        /// Those that were looked for.
        units: Vec<String>,
    },
    /// systemd says that it failed.
    #[error("`systemctl restart {unit}` says: {words}; see `journalctl -u {unit}` on the node")]
    Failed {
        /// Which.
        unit: String,
        /// Its last line.
        words: String,
    },
    /// It does not stay up.
    #[error(
        "{unit} did not stay up within {seconds} s, its state is `{state}`; see `journalctl -u {unit}` on the node"
    )]
    Unsteady {
        /// Which.
        unit: String,
        /// How long it was watched.
        seconds: u64,
        /// Its last state.
        state: String,
    },
    /// systemctl did not run.
    #[error(transparent)]
    Host(#[from] HostError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    loaded: bool,
    active: String,
    restarts: String,
}

/// The unit that runs containerd: the first that is active, or else the first that is there. `None`: nothing is to be restarted.
///
/// # Errors
/// When none of them is there.
pub(crate) fn unit(host: &dyn Host, target: &Target) -> Result<Option<String>, RestartError> {
    if target.units.is_empty() {
        return Ok(None);
    }
    let mut loaded = None;
    for unit in &target.units {
        let state = ask(host, unit)?;
        if state.active == "active" {
            return Ok(Some(unit.clone()));
        }
        if state.loaded && loaded.is_none() {
            loaded = Some(unit.clone());
        }
    }
    match loaded {
        Some(unit) => Ok(Some(unit)),
        None => Err(RestartError::NoUnit {
            units: target.units.clone(),
        }),
    }
}

/// Restarts `unit` and waits until it stays up.
///
/// # Errors
/// When it does not.
pub(crate) fn restart(host: &dyn Host, unit: &str, seconds: u64) -> Result<(), RestartError> {
    tracing::info!(unit, "restarting");
    let limit = Duration::from_secs(seconds);
    let output = host.run(SYSTEMCTL, &["restart", unit], limit)?;
    if !output.success() {
        return Err(RestartError::Failed {
            unit: unit.to_owned(),
            words: output.last_words(),
        });
    }
    let mut before = None;
    let mut steady = 0;
    for _ in 0..seconds.max(u64::from(STEADY_POLLS) + 1) {
        let state = ask(host, unit)?;
        let same = before.as_ref().is_none_or(|before| *before == state);
        steady = match same && state.active == "active" {
            true => steady + 1,
            false => 0,
        };
        if steady > STEADY_POLLS {
            return Ok(());
        }
        if state.active == "failed" {
            before = Some(state);
            break;
        }
        before = Some(state);
        host.pause(POLL);
    }
    Err(RestartError::Unsteady {
        unit: unit.to_owned(),
        seconds,
        state: before.map_or_else(|| "unknown".into(), |state| state.active),
    })
}

fn ask(host: &dyn Host, unit: &str) -> Result<State, RestartError> {
    let output = host.run(
        SYSTEMCTL,
        &[
            "show",
            "--property=LoadState,ActiveState,NRestarts",
            "--",
            unit,
        ],
        ASK_LIMIT,
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
    };
    Ok(State {
        loaded: value("LoadState").as_deref() == Some("loaded"),
        active: value("ActiveState").unwrap_or_default(),
        restarts: value("NRestarts").unwrap_or_default(),
    })
}
