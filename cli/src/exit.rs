//! What the exit code of `contrast` says.

use std::process::ExitCode;

/// Outcome of a run, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for happened.
    Success,
    /// The question was answered, and the answer is no: the Coordinator's evidence was refused, its history is broken,
    /// or its manifest is another one; or `lint` or `mesh check` found errors; or `approvals` has not enough; or the chain of an audit
    /// stream is broken.
    Negative,
    /// The command line or a file is wrong; the same call will fail again.
    Usage,
    /// `attestation verify`: the evidence in the files is not verified.
    NotVerified,
    /// `generate --check`: generated files are out of date.
    OutOfDate,
    /// `status`: the Coordinator that was asked answered, and does not serve.
    NotServing,
    /// The Coordinator could not be reached, or is in a state in which it cannot do what was asked.
    Unavailable,
    /// A bug, or a machine that cannot run `contrast` at all.
    Internal,
}

impl Exit {
    /// The process exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Negative => 1,
            Self::Usage => 2,
            Self::NotVerified | Self::OutOfDate => 3,
            Self::Unavailable => 4,
            Self::NotServing => 5,
            Self::Internal => 70,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table that `contrast --help` ends with.
pub const HELP: &str = "\
Exit codes:
  0   success
  1   negative verdict: evidence refused, history broken, or manifest differs; lint, mesh check: findings;
      approvals: not enough; audit: chain broken
  2   usage error or bad input
  3   evidence in files not verified; generate --check: out of date
  4   Coordinator or pod unreachable, or in a state that does not allow the request
  5   status: the Coordinator answered and does not serve
  70  internal error";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_code() {
        use Exit::{Internal, Negative, NotServing, NotVerified, Success, Unavailable, Usage};
        for exit in [
            Success,
            Negative,
            Usage,
            NotVerified,
            Unavailable,
            NotServing,
            Internal,
        ] {
            let line = format!("\n  {:<3} ", exit.code());
            assert!(HELP.contains(&line), "{exit:?} is missing from:\n{HELP}");
        }
    }
}
