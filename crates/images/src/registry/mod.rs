//! Registries: the pulling part of the OCI distribution specification 1.1, with the token authentication of Docker's registry.

mod auth;
mod client;
mod conf;
mod files;
mod resume;

use std::{io::Read, sync::Arc, time::Duration};

use client::Client;
pub use conf::{RegistriesConf, RegistriesConfError};
pub use files::RegistryFileError;
use resume::Resuming;

use crate::{
    CredentialError, CredentialFile, Digest, ImageName,
    document::{ACCEPT, Descriptor, MANIFEST_MAX},
    origin::{By, Found, Origin, OriginError, find},
};

/// How registries are used.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Where credentials are.
    pub credentials: Option<CredentialFile>,
    /// Mirrors and exceptions.
    pub conf: RegistriesConf,
    /// Certificates of CAs, PEM, that are trusted beside the system's.
    pub ca: Option<Vec<u8>>,
    /// Bounds.
    pub limits: RegistryLimits,
}

/// What a registry may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryLimits {
    /// For a connection.
    pub connect: Duration,
    /// For the beginning of an answer, and for any pause within it.
    pub silence: Duration,
    /// Bytes per second that an answer must have on average.
    pub slowest: u64,
    /// How often something is tried.
    pub attempts: usize,
    /// Pause before the second attempt; later ones double.
    pub pause: Duration,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            slowest: 32 * 1024,
            attempts: 3,
            pause: Duration::from_millis(500),
        }
    }
}

/// A registry does not give what was asked of it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No answer, or none in time.
    #[error("no answer from {url}: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why there is none.
        reason: String,
    },
    /// Not a success.
    #[error("{url} answered with status {status}{message}")]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the registry says, after a colon; may be empty.
        message: String,
    },
    /// Not the part of a blob that was asked for.
    #[error(
        "{url} answered with another part than the one that was asked for: expected `{expected}`, found `{found}`"
    )]
    Range {
        /// What was asked.
        url: String,
        /// What was asked for.
        expected: String,
        /// What the answer says of itself.
        found: String,
    },
    /// It wants credentials and there are none, or it does not accept them.
    #[error(
        "{registry} refuses access to `{repository}`: {}",
        if *with_credentials { "it does not accept the credentials that are stored for it" } else { "no credentials are stored for it, and it wants some" }
    )]
    Denied {
        /// The registry.
        registry: String,
        /// What was wanted.
        repository: String,
        /// Whether credentials were sent.
        with_credentials: bool,
    },
    /// It wants credentials in a way that is not understood, or that is not safe.
    #[error("{registry} asks for authentication in a way that cannot be used: {reason}")]
    Challenge {
        /// The registry.
        registry: String,
        /// Why not.
        reason: String,
    },
    /// Credentials cannot be found out.
    #[error(transparent)]
    Credentials(Arc<CredentialError>),
    /// The user does not want it.
    #[error("registries.conf blocks `{prefix}`")]
    Blocked {
        /// Which rule.
        prefix: String,
    },
    /// A CA file is unusable.
    #[error("the certificates of additional CAs are unusable: {reason}")]
    Ca {
        /// Why.
        reason: String,
    },
}

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]` as in references; credentials are kept under it.
    registry: String,
    /// `https://host[:port]`.
    base: String,
    /// Path of the repository.
    repository: String,
    /// HTTP without TLS.
    insecure: bool,
}

/// All registries of the world.
#[derive(Debug)]
pub(crate) struct Registries {
    client: Client,
    conf: RegistriesConf,
}

impl Registries {
    pub(crate) fn new(options: &RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self {
            client: Client::new(options)?,
            conf: options.conf.clone(),
        })
    }

    /// Asks one place after the other, beginning with number `start`. That there is nothing is believed only when none failed.
    fn first<T>(
        &self,
        name: &ImageName,
        start: usize,
        mut ask: impl FnMut(&Endpoint) -> Result<Option<T>, OriginError>,
    ) -> Result<Option<T>, OriginError> {
        let mut failed = None;
        let endpoints = self.conf.endpoints(name)?;
        let count = endpoints.len();
        for endpoint in endpoints.iter().cycle().skip(start).take(count) {
            match ask(endpoint) {
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    fn document(&self, endpoint: &Endpoint, by: By<'_>) -> Result<Option<Vec<u8>>, OriginError> {
        let path = match by {
            By::Tag(tag) => format!("manifests/{tag}"),
            By::Digest(digest) => format!("manifests/{digest}"),
        };
        Ok(self.client.whole(endpoint, &path, ACCEPT, MANIFEST_MAX)?)
    }
}

impl Origin for Registries {
    fn shown(&self) -> String {
        "registries".to_owned()
    }

    fn find(&self, name: &ImageName) -> Result<Option<Found>, OriginError> {
        let by = match name.digest() {
            Some(digest) => By::Digest(digest),
            None => By::Tag(name.tag_or_default()),
        };
        self.first(name, 0, |endpoint| {
            find(by, |by| self.document(endpoint, by))
        })
    }

    fn blob(
        &self,
        name: &ImageName,
        blob: &Descriptor,
        attempt: usize,
    ) -> Result<Box<dyn Read + '_>, OriginError> {
        let digest: Digest = blob.digest;
        let path = format!("blobs/{digest}");
        let body = self.first(name, attempt, |endpoint| {
            Ok(Resuming::open(&self.client, endpoint, &path, blob.size)?)
        })?;
        match body {
            Some(body) => Ok(Box::new(body)),
            None => Err(RegistryError::Status {
                url: format!("{name}: {path}"),
                status: 404,
                message: ", so the image is not complete there".to_owned(),
            }
            .into()),
        }
    }
}
