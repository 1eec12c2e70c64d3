//! `pull-image`: an image for a container of this pod, pulled and unpacked where the host sees neither it nor the credentials.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use contrast_images::{
    Bundle, BundleError, CredentialFile, ImageReference, Progress, PullError, ReferenceError,
    RegistriesConf, RegistriesConfError, RegistryOptions, Resolver, ResolverError, Store,
    StoreError,
};

/// Another one for each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// What to pull, from where, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PullImage {
    /// The image with its digest: REGISTRY/REPOSITORY:TAG@sha256:...; registry and tag may be left out.
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Directory of unpacked layers, which all images of the pod share. On the encrypted disk, or in memory: layers in it are not checked again.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,

    /// Directory in which to mount the image's root file system, as DIR/rootfs.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,

    /// Credentials for registries: config.json of Docker with `auths`. A file that is not there has none.
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,

    /// Mirrors and exceptions, in the format of containers-registries.conf(5), version 2.
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,

    /// Certificates of CAs (PEM) to trust beside the system's. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub registry_ca: Vec<PathBuf>,
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullImageError {
    /// Not a reference with a digest.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A file that a flag names.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file with mirrors.
    #[error("{} is not usable", path.display())]
    Conf {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RegistriesConfError,
    },
    /// Registries cannot be asked at all.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The root file system.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Pulls an image. Waits until it is there.
///
/// # Errors
/// When it cannot be pulled, checked, unpacked or mounted.
pub fn pull_image(arguments: &PullImage) -> Result<(), PullImageError> {
    let image = ImageReference::parse(&arguments.image)?;
    let resolver = Resolver::new(&[], Some(&registries(arguments)?))?;
    // Before anything is transferred in vain.
    let mut bundle = arguments.bundle.as_deref().map(Bundle::new).transpose()?;
    let boot = read(BOOT_ID.into())?;
    let store = Store::open(&arguments.store, String::from_utf8_lossy(&boot).trim())?;
    let progress = LoggedProgress::new();
    let pulled = resolver.pull(&image, &store, &progress)?;
    if let Some(bundle) = &mut bundle {
        bundle.mount(&pulled)?;
    }
    tracing::info!(
        %image,
        layers = pulled.diff_ids.len(),
        transferred_bytes = progress.transferred(),
        rootfs = bundle.map(|bundle| tracing::field::display(bundle.rootfs().display().to_string())),
        "image pulled"
    );
    Ok(())
}

fn registries(arguments: &PullImage) -> Result<RegistryOptions, PullImageError> {
    let conf = match &arguments.registries_conf {
        None => RegistriesConf::default(),
        Some(path) => {
            let text = read(path.clone())?;
            RegistriesConf::parse(&String::from_utf8_lossy(&text)).map_err(|source| {
                PullImageError::Conf {
                    path: path.clone(),
                    source,
                }
            })?
        }
    };
    let mut ca = Vec::new();
    for path in &arguments.registry_ca {
        ca.extend(read(path.clone())?);
        ca.push(b'\n');
    }
    let credentials = arguments.credentials.as_deref();
    Ok(RegistryOptions {
        credentials: credentials.map(CredentialFile::without_helpers),
        conf,
        ca: (!ca.is_empty()).then_some(ca),
        ..RegistryOptions::default()
    })
}

fn read(path: PathBuf) -> Result<Vec<u8>, PullImageError> {
    fs::read(&path).map_err(|source| PullImageError::Read { path, source })
}

/// Says now and then how far it is.
struct LoggedProgress {
    wanted: AtomicU64,
    read: AtomicU64,
    said: Mutex<Instant>,
}

impl LoggedProgress {
    fn new() -> Self {
        Self {
            wanted: AtomicU64::new(0),
            read: AtomicU64::new(0),
            said: Mutex::new(Instant::now()),
        }
    }

    fn transferred(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl Progress for LoggedProgress {
    fn begin(&self, layers: usize, bytes: u64) {
        self.wanted.store(bytes, Ordering::Relaxed);
        tracing::info!(layers, bytes, "pulling the layers that the store lacks");
    }

    fn read(&self, bytes: u64) {
        let before = self.read.fetch_add(bytes, Ordering::Relaxed);
        let Ok(mut said) = self.said.try_lock() else {
            return;
        };
        if said.elapsed() >= PROGRESS_PAUSE {
            *said = Instant::now();
            let read = before.saturating_add(bytes);
            let wanted = self.wanted.load(Ordering::Relaxed);
            tracing::info!(bytes = read, of_bytes = wanted, "pulling");
        }
    }
}
