//! `contrast seal`: secrets that only the deployment can read.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use contrast_clock::SystemEntropy;
use contrast_manifest::SealedKind;
use contrast_pki::{RegistryCredential, SealedFiles, SealingError, SealingPublicKey, is_file_key};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    args::{
        SealArgs, SealCommand, SealDeploymentArgs, SealPullSecretsArgs, SealRegistryArgs,
        SealSecretArgs, SealTargetArgs,
    },
    diagnostic::{Diagnose, Failure},
    docker_config::{self, DockerConfigError},
    exit::Exit,
    generate::{self, Converted, SealOptions, SealPlace, SealedFor},
    output::{Output, Paint, Render},
    workspace::{self, MANIFEST, SEALING_KEY, VERIFY_DIR, Workspace},
};

const NEXT: &str = "run `contrast generate`, then `contrast set`, and apply the YAML";
/// No secret that a manifest takes is longer, nor any input of one.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// The input cannot be used.
#[derive(Debug, thiserror::Error)]
enum InputError {
    #[error("expected KEY=FILE, found `{found}`")]
    Pair { found: String },
    #[error("`{key}` cannot be the name of a file; expected letters, digits, `-`, `_` and `.`")]
    Key { key: String },
    #[error("the file `{key}` is given twice")]
    Twice { key: String },
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read standard input")]
    Stdin(#[source] io::Error),
    #[error("{what} has more than {INPUT_BYTES_MAX} bytes")]
    TooLarge { what: String },
    #[error("the password is no UTF-8")]
    Password,
    #[error("`{}` cannot be used", path.display())]
    DockerConfig {
        path: PathBuf,
        #[source]
        source: DockerConfigError,
    },
    #[error("`{}` has no credentials of `{host}`", path.display())]
    NoCredentials { path: PathBuf, host: String },
    #[error("the sealing key `{}` is unusable", path.display())]
    SealingKey {
        path: PathBuf,
        #[source]
        source: SealingError,
    },
    #[error("the secret has no sealed form")]
    Content(#[source] SealingError),
}

impl Diagnose for InputError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoCredentials { .. } => vec![
                "a credential helper keeps them elsewhere; use `--username USER --password-stdin` with a token of the registry".into(),
            ],
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Sealed {
    name: String,
    kind: &'static str,
    replaced: bool,
    workloads: Vec<String>,
    written: Vec<PathBuf>,
}

impl Render for Sealed {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let verb = match self.replaced {
            true => "sealed again",
            false => "sealed",
        };
        writeln!(out, "{} `{}`", paint.good(verb), self.name)?;
        for workload in &self.workloads {
            writeln!(out, "for {workload}")?;
        }
        for path in &self.written {
            writeln!(out, "wrote {}", path.display())?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct SealedPullSecrets {
    workloads: BTreeMap<String, BTreeSet<String>>,
    written: Vec<PathBuf>,
}

impl Render for SealedPullSecrets {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        for (workload, registries) in &self.workloads {
            let registries: Vec<String> =
                registries.iter().map(|name| format!("`{name}`")).collect();
            let registries = registries.join(", ");
            writeln!(out, "{} {registries} for {workload}", paint.good("sealed"))?;
        }
        for path in &self.written {
            writeln!(out, "wrote {}", path.display())?;
        }
        Ok(())
    }
}

/// Seals.
///
/// # Errors
/// When an input cannot be used; no file has been changed then.
pub(super) fn run(args: &SealArgs, workspace: &Workspace, output: &Output) -> Result<(), Failure> {
    match &args.what {
        SealCommand::Secret(args) => {
            let content = files(args)?.to_bytes().map_err(InputError::Content)?;
            let what = (SealedKind::Files, args.name.as_str());
            put(&args.target, what, &content, workspace, output)
        }
        SealCommand::Registry(args) => {
            let content = credential(args)?.to_bytes().map_err(InputError::Content)?;
            let what = (SealedKind::Registry, args.host.as_str());
            put(&args.target, what, &content, workspace, output)
        }
        SealCommand::PullSecrets(args) => pull_secrets(args, workspace, output),
    }
}

fn put(
    args: &SealTargetArgs,
    (kind, name): (SealedKind, &str),
    content: &[u8],
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let deployment = Deployment::of(&args.deployment, workspace)?;
    let options = SealOptions {
        place: deployment.place(&args.paths, &args.deployment),
        pods: &args.pod,
        kind,
        name,
        content,
    };
    let SealedFor {
        workloads,
        replaced,
        written,
    } = generate::seal(&options, &SystemEntropy)?;
    let sealed = Sealed {
        name: name.to_owned(),
        kind: kind.as_str(),
        replaced,
        workloads,
        written,
    };
    output.result(args.deployment.format.format, &sealed)?;
    output.note(NEXT);
    Ok(())
}

fn pull_secrets(
    args: &SealPullSecretsArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let deployment = Deployment::of(&args.deployment, workspace)?;
    let place = deployment.place(&args.paths, &args.deployment);
    let Converted {
        workloads,
        secrets,
        kept,
        written,
    } = generate::seal_pull_secrets(&place, &args.pod, &SystemEntropy)?;
    let secrets: Vec<String> = secrets.iter().map(|name| format!("`{name}`")).collect();
    let sealed = SealedPullSecrets { workloads, written };
    output.result(args.deployment.format.format, &sealed)?;
    for registry in kept {
        output.note(&format!(
            "the credentials of `{registry}` that were sealed before stay; `contrast seal registry` replaces them"
        ));
    }
    output.warning(&format!(
        "the host has read the credentials in {}: remove these Secrets from YAML and cluster once no other pod needs them, and have the registries issue new ones, \
         which `contrast seal registry` takes",
        secrets.join(", ")
    ));
    output.note(NEXT);
    Ok(())
}

/// What is sealed to a deployment needs its key and its manifest.
struct Deployment {
    key: SealingPublicKey,
    manifest: PathBuf,
}

impl Deployment {
    fn of(args: &SealDeploymentArgs, workspace: &Workspace) -> Result<Self, Failure> {
        Ok(Self {
            key: sealing_key(args.sealing_key.as_deref(), workspace)?,
            manifest: workspace.choose(args.manifest.as_deref(), MANIFEST),
        })
    }

    fn place<'a>(&'a self, paths: &'a [PathBuf], args: &'a SealDeploymentArgs) -> SealPlace<'a> {
        SealPlace {
            paths,
            manifest: &self.manifest,
            pod_template_paths: &args.pod_template_path,
            key: &self.key,
        }
    }
}

fn sealing_key(given: Option<&Path>, workspace: &Workspace) -> Result<SealingPublicKey, Failure> {
    let hint = "run `contrast set` or `contrast verify`, which write it: a deployment has a sealing key from its first manifest on";
    let of_set = workspace.choose(given, SEALING_KEY);
    let path = match given.is_none() && !of_set.exists() {
        true => workspace.path(&format!("{VERIFY_DIR}/{SEALING_KEY}")),
        false => of_set,
    };
    let bytes = workspace::read("sealing key", &path, hint)?;
    let key = SealingPublicKey::from_pem(&String::from_utf8_lossy(&bytes));
    Ok(key.map_err(|source| InputError::SealingKey { path, source })?)
}

fn files(args: &SealSecretArgs) -> Result<SealedFiles, InputError> {
    let mut files = SealedFiles::default();
    let mut add = |key: &str, content: &[u8]| {
        if !is_file_key(key) {
            let key = key.to_owned();
            return Err(InputError::Key { key });
        }
        if files.iter().any(|(other, _)| other == key) {
            let key = key.to_owned();
            return Err(InputError::Twice { key });
        }
        files.insert(key, content);
        Ok(())
    };
    for pair in &args.from_file {
        let Some((key, path)) = pair.split_once('=') else {
            let found = pair.clone();
            return Err(InputError::Pair { found });
        };
        add(key, &read_file(Path::new(path))?)?;
    }
    if let Some(key) = &args.from_stdin {
        add(key, &read_stdin()?)?;
    }
    Ok(files)
}

fn credential(args: &SealRegistryArgs) -> Result<RegistryCredential, InputError> {
    match (&args.docker_config, &args.username) {
        (Some(path), _) => of_docker_config(path, &args.host),
        (None, user) => {
            let password = read_stdin()?;
            let password = std::str::from_utf8(&password).map_err(|_| InputError::Password)?;
            let password = password.strip_suffix('\n').unwrap_or(password);
            let password = password.strip_suffix('\r').unwrap_or(password);
            let user = user.as_deref().unwrap_or_default();
            RegistryCredential::new(user, password).map_err(InputError::Content)
        }
    }
}

fn of_docker_config(path: &Path, host: &str) -> Result<RegistryCredential, InputError> {
    let bytes = read_file(path)?;
    let unusable = |source| InputError::DockerConfig {
        path: path.to_owned(),
        source,
    };
    let credentials = docker_config::credentials(&bytes).map_err(unusable)?;
    let found = credentials.into_iter().find(|(name, _)| name == host);
    let Some((_, found)) = found else {
        return Err(InputError::NoCredentials {
            path: path.to_owned(),
            host: host.to_owned(),
        });
    };
    found.map_err(unusable)
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, InputError> {
    let failed = |source| InputError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let bytes = bounded(file).map_err(failed)?;
    bytes.ok_or_else(|| InputError::TooLarge {
        what: path.display().to_string(),
    })
}

fn read_stdin() -> Result<Zeroizing<Vec<u8>>, InputError> {
    let bytes = bounded(io::stdin().lock()).map_err(InputError::Stdin)?;
    bytes.ok_or_else(|| InputError::TooLarge {
        what: "standard input".to_owned(),
    })
}

/// `None` when there is too much.
fn bounded(source: impl io::Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    source
        .take(INPUT_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= INPUT_BYTES_MAX);
    Ok(fits.then_some(bytes))
}
