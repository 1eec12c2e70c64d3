use contrast_images::ReferenceError;

/// A pod template for which no policy can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The image is not pinned.
    #[error("container `{container}`")]
    Image {
        /// The container.
        container: String,
        /// What is wrong with its image.
        #[source]
        source: ReferenceError,
    },
    /// Copies that could be taken for each other.
    #[error(
        "several different volumes or files are mounted at paths that end in `{name}`, and the guest can tell copies apart by that alone (`hosts`, `hostname`, \
         `resolv.conf`, `serviceaccount` and the termination log count as well); mount them at paths with different last parts"
    )]
    SameName {
        /// The last part of their paths.
        name: String,
    },
    /// The program is unknown.
    #[error(
        "container `{container}` leaves its {missing} to the image, whose configuration is not in the image cache; write \
         `command` and `args`, or add {digest} to the cache"
    )]
    UnknownProgram {
        /// The container.
        container: String,
        /// What is missing.
        missing: &'static str,
        /// Digest of its image.
        digest: String,
    },
    /// The user is unknown.
    #[error(
        "container `{container}` runs as the image's user `{user}`, and the image's /etc/passwd is not in the image cache; write \
         `securityContext.runAsUser` and `runAsGroup`"
    )]
    UnknownUser {
        /// The container.
        container: String,
        /// The image's user.
        user: String,
    },
    /// A ConfigMap or Secret is unknown.
    #[error(
        "{place} takes {what} from the {kind} `{name}`, which is not among the inputs; add the file that defines it{hint}"
    )]
    UnknownConfig {
        /// Container or volume.
        place: String,
        /// What it takes.
        what: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What else can be done; empty or with a leading comma.
        hint: String,
    },
    /// A key is not in a ConfigMap or Secret.
    #[error("{place} takes the key `{key}` from the {kind} `{name}`, which has only {found}")]
    UnknownKey {
        /// Container or volume.
        place: String,
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The keys that it has.
        found: String,
    },
    /// A field that the policy cannot bind.
    #[error("{field} of `{place}` is not supported: {reason}")]
    Unsupported {
        /// The field.
        field: String,
        /// Container, volume or pod.
        place: String,
        /// Why, and what to write instead.
        reason: &'static str,
    },
    /// A field that is missing or has another type.
    #[error("{field} of `{place}` is missing or malformed")]
    Malformed {
        /// The field.
        field: String,
        /// Container, volume or pod.
        place: String,
    },
    /// An annotation that cannot be used.
    #[error("annotation contrast.edgeless.systems/{name} of `{place}`: {reason}")]
    Annotation {
        /// Its name without the prefix.
        name: &'static str,
        /// The workload.
        place: String,
        /// Expected and found.
        reason: String,
    },
    /// The policy cannot be written.
    #[error("the policy cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

pub(super) fn unsupported(place: &str, field: &str, reason: &'static str) -> BuildError {
    BuildError::Unsupported {
        field: field.to_owned(),
        place: place.to_owned(),
        reason,
    }
}
