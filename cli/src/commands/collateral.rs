//! `contrast collateral`: what CPU vendors publish, in a directory that can be carried to where nothing can be fetched.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand, ValueEnum};
use contrast_attestation::{
    Evidence, SnpEvidence, TdxEvidence, Tee,
    appraisal::SnpProduct,
    snp::ReportFile,
    tdx::{CollateralKey, PckIssuer},
    vtpm::HclReport,
};
use contrast_clock::{SystemWallClock, WallClock as _};
use contrast_collateral::{
    Bundle, BundleError, Collateral, EndpointError, Endpoints, HttpTransport, Item, Limits,
    Options, OptionsError, SnpSigner, Unavailable, Validity,
};
use etcetera::BaseStrategy as _;
use serde::Serialize;

use super::attestation::instant;
use crate::{
    args::FormatArgs,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
    workspace,
};

/// Below the user's directory for caches.
const CACHE: &str = "contrast/collateral";

/// `contrast collateral`.
#[derive(Debug, Args)]
pub struct CollateralArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CollateralCommand,
}

/// What to do with collateral.
#[derive(Debug, Subcommand)]
pub enum CollateralCommand {
    /// Fetch from AMD and Intel into a directory, for `--collateral DIR` on machines without a connection
    Fetch(FetchArgs),
    /// List what a directory holds and how long it is valid
    Show(ShowArgs),
}

/// `contrast collateral fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// SEV-SNP reports, TDX quotes, HCL reports or evidence files: everything that verifying them takes is fetched
    #[arg(value_name = "EVIDENCE")]
    pub evidence: Vec<PathBuf>,

    /// Directory to write to; CRLs, TCB infos and QE identities that an earlier run wrote there are fetched anew
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// AMD product line: fetches its CRL and its VLEK chain; may be repeated
    #[arg(long, value_enum, value_name = "PRODUCT")]
    pub product: Vec<Product>,

    /// Intel platform (12 hex digits): fetches its TCB info, the QE identity and the CRLs; may be repeated
    #[arg(long, value_name = "HEX", value_parser = fmspc)]
    pub fmspc: Vec<Fmspc>,

    /// Base URL of a service that answers in place of AMD's KDS and Intel's PCS, for example a caching proxy or a PCCS
    #[arg(long, env = "CONTRAST_COLLATERAL_PROXY", value_name = "URL")]
    pub collateral_proxy: Option<String>,

    /// How many seconds to try for each document
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast collateral show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Directory, or file in it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// The time to judge validity at, RFC 3339, for example 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub at: Option<DateTime<Utc>>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// AMD product line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Product {
    /// EPYC 7003
    Milan,
    /// EPYC 8004, 9004 and 97x4: Siena, Genoa and Bergamo
    Genoa,
    /// EPYC 9005
    Turin,
}

/// Family, model, stepping, platform type and custom SKU of an Intel platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fmspc([u8; 6]);

fn fmspc(text: &str) -> Result<Fmspc, String> {
    let mut bytes = [0; 6];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(Fmspc(bytes)),
        Err(error) => Err(format!(
            "expected 12 hex digits, found {} characters: {error}",
            text.len()
        )),
    }
}

impl From<Product> for SnpProduct {
    fn from(product: Product) -> Self {
        match product {
            Product::Milan => Self::Milan,
            Product::Genoa => Self::Genoa,
            Product::Turin => Self::Turin,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CollateralError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("cannot use --collateral-proxy")]
    Proxy(#[from] EndpointError),
    #[error("cannot write to `{}`", .path.display())]
    Output {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "`{}` is neither an SEV-SNP report, nor a TDX quote with its PCK certificate, nor an HCL report, nor an evidence file",
        .path.display()
    )]
    NoEvidence { path: PathBuf },
    #[error(
        "nothing to fetch: expected evidence files, --product, --fmspc, or an --output that an earlier run wrote to"
    )]
    Nothing,
    #[error("{} could not be fetched; what was fetched is in `{}`", documents(*.failed), .directory.display())]
    Incomplete { failed: usize, directory: PathBuf },
}

fn documents(count: usize) -> String {
    match count {
        1 => "one document".to_owned(),
        _ => format!("{count} documents"),
    }
}

impl Diagnose for CollateralError {
    fn exit(&self) -> Exit {
        match self {
            Self::Incomplete { .. } => Exit::Unavailable,
            _ => Exit::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Incomplete { .. } => vec![
                "behind a proxy, set HTTPS_PROXY, or name a service that has the documents with `--collateral-proxy`"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}

/// Opens what the options of a command describe, with a cache in the user's directory for caches unless they name another.
pub(super) fn open(options: &Options) -> Result<Arc<Collateral>, Failure> {
    let mut options = options.clone();
    if options.collateral_cache.is_none()
        && let Ok(directories) = etcetera::choose_base_strategy()
    {
        options.collateral_cache = Some(directories.cache_dir().join(CACHE));
    }
    let collateral = options.open().map_err(CollateralError::from)?;
    Ok(Arc::new(collateral))
}

pub(super) fn run(args: &CollateralArgs, output: &Output) -> Result<(), Failure> {
    match &args.command {
        CollateralCommand::Fetch(args) => fetch(args, output),
        CollateralCommand::Show(args) => {
            let bundle = Bundle::read(std::slice::from_ref(&args.directory))
                .map_err(CollateralError::from)?;
            let now = args
                .at
                .map_or_else(|| SystemWallClock.now(), SystemTime::from);
            let listing = Listing {
                directory: args.directory.clone(),
                documents: rows(&bundle, now),
                failures: Vec::new(),
            };
            output.result(args.format.format, &listing)?;
            Ok(())
        }
    }
}

#[derive(Debug, Serialize)]
struct Listing {
    directory: PathBuf,
    documents: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    document: String,
    file: String,
    valid_from: String,
    valid_until: String,
    valid: bool,
}

impl Render for Listing {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        for row in &self.documents {
            let state = match row.valid {
                true => paint.good("valid  "),
                false => paint.bad("INVALID"),
            };
            writeln!(
                out,
                "{state}  {} to {}  {}",
                row.valid_from, row.valid_until, row.document
            )?;
        }
        for failure in &self.failures {
            writeln!(out, "{}  {failure}", paint.bad("MISSING"))?;
        }
        Ok(())
    }
}

/// One row for each document, even when it serves as several items.
fn rows(bundle: &Bundle, now: SystemTime) -> Vec<Row> {
    let mut rows = BTreeMap::new();
    for (item, document) in bundle.items() {
        let Validity { from, until } = document.validity;
        let row = || Row {
            document: item.to_string(),
            file: item.file_name(),
            valid_from: day(from),
            valid_until: day(until),
            valid: document.validity.contains(now),
        };
        rows.entry(document.to_file()).or_insert_with(row);
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by(|a, b| (&a.document, &a.valid_from).cmp(&(&b.document, &b.valid_from)));
    rows
}

fn day(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn fetch(args: &FetchArgs, output: &Output) -> Result<(), Failure> {
    let now = SystemWallClock.now();
    let directory = &args.output;
    let evidence = args.evidence.iter().map(|path| bare_evidence(path));
    let evidence = evidence.collect::<Result<Vec<_>, _>>()?;
    let endpoints = match &args.collateral_proxy {
        Some(base) => Endpoints::at(base).map_err(CollateralError::from)?,
        None => Endpoints::vendors(),
    };
    let collateral = Collateral::offline()
        .with_cache(directory)
        .map_err(|source| CollateralError::Output {
            path: directory.clone(),
            source,
        })?
        .with_vendors(endpoints, Box::<HttpTransport>::default())
        .with_limits(Limits {
            deadline: Duration::from_secs(args.timeout),
            ..Limits::default()
        });
    let mut items = named(args);
    items.extend(news_in(directory)?);
    items.sort();
    items.dedup();
    if items.is_empty() && evidence.is_empty() {
        return Err(CollateralError::Nothing.into());
    }

    let spinner = output.spinner("fetching collateral");
    let mut failures: Vec<String> = thread::scope(|scope| {
        let collateral = &collateral;
        let fetch = |item| scope.spawn(move || collateral.fetch(item, now).err());
        let fetches: Vec<_> = items.iter().map(fetch).collect();
        let outcomes = fetches.into_iter().zip(&items);
        let failures = outcomes.filter_map(|(fetch, item)| {
            let lost = Some(Unavailable::Lost { item: item.clone() });
            fetch.join().unwrap_or(lost)
        });
        failures.map(|error| error.to_string()).collect()
    });
    for evidence in &evidence {
        failures.extend(collateral.complete(evidence, now).remarks);
    }
    drop(spinner);
    failures.sort();
    failures.dedup();
    let bundle = written(directory)?;
    let failed = failures.len();
    let listing = Listing {
        directory: directory.clone(),
        documents: rows(&bundle, now),
        failures,
    };
    output.result(args.format.format, &listing)?;
    match failed {
        0 => Ok(()),
        failed => Err(CollateralError::Incomplete {
            failed,
            directory: directory.clone(),
        }
        .into()),
    }
}

/// The items that the command line names.
fn named(args: &FetchArgs) -> Vec<Item> {
    let mut items = Vec::new();
    for product in args.product.iter().copied().map(SnpProduct::from) {
        // A product has one list, which both services serve.
        let signer = SnpSigner::Vcek;
        items.push(Item::SnpCrl { product, signer });
        let signer = SnpSigner::Vlek;
        items.push(Item::SnpChain { product, signer });
    }
    for Fmspc(fmspc) in args.fmspc.iter().copied() {
        items.push(Item::TcbInfo { fmspc });
        items.push(Item::QeIdentity);
        let issuers = [PckIssuer::Platform, PckIssuer::Processor];
        items.extend(issuers.map(|issuer| Item::PckCrl { issuer }));
        items.push(Item::RootCrl);
    }
    items
}

/// What is in the directory so far.
fn written(directory: &Path) -> Result<Bundle, CollateralError> {
    if !directory.exists() {
        return Ok(Bundle::default());
    }
    match Bundle::read(&[directory.to_owned()]) {
        Err(BundleError::Empty { .. }) => Ok(Bundle::default()),
        bundle => Ok(bundle?),
    }
}

/// What an earlier run wrote, and the vendor may have replaced since.
fn news_in(directory: &Path) -> Result<Vec<Item>, CollateralError> {
    let bundle = written(directory)?;
    let items = bundle.items().map(|(item, _)| item);
    let news = items.filter(|item| item.is_news() && directory.join(item.file_name()).exists());
    Ok(news.cloned().collect())
}

/// Evidence without anything that a vendor publishes.
fn bare_evidence(path: &Path) -> Result<Evidence, Failure> {
    let bytes = workspace::read("evidence", path, "")?;
    let snp = |report: &[u8]| {
        Evidence::Snp(SnpEvidence {
            report: report.to_vec(),
            ..SnpEvidence::default()
        })
    };
    let tdx = |quote: &[u8]| {
        Evidence::Tdx(TdxEvidence {
            quote: quote.to_vec(),
            collateral: None,
        })
    };
    let evidence = if let Ok(file) = ReportFile::read(&bytes) {
        Some(snp(file.report))
    } else if CollateralKey::of(&bytes).is_some() {
        Some(tdx(&bytes))
    } else if let Ok(hcl) = HclReport::parse(&bytes) {
        (hcl.tee == Tee::Snp).then(|| snp(hcl.hardware_report))
    } else {
        match Evidence::decode(&bytes) {
            Ok(Evidence::Snp(evidence)) => Some(Evidence::Snp(SnpEvidence {
                report: evidence.report,
                ..SnpEvidence::default()
            })),
            Ok(Evidence::Tdx(evidence)) => Some(tdx(&evidence.quote)),
            _ => None,
        }
    };
    evidence.ok_or_else(|| {
        CollateralError::NoEvidence {
            path: path.to_owned(),
        }
        .into()
    })
}
