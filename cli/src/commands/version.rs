//! `contrast version`: what this build is and can do.

use std::io::{self, Write};

use clap::ValueEnum as _;
use serde::Serialize;

use crate::{
    args::{ReferencePlatform, VersionArgs},
    diagnostic::Failure,
    generate::{Injected, Platform, injected, reference_values},
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
    /// Only when asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// What `--verbose` adds.
#[derive(Debug, Serialize)]
struct Details {
    /// Images that `generate` injects unless they are replaced.
    images: Vec<Injected>,
    /// What pods of each platform run on, and what it takes for a manifest to trust them.
    reference_values: Vec<ReferenceValues>,
}

#[derive(Debug, Serialize)]
struct ReferenceValues {
    platform: &'static str,
    runtime_class: &'static str,
    /// As `generate` writes them into a new manifest; empty fields are the operator's to fill in. Nothing for the software TEE, whose root
    /// each of its directories has.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<serde_json::Value>,
}

impl Details {
    fn new() -> Self {
        Self {
            images: injected(),
            reference_values: Platform::ALL
                .into_iter()
                .map(|platform| ReferenceValues {
                    platform: platform.display(),
                    runtime_class: platform.class(),
                    values: reference_values(platform),
                })
                .collect(),
        }
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "images:")?;
        for image in &self.images {
            writeln!(out, "  {}: {}", image.name, image.reference)?;
        }
        writeln!(out, "reference values:")?;
        for values in &self.reference_values {
            writeln!(
                out,
                "  {}, runtime class {}",
                values.platform, values.runtime_class
            )?;
            if let Some(values) = &values.values {
                let text = serde_json::to_string_pretty(values)?;
                writeln!(out, "    {}", text.replace('\n', "\n    "))?;
            }
        }
        Ok(())
    }
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
        writeln!(out, "software TEE: {software_tee}")?;
        match &self.details {
            Some(details) => details.text(out),
            None => Ok(()),
        }
    }
}

/// Prints the version.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn run(args: VersionArgs, output: &Output) -> Result<(), Failure> {
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
        details: args.verbose.then(Details::new),
    };
    output.result(args.format.format, &version)?;
    Ok(())
}
