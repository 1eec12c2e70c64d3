//! Images inside the guest: pulled by hand, or for the agent.

mod bundle_path;
mod pull;
mod puller;
mod refusal;
mod serve;

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use contrast_images::{Progress, RegistryFileError, RegistryOptions};

pub use bundle_path::BundlePathError;
pub use pull::{PullImage, PullImageError, pull_image};
pub use serve::{ServeImages, ServeImagesError, serve_images};

/// Another one for each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// How registries are asked.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Registries {
    /// Mirrors and exceptions, in the format of containers-registries.conf(5), version 2.
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,

    /// Certificates of CAs (PEM) to trust beside the system's. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub registry_ca: Vec<PathBuf>,
}

impl Registries {
    fn options(&self) -> Result<RegistryOptions, RegistryFileError> {
        RegistryOptions::of_files(self.registries_conf.as_deref(), &self.registry_ca)
    }
}

/// The kernel does not say which boot this is.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {BOOT_ID}")]
pub struct BootError(#[source] io::Error);

fn boot_id() -> Result<String, BootError> {
    let text = fs::read_to_string(BOOT_ID).map_err(BootError)?;
    Ok(text.trim().to_owned())
}

/// Says now and then how far it is.
struct LoggedProgress {
    image: String,
    over: Arc<AtomicBool>,
    wanted: AtomicU64,
    read: AtomicU64,
    said: Mutex<Instant>,
}

impl LoggedProgress {
    /// Of pulling `image`, until `over`.
    fn new(image: String, over: Arc<AtomicBool>) -> Self {
        Self {
            image,
            over,
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
        let image = &*self.image;
        tracing::info!(
            image,
            layers,
            bytes,
            "pulling the layers that the store lacks"
        );
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
            let image = &*self.image;
            tracing::info!(image, bytes = read, of_bytes = wanted, "pulling");
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
