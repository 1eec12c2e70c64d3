//! `contrast insecure-tee`: a software TEE for development.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use contrast_attestation::{
    Tee,
    software::{SoftwareTee, SoftwareTeeError},
};
use contrast_clock::{SystemWallClock, WallClock as _};
use serde::Serialize;

use crate::{
    args::{InsecureTeeArgs, InsecureTeeCommand},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
};

#[derive(Debug, thiserror::Error)]
enum InsecureTeeError {
    #[error("`{}` is not an empty directory", .path.display())]
    NotEmpty { path: PathBuf },
    #[error("cannot look into `{}`", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot generate the software TEE")]
    Generate(#[source] SoftwareTeeError),
    #[error("cannot save the software TEE in `{}`", .path.display())]
    Save {
        path: PathBuf,
        #[source]
        source: SoftwareTeeError,
    },
}

impl Diagnose for InsecureTeeError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotEmpty { .. } | Self::Unreadable { .. } => Exit::Usage,
            Self::Generate(_) | Self::Save { .. } => Exit::Internal,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotEmpty { .. } => vec![
                "name a directory that does not exist yet; an existing software TEE is never replaced, because \
                 manifests pin it"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Created {
    insecure: bool,
    directory: PathBuf,
    snp_root_sha256: String,
    tdx_root_sha256: String,
}

impl Render for Created {
    fn text(&self, out: &mut dyn Write, _: Paint) -> io::Result<()> {
        writeln!(out, "created software TEE `{}`", self.directory.display())?;
        writeln!(out, "SEV-SNP root SHA-256: {}", self.snp_root_sha256)?;
        writeln!(out, "TDX root SHA-256:     {}", self.tdx_root_sha256)
    }
}

/// Creates a software TEE.
///
/// # Errors
/// When the directory holds something already, or cannot be written.
pub(super) fn run(args: &InsecureTeeArgs, output: &Output) -> Result<(), Failure> {
    let InsecureTeeCommand::Init { dir, format } = &args.command;
    require_empty(dir)?;
    let now = SystemWallClock.now();
    let tee = SoftwareTee::generate(now).map_err(InsecureTeeError::Generate)?;
    tee.save(dir).map_err(|source| InsecureTeeError::Save {
        path: dir.clone(),
        source,
    })?;
    output.warning(
        "INSECURE: a software TEE protects nothing. Whoever reads these files can pass for every workload of a manifest \
         that accepts it. Use it for development only",
    );
    let created = Created {
        insecure: true,
        directory: dir.clone(),
        snp_root_sha256: hex::encode(tee.root_sha256(Tee::Snp)),
        tdx_root_sha256: hex::encode(tee.root_sha256(Tee::Tdx)),
    };
    output.result(format.format, &created)?;
    Ok(())
}

fn require_empty(dir: &Path) -> Result<(), InsecureTeeError> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(InsecureTeeError::NotEmpty {
            path: dir.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(InsecureTeeError::NotEmpty {
                path: dir.to_owned(),
            })
        }
        Err(source) => Err(InsecureTeeError::Unreadable {
            path: dir.to_owned(),
            source,
        }),
    }
}
