//! The Initializer: first container of every confidential pod.
//!
//! It proves to the Coordinator what this pod runs, receives a mesh certificate for the key of that very connection and, if
//! the manifest says so, the workload secret, and installs them as files that the pod's other containers mount:
//!
//! | file below the base directory | mode | content |
//! | --- | --- | --- |
//! | `tls-config/mesh-ca.pem` | 0444 | mesh CA certificate of this manifest; while the overlap lasts, those before it follow |
//! | `tls-config/certChain.pem` | 0444 | leaf and intermediate, leaf first |
//! | `tls-config/coordinator-root-ca.pem` | 0444 | root CA certificate of the deployment |
//! | `tls-config/key.pem` | 0440, group 15006 (Envoy); 0400 where the Initializer may not give it to a group | private key, PKCS#8, P-256 |
//! | `secrets/workload-secret-seed` | 0400 | workload secret, 128 hex digits; only with a workload secret id |
//! | `sealed/NAME/KEY` | 0400 | sealed secrets of kind `Files` that the manifest gives the pod |
//! | `workload-secret.sock` | 0600 | socket of the workload secret: [`secret`] |
//! | `enrolment` | 0444 | how the enrolment goes, for the sidecar's metrics: [`contrast_telemetry::enrolment`] |
//! | `workload.sock` | 0666 | socket of the SPIFFE Workload API and of secret discovery for Envoy: [`spiffe`] |
//!
//! Credentials of registries (sealed secrets of kind `Registry`) go as one `config.json`, mode 0400, into the directory that
//! `CONTRAST_PULL_CREDENTIALS_DIR` names, for the guest that pulls images.
//!
//! The private ones, `key.pem`, the secrets and the socket, belong to the user that `CONTRAST_FILES_OWNER` names, else to the Initializer's own.
//!
//! The base directory is memory-backed (an `emptyDir` with medium `Memory`), so nothing secret reaches a disk.
//!
//! Then it stays, renews before the certificate ends, and follows the manifest: it hears at once of a new one and leads the
//! pod from one mesh CA to the next. Same key, atomic renames. A failed renewal keeps what is installed;
//! so does an installation that fails, which is tried again, at most twenty seconds later, until it works.
//!
//! What it does not do: it has no reference values, so it does not judge the first Coordinator that answers. A host that puts up an
//! impostor gets a pod whose certificates chain to a CA that no data owner and no other workload accepts. From then on the pod takes
//! answers of that deployment only, which the key of its root CA signs: no impostor takes over a pod that is enrolled. See
//! `docs/threat-model.md`.

mod app;
mod config;
mod enroll;
mod follow;
mod images;
mod ingress;
mod initdata;
mod install;
mod notify;
mod output;
mod pauses;
mod renew;
mod report;
mod rollover;
mod sealed;
pub mod secret;
mod socket;
pub mod spiffe;
mod storage;
mod volume_record;

pub use app::{AppError, run};
pub use config::{Command, Config};
pub use enroll::{EnrollError, Enrolled, MeshCaCertificate, enroll};
pub use images::{
    BootError, BundlePathError, PullImage, PullImageError, Registries, ServeImages,
    ServeImagesError, pull_image, serve_images,
};
pub use ingress::deny_ingress;
pub use initdata::{CheckInitdata, CheckInitdataError, check_initdata};
pub use install::{DeploymentError, InstallError, Target, install, is_installed};
pub use notify::NotifyError;
pub use renew::renewal_delay;
pub use rollover::{Credentials, Rollover};
pub use sealed::Sealed;
pub use socket::SocketError;
pub use storage::{
    StandaloneError, StandaloneOptions, StorageError, VolumeOptions, image_store, standalone,
};
pub use volume_record::{Advance, VolumeId, VolumeRecord, VolumeRecordError};
