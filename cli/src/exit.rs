//! What the exit code of `contrast` says.

use std::process::ExitCode;

/// Outcome of a run, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for happened.
    Success,
    /// The question was answered, and the answer is no: the Coordinator's evidence was refused, its history is broken,
    /// or its manifest is another one.
    Negative,
    /// The command line or a file is wrong; the same call will fail again.
    Usage,
    /// Generated files are out of date. No command of this version ends with it.
    OutOfDate,
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
            Self::OutOfDate => 3,
            Self::Unavailable => 4,
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
  1   negative verdict: evidence refused, history broken, or manifest differs
  2   usage error or bad input
  3   out of date (reserved)
  4   Coordinator unreachable, or in a state that does not allow the request
  70  internal error";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_code() {
        use Exit::{Internal, Negative, OutOfDate, Success, Unavailable, Usage};
        for exit in [Success, Negative, Usage, OutOfDate, Unavailable, Internal] {
            let line = format!("\n  {:<3} ", exit.code());
            assert!(HELP.contains(&line), "{exit:?} is missing from:\n{HELP}");
        }
    }
}
