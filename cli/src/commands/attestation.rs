//! `contrast attestation`: evidence in files, offline.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use contrast_attestation::{
    Evidence, EvidenceVerifier as _, ReportData, Root, SignedTpmQuote, VerifyError, authenticate,
    authenticate_azure,
};
use contrast_clock::{SystemWallClock, WallClock as _};
use contrast_collateral::Completion;

use super::{read_manifest, warn_if_insecure};
use crate::{
    args::FormatArgs,
    attestation::{
        input::{EvidenceArgs, hcl_report},
        inspect::Inspection,
        verdict::Verdict,
        vtpm::bare_signature,
    },
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::Output,
    workspace,
};

/// `contrast attestation`.
#[derive(Debug, Args)]
pub struct AttestationArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: AttestationCommand,
}

/// What to do with evidence.
#[derive(Debug, Subcommand)]
pub enum AttestationCommand {
    /// Print what a report, a quote or an evidence file says, without verifying it
    Inspect {
        /// SEV-SNP attestation report or certificate table, TDX quote, HCL report, or evidence file
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Shape of the result.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Verify evidence; exit code 0 verified, 3 not verified, 2 unusable input
    Verify(Box<VerifyEvidenceArgs>),
}

/// `contrast attestation verify`.
#[derive(Debug, Args)]
pub struct VerifyEvidenceArgs {
    /// The evidence.
    #[command(flatten)]
    pub evidence: EvidenceArgs,

    /// Manifest whose reference values and policies the evidence must meet; without one only signatures and the platform
    /// are verified
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Report data that the evidence must carry, 128 hex digits
    #[arg(long, value_name = "HEX", value_parser = report_data)]
    pub report_data: Option<ReportData>,

    /// The time to judge validity at, RFC 3339, for example 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub at: Option<DateTime<Utc>>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

fn report_data(text: &str) -> Result<ReportData, String> {
    let mut bytes = [0; 64];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(ReportData(bytes)),
        Err(error) => Err(format!(
            "expected 128 hex digits, found {} characters: {error}",
            text.len()
        )),
    }
}

pub(super) fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(time.to_utc()),
        Err(error) => Err(format!("expected an RFC 3339 time: {error}")),
    }
}

/// The file is of no kind that this version knows.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is neither an SEV-SNP attestation report or certificate table, nor a TDX quote, nor an HCL report, nor an evidence file", .path.display())]
struct UnknownFile {
    path: PathBuf,
}

impl Diagnose for UnknownFile {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        vec![
            "a report has 1184 bytes and version 2 to 5, a TDX quote version 4 or 5; both are binary files".into(),
        ]
    }
}

/// The evidence does not hold.
#[derive(Debug, thiserror::Error)]
#[error("the evidence is not verified: {failed}")]
struct NotVerified {
    failed: String,
}

impl Diagnose for NotVerified {
    fn exit(&self) -> Exit {
        Exit::NotVerified
    }
}

pub(super) fn run(args: &AttestationArgs, output: &Output) -> Result<(), Failure> {
    match &args.command {
        AttestationCommand::Inspect { file, format } => {
            let bytes = workspace::read("evidence", file, "")?;
            let inspection =
                Inspection::of(&bytes).ok_or_else(|| UnknownFile { path: file.clone() })?;
            output.result(format.format, &inspection)?;
            Ok(())
        }
        AttestationCommand::Verify(args) => verify(args, output),
    }
}

fn verify(args: &VerifyEvidenceArgs, output: &Output) -> Result<(), Failure> {
    let now = args
        .at
        .map_or_else(|| SystemWallClock.now(), SystemTime::from);
    let at = DateTime::<Utc>::from(now).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let verdict = match (&args.evidence.azure, &args.manifest) {
        // Without the values of the PCRs there is no evidence to be compared with a manifest, but signatures can be verified.
        (Some(path), None) if args.evidence.tpm_pcrs.is_none() => {
            azure(args, path, now, at, output)?
        }
        (_, Some(path)) => {
            let evidence = told(args.evidence.read(now)?, output);
            let manifest = read_manifest(path)?;
            warn_if_insecure(&manifest, output);
            appraise(args, &evidence, &manifest, now, at)
        }
        (_, None) => {
            let evidence = told(args.evidence.read(now)?, output);
            let authenticity =
                authenticate(&evidence, Root::Vendor, args.report_data.as_ref(), now);
            Verdict::authenticity(&authenticity, at).without(&evidence, args.report_data.as_ref())
        }
    };
    output.result(args.format.format, &verdict)?;
    if verdict.verified {
        return Ok(());
    }
    let checks = verdict.sets.iter().flat_map(|set| &set.checks);
    let failed: Vec<&str> = checks
        .filter(|row| !row.passed)
        .map(|row| row.field.as_str())
        .collect();
    let failed = match failed.as_slice() {
        [] => "the manifest has no reference value for this kind of evidence".to_owned(),
        failed => failed.join(", "),
    };
    Err(NotVerified { failed }.into())
}

/// Tells what the evidence still lacks.
fn told(completion: Completion, output: &Output) -> Evidence {
    for remark in completion.remarks {
        output.warning(&remark);
    }
    completion.evidence
}

fn azure(
    args: &VerifyEvidenceArgs,
    path: &Path,
    now: SystemTime,
    at: String,
    output: &Output,
) -> Result<Verdict, Failure> {
    let bytes = workspace::read("HCL report", path, "")?;
    let hcl = hcl_report(&bytes, path)?;
    let evidence = told(args.evidence.read_azure(&hcl, path, now)?, output);
    let (message, signature) = match (&args.evidence.tpm_quote, &args.evidence.tpm_signature) {
        (Some(quote), Some(signature)) => (
            Some(workspace::read("TPM quote", quote, "")?),
            workspace::read("signature of the TPM quote", signature, "")?,
        ),
        _ => (None, Vec::new()),
    };
    let quote = message.as_deref().map(|message| SignedTpmQuote {
        message,
        signature: bare_signature(&signature),
    });
    let report_data = args.report_data.as_ref();
    let authenticity = authenticate_azure(&hcl, &evidence, quote, Root::Vendor, report_data, now);
    Ok(Verdict::authenticity(&authenticity, at).without(&evidence, report_data))
}

fn appraise(
    args: &VerifyEvidenceArgs,
    evidence: &Evidence,
    manifest: &contrast_manifest::Manifest,
    now: SystemTime,
    at: String,
) -> Verdict {
    // Without --report-data any will do: the file's reader has no connection that it could be bound to.
    let verifier = manifest.verifier();
    let outcome = match &args.report_data {
        Some(report_data) => verifier.verify(evidence, report_data, now),
        None => verifier.verify_unbound(evidence, now),
    };
    match outcome {
        Ok(verified) => {
            Verdict::accepted(&verified, at).without(evidence, args.report_data.as_ref())
        }
        Err(VerifyError::Refused(report)) => {
            Verdict::refused(evidence.tee(), at).with_report(&report)
        }
        Err(_) => Verdict::refused(evidence.tee(), at),
    }
}
