use std::{
    fmt::Debug,
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::answer::{AnswerError, bound, chain, repeated, snp_evidence};
use crate::{Evidence, IssueError, Issuer, ReportData, TdxEvidence, Tee};

/// Where Linux mounts it.
const DEFAULT_PATH: &str = "/sys/kernel/config/tsm/report";
/// How often a request is made anew when another process wrote to the same entry. Entries have names of their own, so that
/// even once is unusual.
const ATTEMPTS: u32 = 3;

/// The kernel's side: a directory in which every subdirectory is one request.
pub trait ReportTree: Debug + Send + Sync {
    /// Creates the entry `name`.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn create(&self, name: &str) -> io::Result<()>;
    /// Removes the entry `name`.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Writes an attribute of the entry `name`, in one write.
    ///
    /// # Errors
    /// When the kernel refuses, or the attribute does not exist.
    fn write(&self, name: &str, attribute: &str, value: &[u8]) -> io::Result<()>;
    /// Reads an attribute of the entry `name` whole.
    ///
    /// # Errors
    /// When the kernel refuses, or the attribute does not exist.
    fn read(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>>;
}

/// The real tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigfsReports {
    path: PathBuf,
}

impl ConfigfsReports {
    /// The tree at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for ConfigfsReports {
    /// The tree at `/sys/kernel/config/tsm/report`.
    fn default() -> Self {
        Self::at(DEFAULT_PATH)
    }
}

impl ReportTree for ConfigfsReports {
    fn create(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.path.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.path.join(name))
    }

    fn write(&self, name: &str, attribute: &str, value: &[u8]) -> io::Result<()> {
        fs::write(self.path.join(name).join(attribute), value)
    }

    fn read(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name).join(attribute))
    }
}

/// The kernel gave no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The entry could not be made.
    #[error(
        "cannot create an entry in configfs-TSM; expected Linux 6.7 or later with a TSM provider, root, and configfs mounted on /sys/kernel/config"
    )]
    Create(#[source] io::Error),
    /// An attribute could not be used.
    #[error("cannot {action} attribute `{attribute}` of configfs-TSM")]
    Attribute {
        /// `read` or `write`.
        action: &'static str,
        /// Which one.
        attribute: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Attribute `generation` is no number.
    #[error("expected a decimal number in attribute `generation`, found {found:?}")]
    Generation {
        /// What it holds.
        found: String,
    },
    /// Somebody else wrote to our entry, every time.
    #[error(
        "another process wrote to our entry during each of {ATTEMPTS} attempts (generation {found}, expected {expected}); the report may be bound to its data"
    )]
    Conflict {
        /// Generation before the request, plus our one write.
        expected: u64,
        /// Generation after it.
        found: u64,
    },
    /// A TEE that this version does not know.
    #[error("expected provider `sev_guest` or `tdx_guest`, found `{found}`")]
    Provider {
        /// Attribute `provider`.
        found: String,
    },
    /// The answer is no evidence for what was asked.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// Issues evidence through configfs-TSM.
#[derive(Debug)]
pub struct ConfigfsIssuer<T> {
    tree: T,
    tee: Tee,
    /// Entries are named after process and request, so that no two requests share one.
    requests: AtomicU64,
}

/// What one request gives.
struct Blobs {
    report: Vec<u8>,
    /// Certificates; empty when the host has none or the provider no such attribute.
    auxiliary: Vec<u8>,
}

impl<T: ReportTree> ConfigfsIssuer<T> {
    /// Asks which TEE answers at `tree`, without requesting a report.
    ///
    /// # Errors
    /// When there is no such interface, or the TEE is none that this version knows.
    pub fn probe(tree: T) -> Result<Self, ReportError> {
        let requests = AtomicU64::new(0);
        let entry = Entry::create(&tree, &requests)?;
        let provider = entry.read("provider")?;
        let tee = match provider.trim_ascii() {
            b"sev_guest" => Tee::Snp,
            b"tdx_guest" => Tee::Tdx,
            other => {
                return Err(ReportError::Provider {
                    found: String::from_utf8_lossy(other).into_owned(),
                });
            }
        };
        drop(entry);
        Ok(Self {
            tree,
            tee,
            requests,
        })
    }

    /// The TEE that answers.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// Evidence that carries `report_data`. An SNP report comes with the certificates that the host has; AMD's own ASK and
    /// ARK are added when the host left them out.
    ///
    /// # Errors
    /// When the kernel refuses, or its answer is not what was asked for.
    pub fn evidence(&self, report_data: &ReportData) -> Result<Evidence, ReportError> {
        let blobs = self.request(report_data)?;
        let evidence = match self.tee {
            Tee::Snp => Evidence::Snp(snp_evidence(blobs.report, &blobs.auxiliary)?),
            Tee::Tdx => Evidence::Tdx(TdxEvidence {
                quote: blobs.report,
                collateral: None,
            }),
        };
        Ok(bound(evidence, report_data)?)
    }

    fn request(&self, report_data: &ReportData) -> Result<Blobs, ReportError> {
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let entry = Entry::create(&self.tree, &self.requests)?;
            let before = entry.generation()?;
            entry.write("inblob", &report_data.0)?;
            let report = entry.read("outblob")?;
            let auxiliary = match self.tree.read(&entry.name, "auxblob") {
                Ok(auxiliary) => auxiliary,
                // The attribute exists only with providers that have certificates.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(source) => {
                    return Err(ReportError::Attribute {
                        action: "read",
                        attribute: "auxblob",
                        source,
                    });
                }
            };
            let (expected, found) = (before.wrapping_add(1), entry.generation()?);
            if expected == found {
                return Ok(Blobs { report, auxiliary });
            }
            conflict = Some((expected, found));
        }
        let (expected, found) = conflict.unwrap_or_default();
        Err(ReportError::Conflict { expected, found })
    }
}

impl<T: ReportTree> Issuer for ConfigfsIssuer<T> {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        self.evidence(report_data).map_err(|error| IssueError {
            tee: match self.tee {
                Tee::Snp => "SEV-SNP firmware (configfs-TSM)",
                Tee::Tdx => "TDX quoting service (configfs-TSM)",
            },
            reason: chain(&error),
        })
    }
}

/// One request; its entry goes when it is dropped.
struct Entry<'a, T: ReportTree> {
    tree: &'a T,
    name: String,
}

impl<'a, T: ReportTree> Entry<'a, T> {
    fn create(tree: &'a T, requests: &AtomicU64) -> Result<Self, ReportError> {
        let request = requests.fetch_add(1, Ordering::Relaxed);
        let name = format!("contrast-{}-{request}", process::id());
        tree.create(&name).map_err(ReportError::Create)?;
        Ok(Self { tree, name })
    }

    fn read(&self, attribute: &'static str) -> Result<Vec<u8>, ReportError> {
        retried(|| self.tree.read(&self.name, attribute)).map_err(|source| ReportError::Attribute {
            action: "read",
            attribute,
            source,
        })
    }

    fn write(&self, attribute: &'static str, value: &[u8]) -> Result<(), ReportError> {
        retried(|| self.tree.write(&self.name, attribute, value)).map_err(|source| {
            ReportError::Attribute {
                action: "write",
                attribute,
                source,
            }
        })
    }

    fn generation(&self) -> Result<u64, ReportError> {
        let text = String::from_utf8_lossy(&self.read("generation")?).into_owned();
        text.trim()
            .parse()
            .map_err(|_| ReportError::Generation { found: text })
    }
}

impl<T: ReportTree> Drop for Entry<'_, T> {
    fn drop(&mut self) {
        // An entry that stays costs the kernel a few hundred bytes; there is nobody to tell.
        let _ = self.tree.remove(&self.name);
    }
}

/// The kernel answers EINTR when a signal came while the firmware worked.
fn retried<R>(operation: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    let passes = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
    repeated(ATTEMPTS, Duration::ZERO, passes, operation)
}
