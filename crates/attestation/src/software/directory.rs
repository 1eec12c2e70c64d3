//! PEM files of a software TEE. Private keys on disk are its purpose; nothing else in the project writes one.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use der::{Decode, Encode};
use x509_cert::Certificate;
use zeroize::Zeroizing;

use super::SoftwareTeeError;

/// PEM label of an X.509 certificate (RFC 7468 section 5).
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
/// PEM label of a PKCS#8 private key (RFC 7468 section 10).
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Writes `der` to the new file `directory/name`, mode 0600 (on Unix). Makes the directory with mode 0700.
pub(super) fn write(
    directory: &Path,
    name: &str,
    label: &str,
    der: &[u8],
) -> Result<(), SoftwareTeeError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| SoftwareTeeError::Write { path, source }
    };
    let mut builder = DirBuilder::new();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        builder.mode(0o700);
        options.mode(0o600);
    }
    builder
        .recursive(true)
        .create(directory)
        .map_err(error(directory))?;
    let path = directory.join(name);
    let text = Zeroizing::new(pem::encode(&pem::Pem::new(label, der)));
    let mut file = options.open(&path).map_err(error(&path))?;
    file.write_all(text.as_bytes()).map_err(error(&path))
}

/// Reads what [`write`] wrote.
pub(super) fn read(
    directory: &Path,
    name: &str,
    label: &'static str,
) -> Result<Zeroizing<Vec<u8>>, SoftwareTeeError> {
    let path: PathBuf = directory.join(name);
    let text = match fs::read(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(source) => return Err(SoftwareTeeError::Read { path, source }),
    };
    match pem::parse(&*text) {
        Ok(block) if block.tag() == label => Ok(Zeroizing::new(block.into_contents())),
        _ => Err(content(directory, name, label)),
    }
}

/// Reads a certificate, DER and parsed, that must be for `public_key` (SubjectPublicKeyInfo, DER).
pub(super) fn read_certificate(
    directory: &Path,
    name: &str,
    public_key: &[u8],
) -> Result<(Vec<u8>, Certificate), SoftwareTeeError> {
    let der = read(directory, name, CERTIFICATE)?;
    let parsed =
        Certificate::from_der(&der).map_err(|_| content(directory, name, "X.509 certificate"))?;
    match parsed.tbs_certificate().subject_public_key_info().to_der() {
        Ok(certified) if certified == public_key => Ok((der.to_vec(), parsed)),
        _ => Err(content(directory, name, "certificate of the key beside it")),
    }
}

pub(super) fn content(directory: &Path, name: &str, expected: &'static str) -> SoftwareTeeError {
    SoftwareTeeError::Content {
        path: directory.join(name),
        expected,
    }
}
