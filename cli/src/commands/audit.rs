//! `contrast audit`: what Coordinators decided.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use contrast_audit::{CheckError, Hash, Kind, Outcome, ParseError, Record, check};
use contrast_clock::{SystemWallClock, WallClock};

use super::{collateral, read_manifest};
use crate::{
    args::{FormatArgs, StatusArgs},
    attempts::{Attempts, shown},
    audit::{Records, Row, Verdict},
    diagnostic::{Diagnose, Failure},
    dial::Session,
    exit::Exit,
    kube,
    output::Output,
    workspace::{MANIFEST, Workspace},
};

/// `contrast audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What to do with an audit stream.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the chain of records in a file; exit code 0 it holds, 1 it is broken or its end is missing
    Verify {
        /// Stored output of a Coordinator, `-` for standard input; other lines are skipped
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Hash of a record that must be there: what `contrast status` said
        #[arg(long, value_name = "HASH")]
        head: Option<Hash>,

        /// Shape of the result.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show the records of a file, and check their chain
    Show {
        /// Stored output of a Coordinator, `-` for standard input; other lines are skipped
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Which records.
        #[command(flatten)]
        filter: Filter,

        /// Shape of the result.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Attest a Coordinator and show what it decided last
    Recent {
        /// Which records.
        #[command(flatten)]
        filter: Filter,

        /// Whom to ask.
        #[command(flatten)]
        asked: StatusArgs,
    },
}

/// Which records are shown.
#[derive(Debug, Clone, Args)]
pub struct Filter {
    /// Only records of this kind; may be repeated: start, attestation, certificate, sealed-secrets, manifest, transition, recovery,
    /// volume, member, leader, lost or stop
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub kind: Vec<Kind>,

    /// Only what was refused or failed
    #[arg(long)]
    pub refused: bool,
}

fn kind(text: &str) -> Result<Kind, String> {
    let known = Kind::ALL.into_iter();
    let mut known = known.filter(|kind| kind.name() == text);
    known.next().ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        format!("expected one of {names}")
    })
}

impl Filter {
    fn wants(&self, record: &Record) -> bool {
        let of_kind = self.kind.is_empty() || self.kind.contains(&record.kind);
        let refused = matches!(record.outcome, Outcome::Refused | Outcome::Failed);
        of_kind && (refused || !self.refused)
    }
}

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the audit stream in `{}`", .path.display())]
struct Unreadable {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Diagnose for Unreadable {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// A chain is broken.
#[derive(Debug, thiserror::Error)]
#[error("the audit stream in `{}` does not hold", .path.display())]
struct Broken {
    path: PathBuf,
    #[source]
    source: CheckError,
}

impl Diagnose for Broken {
    fn exit(&self) -> Exit {
        match &self.source {
            CheckError::Read(_) => Exit::Usage,
            _ => Exit::Negative,
        }
    }

    fn hints(&self) -> Vec<String> {
        match &self.source {
            CheckError::Head { .. } => vec![
                "fetch the stream again after `contrast status` named the record; if it is missing still, whoever stores the stream \
                 took records away"
                    .into(),
            ],
            CheckError::Read(_) => Vec::new(),
            _ => vec!["do not rely on records from that line on; those before it are as they were written only if the latest that an \
                       attested Coordinator named (`--head`) is among them"
                .into()],
        }
    }
}

/// No record at all.
#[derive(Debug, thiserror::Error)]
#[error("`{}` has no record of an audit stream", .path.display())]
struct Empty {
    path: PathBuf,
}

impl Diagnose for Empty {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        vec!["a record is a line that begins with {\"audit\":".into()]
    }
}

/// A Coordinator's answer has a record that is none.
#[derive(Debug, thiserror::Error)]
#[error("the Coordinator answered with a record that is malformed")]
struct Malformed(#[source] ParseError);

impl Diagnose for Malformed {
    fn exit(&self) -> Exit {
        Exit::Unavailable
    }

    fn hints(&self) -> Vec<String> {
        vec!["the Coordinator is of another version than this `contrast`".into()]
    }
}

/// Runs one of them.
///
/// # Errors
/// When a file cannot be read, or its chain is broken; what holds is shown before. When no Coordinator can be reached and attested.
pub(super) fn run(
    args: &AuditArgs,
    workspace: impl FnOnce() -> Result<Workspace, Failure>,
    output: &Output,
) -> Result<(), Failure> {
    match &args.command {
        AuditCommand::Verify { file, head, format } => {
            let checked = check(open(file)?, *head, |_, _, _| {});
            let checked = checked.map_err(|source| Broken {
                path: file.clone(),
                source,
            })?;
            if checked.records == 0 {
                return Err(Empty { path: file.clone() }.into());
            }
            output.result(format.format, &Verdict::of(&checked, *head))?;
            Ok(())
        }
        AuditCommand::Show {
            file,
            filter,
            format,
        } => {
            let mut rows = Vec::new();
            let checked = check(open(file)?, None, |_, record, hash| {
                if filter.wants(record) {
                    rows.push(Row::of(record, hash));
                }
            });
            output.result(format.format, &Records(rows))?;
            let path = file.clone();
            let checked = checked.map_err(|source| Broken { path, source })?;
            match checked.records {
                0 => Err(Empty { path: file.clone() }.into()),
                _ => Ok(()),
            }
        }
        AuditCommand::Recent { filter, asked } => {
            super::block_on(recent(filter, asked, &workspace()?, output))
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Unreadable> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(path).map_err(|source| Unreadable {
        path: path.to_owned(),
        source,
    });
    Ok(Box::new(BufReader::new(opened?)))
}

async fn recent(
    filter: &Filter,
    args: &StatusArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let manifest = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    super::warn_if_insecure(&manifest, output);
    let collateral = collateral::open(&args.collateral)?;
    let reached = kube::reach(&args.coordinators, output).await?;
    let addresses = &reached.addresses;
    let spinner = output.spinner(&format!("attesting {}", shown(addresses)));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let (_, answer) = Attempts::brief(addresses)
        .first(&spinner, async |address| {
            let mut session = Session::attest(address, &manifest, &collateral, &clock).await?;
            Ok(session.recent_decisions().await?)
        })
        .await?;
    drop(spinner);
    let lines = [answer.issued, answer.refused, answer.other];
    let mut rows = Vec::new();
    for line in lines.iter().flatten() {
        let (record, hash) = Record::parse(line).map_err(Malformed)?;
        if filter.wants(&record) {
            rows.push(Row::of(&record, hash));
        }
    }
    rows.sort_by_key(|row| row.sequence);
    output.result(args.format.format, &Records(rows))?;
    Ok(())
}
