//! `contrast manifest`: work on a manifest file.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use contrast_attestation::{
    Evidence, VtpmEvidence,
    appraisal::{SnpDemands, SnpMeasurement, SnpProduct},
    snp::{self, Report},
    tdx::QuoteDetails,
    vtpm::TpmQuote,
};
use contrast_clock::{SystemWallClock, WallClock as _};
use contrast_manifest::{
    ManifestDocument, ManifestError, PolicyDocument, SnpReferenceValue, TdxReferenceValue,
    VtpmDocument,
};
use serde::Serialize;

use crate::{
    args::FormatArgs,
    attestation::input::EvidenceArgs,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
    workspace::{self, MANIFEST, Workspace},
};

/// `contrast manifest`.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: ManifestCommand,
}

/// What to do with a manifest.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Fill empty reference values with what a report or quote shows: observed, not trusted
    Fill(FillArgs),
}

/// `contrast manifest fill`.
#[derive(Debug, Args)]
pub struct FillArgs {
    /// The evidence. It is not verified.
    #[command(flatten)]
    pub evidence: EvidenceArgs,

    /// Manifest whose empty values are filled; values that are there stay [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Print what would be filled, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Nothing could be filled in.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error("`{}` is not a manifest", .path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        source: ManifestError,
    },
    #[error(
        "cannot tell the product of this report: version 2 has no CPUID fields, and the certificate is none of a VCEK or VLEK"
    )]
    Product,
    #[error(
        "the HCL report or the TPM quote in the evidence cannot be read; `contrast attestation inspect` shows what can"
    )]
    Vtpm,
    #[error("`{}` has no reference value for {wanted}", .path.display())]
    NoReferenceValue { path: PathBuf, wanted: String },
}

impl Diagnose for FillError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoReferenceValue { .. } => vec![
                "run `contrast generate --reference-values PLATFORM` to add one, then fill it"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Filled {
    note: &'static str,
    manifest: PathBuf,
    reference_value: String,
    written: bool,
    filled: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Value {
    field: String,
    value: String,
}

const NOTE: &str = "observed, not trusted: whoever made this evidence chose these values; compare them with a source that you trust";

impl Render for Filled {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        writeln!(out, "{}", paint.alarming(NOTE))?;
        for Value { field, value } in &self.filled {
            writeln!(out, "{} {field}: {value}", self.reference_value)?;
        }
        match (self.filled.len(), self.written) {
            (0, _) => writeln!(out, "nothing to fill in {}", self.manifest.display()),
            (_, true) => writeln!(out, "wrote {}", self.manifest.display()),
            (_, false) => writeln!(out, "{} was not changed", self.manifest.display()),
        }
    }
}

pub(super) fn run(
    args: &ManifestArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let ManifestCommand::Fill(args) = &args.command;
    let evidence = args.evidence.read(SystemWallClock.now())?.evidence;
    let path = workspace.choose(args.manifest.as_deref(), MANIFEST);
    let hint = "run `contrast generate`, or name the file with `--manifest`";
    let bytes = workspace::read("manifest", &path, hint)?;
    let mut document =
        ManifestDocument::from_json(&bytes).map_err(|source| FillError::Manifest {
            path: path.clone(),
            source,
        })?;
    let (reference_value, filled) = fill(&mut document, &evidence, &path)?;
    let written = !filled.is_empty() && !args.dry_run;
    if written {
        workspace::overwrite(&path, document.to_json().as_bytes())?;
    }
    output.result(
        args.format.format,
        &Filled {
            note: NOTE,
            manifest: path,
            reference_value,
            written,
            filled,
        },
    )?;
    Ok(())
}

fn fill(
    document: &mut ManifestDocument,
    evidence: &Evidence,
    path: &std::path::Path,
) -> Result<(String, Vec<Value>), FillError> {
    let missing = |wanted: String| FillError::NoReferenceValue {
        path: path.to_owned(),
        wanted,
    };
    let policies = &document.policies;
    let values = &mut document.reference_values;
    let (hardware, pcrs) = match evidence {
        Evidence::Vtpm(vtpm) => {
            let hardware = vtpm.hardware_evidence().map_err(|_| FillError::Vtpm)?;
            (hardware, Some(pcrs_of(vtpm)?))
        }
        direct => (direct.clone(), None),
    };
    let through = match pcrs {
        Some(_) => " through a vTPM",
        None => "",
    };
    match &hardware {
        Evidence::Snp(evidence) => {
            let report = Report::parse(&evidence.report).map_err(|_| FillError::Product)?;
            let product = snp::claimed_product(evidence).ok_or(FillError::Product)?;
            let observed = observed_snp(&report, product);
            let fits = |value: &SnpReferenceValue| {
                let is_products =
                    value.product_name.is_empty() || value.product_name == observed.product_name;
                let one = value.trusted_measurement.as_deref().unwrap_or_default();
                let is_empty = one.is_empty() && value.trusted_measurements.is_empty();
                is_products && is_for(value.vtpm.as_ref(), is_empty, pcrs.is_some())
            };
            let (index, value) = values
                .snp
                .iter_mut()
                .enumerate()
                .find(|(_, value)| fits(value))
                .ok_or_else(|| missing(format!("SEV-SNP on {product}{through}")))?;
            let vcpus = vcpus_of(policies, &report);
            let mut filled = fill_snp(value, observed, vcpus);
            filled.extend(fill_pcrs(&mut value.vtpm, pcrs.as_ref()));
            Ok((format!("snp[{index}]"), filled))
        }
        Evidence::Tdx(evidence) => {
            let wanted = || missing(format!("TDX{through}"));
            let quote = QuoteDetails::parse(&evidence.quote).map_err(|_| wanted())?;
            let mut entries = values.tdx.iter_mut().enumerate();
            let (index, value) = entries
                .find(|(_, value)| {
                    is_for(value.vtpm.as_ref(), value.mr_td.is_empty(), pcrs.is_some())
                })
                .ok_or_else(wanted)?;
            let mut filled = fill_tdx(value, &quote);
            filled.extend(fill_pcrs(&mut value.vtpm, pcrs.as_ref()));
            Ok((format!("tdx[{index}]"), filled))
        }
        other => Err(missing(other.tee().to_string())),
    }
}

/// Whether a reference value is for such evidence. One without measurement and without `VTPM` is for either; one with a
/// measurement of a guest must not become one of a paravisor.
fn is_for(vtpm: Option<&VtpmDocument>, is_empty: bool, through_vtpm: bool) -> bool {
    match vtpm {
        Some(_) => through_vtpm,
        None => !through_vtpm || is_empty,
    }
}

type Pcrs = BTreeMap<u8, [u8; 32]>;

fn pcrs_of(evidence: &VtpmEvidence) -> Result<Pcrs, FillError> {
    let quote = TpmQuote::parse(&evidence.tpm_quote).map_err(|_| FillError::Vtpm)?;
    let pairs = quote.pcrs.into_iter().zip(&evidence.pcr_values);
    Ok(pairs.map(|(index, value)| (index, *value)).collect())
}

/// Fills PCR 4 and every PCR that is listed without a value.
fn fill_pcrs(slot: &mut Option<VtpmDocument>, pcrs: Option<&Pcrs>) -> Vec<Value> {
    let mut filled = Vec::new();
    let Some(pcrs) = pcrs else {
        return filled;
    };
    let document = slot.get_or_insert_default();
    document.pcrs.entry("4".into()).or_default();
    for (key, value) in &mut document.pcrs {
        let seen = key.parse().ok().and_then(|index: u8| pcrs.get(&index));
        if let (true, Some(seen)) = (value.is_empty(), seen) {
            *value = hex::encode(seen);
            filled.push(Value {
                field: format!("VTPM.PCRs.{key}"),
                value: value.clone(),
            });
        }
    }
    filled
}

/// What the report itself meets. Its TCB is the committed one: the firmware cannot fall below it.
fn observed_snp(report: &Report, product: SnpProduct) -> SnpReferenceValue {
    SnpReferenceValue::from(&SnpDemands {
        product,
        measurement: SnpMeasurement::Any(report.measurement),
        minimum_tcb: report.committed_tcb.components(product),
        guest_policy: report.guest_policy(),
        platform_info: report.platform_info(),
        minimum_mitigation_vector: 0,
        allowed_chip_ids: Vec::new(),
        trusted_id_key_digests: Vec::new(),
        trusted_author_key_digests: Vec::new(),
    })
}

/// How many vCPUs the pods with the report's policy have, as the manifest says.
fn vcpus_of(policies: &BTreeMap<String, PolicyDocument>, report: &Report) -> Option<i64> {
    policies.get(&hex::encode(report.host_data))?.vcpus
}

/// `vcpus` is the number that the report's measurement is for, if that is known.
fn fill_snp(
    value: &mut SnpReferenceValue,
    observed: SnpReferenceValue,
    vcpus: Option<i64>,
) -> Vec<Value> {
    let mut filled = Vec::new();
    text(
        "ProductName",
        &mut value.product_name,
        observed.product_name,
        &mut filled,
    );
    let seen = observed.trusted_measurement.unwrap_or_default();
    match (value.trusted_measurements.is_empty(), vcpus) {
        (true, _) => {
            let slot = value.trusted_measurement.get_or_insert_default();
            text("TrustedMeasurement", slot, seen, &mut filled);
        }
        (false, Some(vcpus)) => {
            let slots = &mut value.trusted_measurements;
            let slot = slots.entry(vcpus.to_string()).or_default();
            let field = format!("TrustedMeasurements.{vcpus}");
            text(field, slot, seen, &mut filled);
        }
        // A digest under the wrong number would be worse than none.
        (false, None) => {}
    }
    let (tcb, seen) = (&mut value.minimum_tcb, observed.minimum_tcb);
    for (field, slot, seen) in [
        (
            "MinimumTCB.BootloaderVersion",
            &mut tcb.bootloader,
            seen.bootloader,
        ),
        ("MinimumTCB.TEEVersion", &mut tcb.tee, seen.tee),
        ("MinimumTCB.SNPVersion", &mut tcb.snp, seen.snp),
        (
            "MinimumTCB.MicrocodeVersion",
            &mut tcb.microcode,
            seen.microcode,
        ),
        ("MinimumTCB.FMCVersion", &mut tcb.fmc, seen.fmc),
    ] {
        if let (None, Some(seen)) = (&slot, seen) {
            *slot = Some(seen);
            filled.push(Value {
                field: field.into(),
                value: seen.to_string(),
            });
        }
    }
    option(
        "GuestPolicy",
        &mut value.guest_policy,
        observed.guest_policy,
        &mut filled,
    );
    option(
        "PlatformInfo",
        &mut value.platform_info,
        observed.platform_info,
        &mut filled,
    );
    filled
}

fn fill_tdx(value: &mut TdxReferenceValue, quote: &QuoteDetails) -> Vec<Value> {
    let mut filled = Vec::new();
    text(
        "MrTd",
        &mut value.mr_td,
        hex::encode(quote.mr_td),
        &mut filled,
    );
    text(
        "MrSeam",
        &mut value.mr_seam,
        hex::encode(quote.mr_seam),
        &mut filled,
    );
    text(
        "Xfam",
        &mut value.xfam,
        hex::encode(quote.xfam),
        &mut filled,
    );
    value.rtmrs.resize(value.rtmrs.len().max(4), String::new());
    let names = ["Rtmrs[0]", "Rtmrs[1]", "Rtmrs[2]", "Rtmrs[3]"];
    for ((field, slot), seen) in names.into_iter().zip(&mut value.rtmrs).zip(quote.rtmrs) {
        text(field, slot, hex::encode(seen), &mut filled);
    }
    filled
}

fn text(field: impl Into<String>, slot: &mut String, seen: String, filled: &mut Vec<Value>) {
    if slot.is_empty() {
        slot.clone_from(&seen);
        let field = field.into();
        filled.push(Value { field, value: seen });
    }
}

fn option<T: Serialize>(
    field: &'static str,
    slot: &mut Option<T>,
    seen: Option<T>,
    filled: &mut Vec<Value>,
) {
    if let (None, Some(seen)) = (&slot, seen) {
        let value = serde_json::to_string(&seen).unwrap_or_default();
        *slot = Some(seen);
        let field = field.into();
        filled.push(Value { field, value });
    }
}
