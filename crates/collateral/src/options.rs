use std::{io, path::PathBuf};

use clap::Args;

use crate::{Bundle, BundleError, Collateral, EndpointError, Endpoints, HttpTransport};

/// Where collateral comes from, as flags and environment variables of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[group(id = "collateral options")]
#[command(next_help_heading = "Collateral of CPU vendors")]
pub struct Options {
    /// Directory with collateral, as `contrast collateral fetch` writes it. Nothing is fetched beside it, unless
    /// --collateral-proxy is given too
    #[arg(long, env = "CONTRAST_COLLATERAL", value_name = "DIR")]
    pub collateral: Option<PathBuf>,

    /// Base URL of a service that answers in place of AMD's KDS and Intel's PCS, for example a caching proxy or a PCCS
    #[arg(long, env = "CONTRAST_COLLATERAL_PROXY", value_name = "URL")]
    pub collateral_proxy: Option<String>,

    /// Directory that keeps fetched collateral
    #[arg(long, env = "CONTRAST_COLLATERAL_CACHE", value_name = "DIR")]
    pub collateral_cache: Option<PathBuf>,
}

/// Options that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The bundle.
    #[error("cannot use --collateral")]
    Bundle(#[from] BundleError),
    /// The base URL.
    #[error("cannot use --collateral-proxy")]
    Proxy(#[from] EndpointError),
    /// The cache.
    #[error("cannot use {} as --collateral-cache", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Options {
    /// What the options describe; the vendors themselves are asked when there is neither a directory nor a proxy. Reads the
    /// directory; fetches nothing yet.
    ///
    /// # Errors
    /// When a directory or a URL cannot be used.
    pub fn open(&self) -> Result<Collateral, OptionsError> {
        let mut collateral = Collateral::offline();
        if let Some(path) = &self.collateral {
            collateral = collateral.with_bundle(Bundle::read(std::slice::from_ref(path))?);
        }
        if let Some(path) = &self.collateral_cache {
            collateral = collateral
                .with_cache(path)
                .map_err(|source| OptionsError::Cache {
                    path: path.clone(),
                    source,
                })?;
        }
        let endpoints = match (&self.collateral_proxy, &self.collateral) {
            (Some(base), _) => Some(Endpoints::at(base)?),
            (None, Some(_)) => None,
            (None, None) => Some(Endpoints::vendors()),
        };
        Ok(match endpoints {
            Some(endpoints) => collateral.with_vendors(endpoints, Box::<HttpTransport>::default()),
            None => collateral,
        })
    }
}
