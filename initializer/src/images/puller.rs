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
/// An agent asks there for disks behind emptyDirs, if the runtime attaches some.
const SECURE_MOUNT: &str = "api.SecureMountService";

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
            let advice = match &*call.service {
                SECURE_MOUNT => {
                    "; for emptyDirs on a disk set the runtime's `emptydir_mode` to another one than `block-encrypted`"
                }
                _ => "",
            };
            let message = format!(
                "found a call of {:?} in {:?}, expected `{METHOD}` in `{SERVICE}`: this socket does nothing else{advice}",
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
        let only_one = self.only_one(&manifest_digest).await;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| bug())?;
        let work = Arc::clone(&self.work);
        let (sender, receiver) = oneshot::channel();
        // It goes on when nobody waits any more, so that its layers are there for the next attempt.
        spawn_blocking(move || {
            let done = work.pull(&image, &request.bundle_path, &|| sender.is_closed());
            drop((only_one, permit));
            if let Err(Err(status)) = sender.send(done.map(Unclaimed::new)) {
                tracing::warn!(%image, %status, "image not mounted");
            }
        });
        receiver.await.map_err(|_| bug())??.claim();
        Ok(ImagePullResponse { manifest_digest })
    }

    /// Waits until nobody else pulls the image.
    async fn only_one(&self, digest: &str) -> OwnedMutexGuard<()> {
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
        nobody_waits: &dyn Fn() -> bool,
    ) -> Result<Bundle, Status> {
        // Before anything is transferred in vain.
        let mut bundle = self.bundle(bundle_path)?;
        let internal = |error: anyhow::Error| refusal::status(Code::Internal, error);
        // Anew for each pull: a registry's token is for the credentials of its time, and a disk may have been mounted at the store.
        let resolver = Resolver::new(&[], Some(&self.registries));
        let resolver = resolver.map_err(|error| internal(error.into()))?;
        let store = Store::open(&self.store, &self.boot);
        let store = store.map_err(|error| refusal::status(refusal::of_store(&error), error))?;
        let progress = LoggedProgress::new(image.to_string(), Arc::clone(&self.over));
        let pulled = resolver.pull(image, &store, &progress).map_err(|error| {
            let is_over = self.over.load(Ordering::Relaxed);
            let (code, advice) = match is_over {
                true => (
                    Code::Unavailable,
                    Some("this puller was told to stop".to_owned()),
                ),
                false => (
                    refusal::code(&error.source),
                    refusal::advice(&error.source, &self.credentials),
                ),
            };
            let mut message = format!("{:#}", anyhow::Error::from(error));
            if let Some(advice) = advice {
                message.push_str("; ");
                message.push_str(&advice);
            }
            Status::new(code, message)
        })?;
        if nobody_waits() {
            let message = "the image is in the store, but nobody waits for it any more";
            return Err(Status::new(Code::DeadlineExceeded, message));
        }
        bundle
            .mount(&pulled)
            .map_err(|error| refusal::status(refusal::of_bundle(&error), error))?;
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
        Bundle::within(directory, path)
            .map_err(|error| refusal::status(refusal::of_bundle(&error), error))
    }
}

/// A root file system on its way to whoever waits for it. It goes away again wherever on that way it is lost: when the other end of the
/// channel is gone, and also when that goes with this in it.
struct Unclaimed(Option<Bundle>);

impl Unclaimed {
    fn new(bundle: Bundle) -> Self {
        Self(Some(bundle))
    }

    /// The root file system stays.
    fn claim(mut self) {
        self.0 = None;
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some(bundle) = self.0.take() else {
            return;
        };
        let rootfs = bundle.rootfs();
        if let Err(error) = bundle.remove() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, rootfs = %rootfs.display(), "a root file system that nobody waits for stays");
        }
    }
}

fn bug() -> Status {
    Status::new(
        Code::Internal,
        "the pull ended abnormally; this is a bug in the Initializer, its log says more",
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use contrast_images::PulledImage;

    use super::*;

    #[test]
    fn root_file_system_stays_only_if_it_arrives() {
        let directory = tempfile::tempdir().expect("directory");
        if fs::metadata(directory.path()).expect("metadata").uid() != 0 {
            eprintln!("skipped: needs root");
            return;
        }
        let image = PulledImage {
            diff_ids: Vec::new(),
            layers: Vec::new(),
            configuration: b"{}".to_vec(),
        };
        let mounted = |name: &str| {
            let mut bundle = Bundle::new(&directory.path().join(name)).expect("a bundle");
            bundle.mount(&image).expect("mounts");
            Unclaimed::new(bundle)
        };
        let is_mounted = |name: &str| {
            let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
            let rootfs = directory.path().join(name).join("rootfs");
            mounts.contains(&*rootfs.to_string_lossy())
        };
        // Sent, and not looked at by the time the caller goes.
        let (sender, receiver) = oneshot::channel();
        sender.send(mounted("sent")).map_err(drop).expect("is sent");
        assert!(is_mounted("sent"));
        drop(receiver);
        assert!(!is_mounted("sent"));
        let left = fs::read_dir(directory.path().join("sent")).expect("bundle");
        assert_eq!(left.count(), 0);
        // Not to be sent any more.
        let (sender, receiver) = oneshot::channel();
        drop(receiver);
        drop(sender.send(mounted("late")));
        assert!(!is_mounted("late"));
        let (sender, mut receiver) = oneshot::channel();
        sender
            .send(mounted("claimed"))
            .map_err(drop)
            .expect("is sent");
        receiver.try_recv().expect("arrives").claim();
        assert!(is_mounted("claimed"));
        let again = Bundle::new(&directory.path().join("claimed"));
        again.expect_err("it is mounted, so it stays");
        let rootfs = directory.path().join("claimed/rootfs");
        let unmounted = std::process::Command::new("umount").arg(rootfs).status();
        assert!(unmounted.expect("umount").success());
    }
}
