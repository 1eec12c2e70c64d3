//! `serve-images`: the agent of the guest asks here for the images of its containers.

use std::{
    fs, io,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use clap::Args;
use contrast_images::{
    CredentialFile, RegistryFileError, RegistryOptions, Resolver, ResolverError, Store, StoreError,
};
use contrast_telemetry::drain;
use contrast_ttrpc::{Limits, serve};

use super::{
    BootError, Registries, boot_id,
    bundle_path::{BundlePathError, BundleRoot},
    puller::{Puller, Work},
};
use crate::{
    notify::{NotifyError, notify_ready},
    socket::{self, SocketError},
};

/// Only root asks.
const MODE: u32 = 0o600;
const SOCKET_OPTION: &str = "--socket";
/// What the Initializer writes into its directory.
const CREDENTIALS: &str = "config.json";

/// Where the agent asks, and what it gets.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ServeImages {
    /// Unix socket at which the agent asks, in ttrpc. Its directory is made.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/confidential-containers/cdh.sock"
    )]
    pub socket: PathBuf,

    /// Directory of unpacked layers, which all images of the pod share. On the encrypted disk, or in memory: layers in it are not checked again.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,

    /// Directory below which the agent has its containers. Nothing is mounted elsewhere.
    #[arg(long, value_name = "DIR", default_value = "/run/kata-containers")]
    pub bundle_root: PathBuf,

    /// Directory into which the Initializer of the pod writes the credentials for registries, as config.json. They may come at any time.
    #[arg(
        long,
        env = "CONTRAST_PULL_CREDENTIALS_DIR",
        value_name = "DIR",
        default_value = "/run/kata-containers/sandbox/ephemeral/contrast-pull-credentials"
    )]
    pub credentials_dir: PathBuf,

    /// Images that are pulled at the same time; more wait.
    #[arg(long, value_name = "COUNT", default_value = "3")]
    pub pulls_at_once: NonZeroUsize,

    /// Registries.
    #[command(flatten)]
    pub registries: Registries,
}

/// Images cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeImagesError {
    /// A file that a flag names.
    #[error(transparent)]
    File(#[from] RegistryFileError),
    /// Registries cannot be asked at all.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// Which boot the store is for.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory of bundles.
    #[error(transparent)]
    Bundles(#[from] BundlePathError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// systemd waits to hear of the socket.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Signals cannot be received.
    #[error("cannot install signal handlers")]
    Signals(#[source] io::Error),
}

/// Listens, says so, and pulls what it is asked for until a termination signal arrives.
///
/// # Errors
/// When registries cannot be asked, a directory cannot be used, or the socket cannot be made.
pub async fn serve_images(options: &ServeImages) -> Result<(), ServeImagesError> {
    let credentials = options.credentials_dir.join(CREDENTIALS);
    let registries = RegistryOptions {
        credentials: Some(CredentialFile::without_helpers(&credentials)),
        ..options.registries.options()?
    };
    let boot = boot_id()?;
    // Each pull makes its own; these are here so that the guest ends at its boot instead of at its first container.
    drop(Resolver::new(&[], Some(&registries))?);
    drop(Store::open(&options.store, &boot)?);
    let bundles = BundleRoot::open(&options.bundle_root, &options.store)?;
    let work = Work {
        registries,
        credentials,
        store: options.store.clone(),
        boot,
        bundles,
        making: Mutex::default(),
        over: Arc::default(),
    };
    let puller = Arc::new(Puller::new(work, options.pulls_at_once.get()));
    let socket_error = |source| SocketError {
        path: options.socket.clone(),
        option: SOCKET_OPTION,
        source,
    };
    if let Some(directory) = options.socket.parent() {
        fs::create_dir_all(directory).map_err(socket_error)?;
    }
    let listener = socket::listen(&options.socket, SOCKET_OPTION, (MODE, None))?;
    notify_ready()?;
    tracing::info!(
        socket = %options.socket.display(),
        store = %options.store.display(),
        "waiting for the agent to ask for images"
    );
    tokio::select! {
        never = serve(&listener, Arc::clone(&puller), Limits::default()) => match never {},
        signal = drain::termination_signal() => {
            let signal = signal.map_err(ServeImagesError::Signals)?;
            tracing::info!(signal, "stopping");
        }
    }
    puller.end();
    Ok(())
}
