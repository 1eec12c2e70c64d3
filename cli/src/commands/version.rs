//! `contrast version`: what this build is and can do.

use std::io::{self, Write};

use clap::ValueEnum as _;
use serde::Serialize;

use crate::{
    args::{FormatArgs, ReferencePlatform},
    diagnostic::Failure,
    output::{Output, Paint, Render},
};

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    /// Protobuf package that the user API client speaks.
    protocol: &'static str,
    platforms: Vec<String>,
    /// Whether this build accepts evidence of a software TEE when a manifest says so.
    software_tee: bool,
}

impl Render for Version {
    fn text(&self, out: &mut dyn Write, _: Paint) -> io::Result<()> {
        writeln!(out, "contrast {}", self.version)?;
        writeln!(out, "protocol: {}", self.protocol)?;
        writeln!(out, "platforms: {}", self.platforms.join(", "))?;
        let software_tee = if self.software_tee {
            "yes, INSECURE"
        } else {
            "no"
        };
        writeln!(out, "software TEE: {software_tee}")
    }
}

/// Prints the version.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn run(args: FormatArgs, output: &Output) -> Result<(), Failure> {
    let platforms = ReferencePlatform::value_variants()
        .iter()
        .filter_map(|platform| platform.to_possible_value())
        .map(|value| value.get_name().to_owned())
        .collect();
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        protocol: "contrast.v1.user",
        platforms,
        software_tee: cfg!(feature = "software-tee"),
    };
    output.result(args.format, &version)?;
    Ok(())
}
