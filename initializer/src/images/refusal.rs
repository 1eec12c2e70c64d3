//! Why an image is not pulled, in the words and codes of ttrpc.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use contrast_images::{
    BundleError, Denied, ImageError, LayerError, OriginError, RegistryError, StoreError,
};
use contrast_ttrpc::{Code, Status};

/// With all of its causes. None of them holds credentials.
pub(super) fn status(code: Code, error: impl Into<anyhow::Error>) -> Status {
    Status::new(code, format!("{:#}", error.into()))
}

/// What kind of a reason it is: whether the host, the registry or the pod has to change.
pub(super) fn code(error: &ImageError) -> Code {
    match error {
        ImageError::NotFound { .. } => Code::NotFound,
        ImageError::Origin { source, .. } => of_origin(source),
        ImageError::Layer { source, .. } => of_layer(source),
        ImageError::NoDigest { .. } => Code::InvalidArgument,
        // Content that the digest stands for, and that no guest can use.
        _ => Code::DataLoss,
    }
}

/// What may help in a guest, whose credentials come sealed, and are in `file`.
pub(super) fn advice(error: &ImageError, file: &Path) -> Option<String> {
    let Denied {
        registry,
        with_credentials,
    } = error.denied()?;
    let shown = file.display();
    let seal = "`contrast seal registry`";
    Some(match (with_credentials, file.exists()) {
        (true, _) => format!("they are from {shown}; seal others ({seal})"),
        (false, true) => format!("{shown} has none for {registry}; seal some ({seal})"),
        (false, false) => format!(
            "expected some in {shown}, found no such file: the pod has no sealed credentials ({seal}), or its Initializer has not written them yet"
        ),
    })
}

fn of_origin(error: &OriginError) -> Code {
    match error {
        OriginError::Registry(error) => match error {
            RegistryError::Denied { .. }
            | RegistryError::Challenge { .. }
            | RegistryError::Credentials(_) => Code::PermissionDenied,
            RegistryError::Blocked { .. } | RegistryError::Ca { .. } => Code::FailedPrecondition,
            _ => Code::Unavailable,
        },
        OriginError::Read { .. } => Code::Unavailable,
        OriginError::Local(_) => Code::Internal,
        _ => Code::DataLoss,
    }
}

fn of_layer(error: &LayerError) -> Code {
    match error {
        LayerError::Read(_) => Code::Unavailable,
        LayerError::Room { .. } => Code::ResourceExhausted,
        LayerError::Write { source, .. } | LayerError::Store { source } => of_system(source),
        _ => Code::DataLoss,
    }
}

/// Why a store is not opened.
pub(super) fn of_store(error: &StoreError) -> Code {
    match error {
        StoreError::File { source, .. } => of_system(source),
        _ => Code::Internal,
    }
}

/// Why no root file system is put together.
pub(super) fn of_bundle(error: &BundleError) -> Code {
    match error {
        BundleError::File { source, .. } => of_system(source),
        _ => Code::Internal,
    }
}

/// A file system that is full is for somebody to enlarge; all else is not expected.
fn of_system(error: &io::Error) -> Code {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contrast_images::Digest;

    use super::*;

    #[test]
    fn full_file_system_is_a_matter_of_resources() {
        let of = |kind: ErrorKind| {
            let source = || io::Error::from(kind);
            let layer = |source| ImageError::Layer {
                digest: Digest::of(b""),
                source: Arc::new(source),
            };
            let written = code(&layer(LayerError::Write {
                entry: "file".to_owned(),
                source: source(),
            }));
            let stored = code(&layer(LayerError::Store { source: source() }));
            let opened = of_store(&StoreError::File {
                action: "make",
                path: "/store".into(),
                source: source(),
            });
            let bundle = of_bundle(&BundleError::File {
                action: "make",
                path: "/bundle".into(),
                source: source(),
            });
            assert_eq!([written; 3], [stored, opened, bundle]);
            written
        };
        assert_eq!(of(ErrorKind::StorageFull), Code::ResourceExhausted);
        assert_eq!(of(ErrorKind::QuotaExceeded), Code::ResourceExhausted);
        assert_eq!(of(ErrorKind::PermissionDenied), Code::Internal);
    }
}
