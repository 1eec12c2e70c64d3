//! `contrast generate`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use contrast_attestation::Tee;
use contrast_images::{CredentialFile, RegistryFileError, RegistryOptions};

use crate::{
    args::{GenerateArgs, ReferencePlatform},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    generate::{
        self, Destination, ImageOptions, Mode, Options, Outcome, Platform, ReferenceValuesChoice,
    },
    output::{LayerProgress, Output, Paint, Render},
    workspace::{IMAGE_CACHE, MANIFEST, SEEDSHARE_OWNER_KEY, WORKLOAD_OWNER_KEY, Workspace},
};

#[derive(Debug, thiserror::Error)]
#[error("the platform `{platform}` needs the directory of a software TEE")]
struct NoSoftwareTee {
    platform: &'static str,
}

impl Diagnose for NoSoftwareTee {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        vec!["make one with `contrast insecure-tee init DIR` and name it with `--insecure-software-tee DIR`".into()]
    }
}

impl Render for Outcome {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        if let Some(diff) = &self.diff {
            return write!(out, "{diff}");
        }
        for workload in &self.workloads {
            let injected = match workload.injected.is_empty() {
                true => String::new(),
                false => format!(" (with {})", workload.injected.join(", ")),
            };
            let role = if workload.coordinator {
                " (coordinator)"
            } else {
                ""
            };
            writeln!(
                out,
                "{} {}/{}{role}: policy {}, {} {}{injected}",
                workload.kind,
                workload.namespace,
                workload.name,
                workload.policy,
                workload.vcpus,
                if workload.vcpus == 1 { "vCPU" } else { "vCPUs" },
            )?;
        }
        for policy in &self.kept_coordinators {
            writeln!(out, "kept Coordinator policy {policy}")?;
        }
        writeln!(
            out,
            "manifest {}: {}",
            self.manifest.display(),
            paint.strong(&self.manifest_hash)
        )?;
        for gap in &self.fill_in {
            writeln!(out, "fill in: {gap}")?;
        }
        for path in &self.written {
            writeln!(out, "wrote {}", path.display())?;
        }
        for path in &self.outdated {
            writeln!(out, "out of date: {}", path.display())?;
        }
        if self.written.is_empty() && self.outdated.is_empty() {
            writeln!(out, "everything is up to date, no file changed")?;
        }
        Ok(())
    }
}

/// Generates policies and manifest.
///
/// # Errors
/// When an input cannot be used; no file has been changed then.
pub(super) fn run(
    args: &GenerateArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let keys = |given: &[PathBuf], default: &str| match given.is_empty() {
        true => (vec![workspace.path(default)], true),
        false => (given.to_vec(), false),
    };
    let (workload_owner_keys, create_workload_owner_key) =
        keys(&args.add_workload_owner_key, WORKLOAD_OWNER_KEY);
    let (seedshare_owner_keys, create_seedshare_owner_key) =
        keys(&args.add_seedshare_owner_key, SEEDSHARE_OWNER_KEY);
    let options = Options {
        paths: args.paths.clone(),
        manifest: workspace.choose(args.manifest.as_deref(), MANIFEST),
        images: images(args, workspace)?,
        reference_values: reference_values(args)?,
        workload_owner_keys,
        seedshare_owner_keys,
        create_workload_owner_key,
        create_seedshare_owner_key,
        workload_owner_threshold: args.workload_owner_threshold,
        seedshare_threshold: args.seedshare_threshold,
        disable_updates: args.disable_updates,
        keep_coordinator: args.keep_coordinator,
        skip_initializer: args.skip_initializer,
        skip_service_mesh: args.skip_service_mesh,
        inject_image_store: args.inject_image_store,
        image_replacements: args.image_replacements.clone(),
        require_digests: args.require_digests,
        pod_template_paths: args.pod_template_path.clone(),
        destination: args
            .output
            .as_deref()
            .map_or(Destination::InPlace, Destination::parse),
        mode: match (args.check, args.diff) {
            (true, _) => Mode::Check,
            (false, true) => Mode::Diff,
            (false, false) => Mode::Write,
        },
    };
    let progress = LayerProgress::new(output);
    let outcome = generate::run(&options, &progress)?;
    drop(progress);
    for notice in &outcome.notices {
        output.warning(notice);
    }
    if options
        .reference_values
        .iter()
        .any(|choice| matches!(choice, ReferenceValuesChoice::Insecure { .. }))
    {
        output.warning("INSECURE: the manifest accepts a software TEE, which protects nothing");
    }
    if options.mode == Mode::Write
        && let Some(resources) = &outcome.resources
    {
        output.raw(resources.as_bytes())?;
        for path in &outcome.written {
            output.note(&format!("wrote {}", path.display()));
        }
        return Ok(());
    }
    output.result(args.format.format, &outcome)?;
    match options.mode == Mode::Check && !outcome.outdated.is_empty() {
        true => Err(OutOfDate.into()),
        false => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("generated files are out of date")]
struct OutOfDate;

impl Diagnose for OutOfDate {
    fn exit(&self) -> Exit {
        Exit::OutOfDate
    }

    fn hints(&self) -> Vec<String> {
        vec!["see what would change with `--diff`; run `contrast generate` without `--check` to change it".into()]
    }
}

impl Diagnose for RegistryFileError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

fn images(args: &GenerateArgs, workspace: &Workspace) -> Result<ImageOptions, RegistryFileError> {
    let registries = RegistryOptions {
        credentials: CredentialFile::of_environment(|name| std::env::var_os(name)),
        ..RegistryOptions::of_files(args.registries_conf.as_deref(), args.registry_ca.as_slice())?
    };
    Ok(ImageOptions {
        cache: workspace.choose(args.image_cache.as_deref(), IMAGE_CACHE),
        sources: args.image_source.clone(),
        registries: (!args.offline).then_some(registries),
        refresh_tags: args.refresh_tags,
    })
}

fn reference_values(args: &GenerateArgs) -> Result<Vec<ReferenceValuesChoice>, NoSoftwareTee> {
    let insecure = |tee, platform| match &args.insecure_software_tee {
        Some(directory) => Ok(ReferenceValuesChoice::Insecure {
            directory: directory.clone(),
            tee,
        }),
        None => Err(NoSoftwareTee { platform }),
    };
    let metal = |platform| Ok(ReferenceValuesChoice::Metal(platform));
    args.reference_values
        .iter()
        .map(|platform| match platform {
            ReferencePlatform::MetalQemuSnp => metal(Platform::MetalQemuSnp),
            ReferencePlatform::MetalQemuSnpGpu => metal(Platform::MetalQemuSnpGpu),
            ReferencePlatform::MetalQemuTdx => metal(Platform::MetalQemuTdx),
            ReferencePlatform::MetalQemuTdxGpu => metal(Platform::MetalQemuTdxGpu),
            ReferencePlatform::InsecureSnp => insecure(Tee::Snp, "insecure-snp"),
            ReferencePlatform::InsecureTdx => insecure(Tee::Tdx, "insecure-tdx"),
        })
        .collect()
}
