//! Pulls what the agent asks for, one request after the other or several at once.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use contrast_images::{Bundle, ImageReference, RegistryOptions, Resolver, Store};
use contrast_proto::image_pull::{ImagePullRequest, ImagePullResponse};
use contrast_ttrpc::{Call, Code, Handler, Status};
use prost::Message as _;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore, oneshot},
    task::spawn_blocking,
};

use super::{
    LoggedProgress,
    bundle_path::{BundlePathError, BundleRoot},
    refusal,
};

const SERVICE: &str = "api.ImagePullService";
const METHOD: &str = "PullImage";

/// Answers requests.
pub(super) struct Puller {
    work: Arc<Work>,
    /// One for each pull that may run.
    permits: Arc<Semaphore>,
    /// Digests that are being pulled: a second request waits, and then finds all layers in the store.
    images: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

/// What is the same for all pulls.
pub(super) struct Work {
    /// The file with credentials is read when a registry asks for some, so it may come and change at any time.
    pub(super) registries: RegistryOptions,
    /// Where that file is, for messages.
    pub(super) credentials: PathBuf,
    pub(super) store: PathBuf,
    pub(super) boot: String,
    pub(super) bundles: BundleRoot,
    /// Between the look at a directory and the making of a bundle in it, no other request does the same.
    pub(super) making: Mutex<()>,
    pub(super) over: Arc<AtomicBool>,
}

impl Handler for Puller {
    async fn call(&self, call: Call) -> Result<Bytes, Status> {
        if (&*call.service, &*call.method) != (SERVICE, METHOD) {
            let message = format!(
                "found a call of {:?} in {:?}, expected `{METHOD}` in `{SERVICE}`: this socket does nothing else",
                call.method, call.service
            );
            return Err(Status::new(Code::Unimplemented, message));
        }
        let request = ImagePullRequest::decode(call.payload).map_err(|error| {
            let message = format!(
                "expected an ImagePullRequest, found something that cannot be decoded: {error}"
            );
            Status::new(Code::InvalidArgument, message)
        })?;
        let url = request.image_url.clone();
        let pulled = self.pull(request).await;
        if let Err(status) = &pulled {
            tracing::warn!(image = ?url, %status, "image not pulled");
        }
        Ok(pulled?.encode_to_vec().into())
    }
}

impl Puller {
    /// Will run so many pulls at a time.
    pub(super) fn new(work: Work, at_once: usize) -> Self {
        Self {
            work: Arc::new(work),
            permits: Arc::new(Semaphore::new(at_once)),
            images: Mutex::default(),
        }
    }

    /// Breaks off what is being pulled, at the next byte.
    pub(super) fn end(&self) {
        self.work.over.store(true, Ordering::Relaxed);
    }

    async fn pull(&self, request: ImagePullRequest) -> Result<ImagePullResponse, Status> {
        let image = ImageReference::parse(&request.image_url)
            .map_err(|error| refusal::status(Code::InvalidArgument, error))?;
        let manifest_digest = image.digest().to_owned();
        // The image first: whoever waits for another one's layers keeps nobody else waiting.
        let alone = self.alone(&manifest_digest).await;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| bug())?;
        let work = Arc::clone(&self.work);
        let (sender, receiver) = oneshot::channel();
        // It goes on when nobody waits any more, so that its layers are there for the next attempt.
        spawn_blocking(move || {
            let done = work.pull(&image, &request.bundle_path, &|| sender.is_closed());
            drop((alone, permit));
            match sender.send(done) {
                Ok(()) => {}
                Err(Ok(bundle)) => remove(bundle),
                Err(Err(status)) => tracing::warn!(%image, %status, "image not mounted"),
            }
        });
        // The root file system stays when the bundle goes.
        receiver.await.map_err(|_| bug())??;
        Ok(ImagePullResponse { manifest_digest })
    }

    /// Waits until nobody else pulls the image.
    async fn alone(&self, digest: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            images.retain(|_, lock| lock.strong_count() > 0);
            let known = images.get(digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                images.insert(digest.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

impl Work {
    /// Pulls an image and mounts it, unless nobody waits any more by then.
    fn pull(
        &self,
        image: &ImageReference,
        bundle_path: &str,
        is_alone: &dyn Fn() -> bool,
    ) -> Result<Bundle, Status> {
        // Before anything is transferred in vain.
        let mut bundle = self.bundle(bundle_path)?;
        let internal = |error: anyhow::Error| refusal::status(Code::Internal, error);
        // Anew for each pull: a registry's token is for the credentials of its time, and a disk may have been mounted at the store.
        let resolver = Resolver::new(&[], Some(&self.registries));
        let resolver = resolver.map_err(|error| internal(error.into()))?;
        let store = Store::open(&self.store, &self.boot);
        let store = store.map_err(|error| internal(error.into()))?;
        let progress = LoggedProgress::new(image.to_string(), Arc::clone(&self.over));
        let pulled = resolver.pull(image, &store, &progress).map_err(|error| {
            let code = match self.over.load(Ordering::Relaxed) {
                true => Code::Unavailable,
                false => refusal::code(&error.source),
            };
            let mut message = format!("{:#}", anyhow::Error::from(error));
            if code == Code::PermissionDenied {
                let file = self.credentials.display();
                message.push_str(&format!("; this guest has credentials from {file}, which sealed credentials fill (`contrast seal registry`)"));
            }
            Status::new(code, message)
        })?;
        if is_alone() {
            let message = "the image is in the store, but nobody waits for it any more";
            return Err(Status::new(Code::DeadlineExceeded, message));
        }
        bundle
            .mount(&pulled)
            .map_err(|error| internal(error.into()))?;
        tracing::info!(
            %image,
            layers = pulled.diff_ids.len(),
            transferred_bytes = progress.transferred(),
            rootfs = %bundle.rootfs().display(),
            "image pulled"
        );
        Ok(bundle)
    }

    fn bundle(&self, path: &str) -> Result<Bundle, Status> {
        let _only = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, path) = self.bundles.make(path).map_err(|error| {
            let code = match error {
                BundlePathError::Outside { .. } | BundlePathError::Writable { .. } => {
                    Code::InvalidArgument
                }
                _ => Code::FailedPrecondition,
            };
            refusal::status(code, error)
        })?;
        Bundle::within(directory, path).map_err(|error| refusal::status(Code::Internal, error))
    }
}

/// Takes away what was mounted in the moment in which the caller left.
fn remove(bundle: Bundle) {
    let rootfs = bundle.rootfs();
    if let Err(error) = bundle.remove() {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, rootfs = %rootfs.display(), "a root file system that nobody waits for stays");
    }
}

fn bug() -> Status {
    Status::new(
        Code::Internal,
        "the pull ended abnormally; this is a bug in the Initializer, its log says more",
    )
}
