//! Registry options that stand in files, for all who take them from a command line.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{RegistriesConf, RegistriesConfError, RegistryOptions};

/// A file that says how registries are asked is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no `registries.conf`.
    #[error("{} is not usable", path.display())]
    Conf {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RegistriesConfError,
    },
}

impl RegistryOptions {
    /// Reads mirrors and exceptions from `conf` (containers-registries.conf(5), version 2) and certificates of CAs (PEM) from each of `ca`.
    /// Without credentials.
    ///
    /// # Errors
    /// When a file cannot be read, or `conf` is in another format. Certificates are looked at when a [`Resolver`](crate::Resolver) is made.
    pub fn of_files(conf: Option<&Path>, ca: &[PathBuf]) -> Result<Self, RegistryFileError> {
        let conf = match conf {
            None => RegistriesConf::default(),
            Some(path) => {
                let text = read(path)?;
                RegistriesConf::parse(&String::from_utf8_lossy(&text)).map_err(|source| {
                    RegistryFileError::Conf {
                        path: path.to_owned(),
                        source,
                    }
                })?
            }
        };
        let mut certificates = Vec::new();
        for path in ca {
            certificates.extend(read(path)?);
            certificates.push(b'\n');
        }
        Ok(Self {
            conf,
            ca: (!certificates.is_empty()).then_some(certificates),
            ..Self::default()
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryFileError> {
    fs::read(path).map_err(|source| RegistryFileError::Read {
        path: path.to_owned(),
        source,
    })
}
