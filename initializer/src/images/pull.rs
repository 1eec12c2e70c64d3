//! `pull-image`: an image for a container of this pod, pulled and unpacked where the host sees neither it nor the credentials.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use contrast_images::{
    Bundle, BundleError, CredentialFile, ImageReference, PullError, ReferenceError,
    RegistryFileError, RegistryOptions, Resolver, ResolverError, Store, StoreError,
};

use super::{BootError, LoggedProgress, Registries, boot_id};

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

    /// Registries.
    #[command(flatten)]
    pub registries: Registries,
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullImageError {
    /// Not a reference with a digest.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A file that a flag names.
    #[error(transparent)]
    File(#[from] RegistryFileError),
    /// Which boot the store is for.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Registries cannot be asked at all.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image.
    #[error(transparent)]
    Pull(PullError),
    /// A registry wants credentials, or others.
    #[error(
        "a registry wants credentials of somebody who may pull the image; give them with `--credentials FILE`"
    )]
    Denied(#[source] PullError),
    /// The root file system.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl From<PullError> for PullImageError {
    fn from(error: PullError) -> Self {
        match error.source.denied() {
            Some(_) => Self::Denied(error),
            None => Self::Pull(error),
        }
    }
}

/// Pulls an image. Waits until it is there.
///
/// # Errors
/// When it cannot be pulled, checked, unpacked or mounted.
pub fn pull_image(arguments: &PullImage) -> Result<(), PullImageError> {
    let image = ImageReference::parse(&arguments.image)?;
    let credentials = arguments.credentials.as_deref();
    let registries = RegistryOptions {
        credentials: credentials.map(CredentialFile::without_helpers),
        ..arguments.registries.options()?
    };
    let resolver = Resolver::new(&[], Some(&registries))?;
    // Before anything is transferred in vain.
    let mut bundle = arguments.bundle.as_deref().map(Bundle::new).transpose()?;
    let store = Store::open(&arguments.store, &boot_id()?)?;
    let progress = LoggedProgress::new(image.to_string(), Arc::default());
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
