//! `contrast policy show`.

use std::io::{self, Write};

use contrast_policy::{
    ContainerPolicy, CopyPolicy, EnvFact, MountKind, Part, PodPolicy, Stage, Stream, Template,
};
use serde::Serialize;

use super::pods;
use crate::{
    commands::policy::ShowArgs,
    diagnostic::Failure,
    output::{Output, Paint, Render},
    workspace::Workspace,
};

/// What a pod may be.
#[derive(Debug, Serialize)]
struct Shown {
    pod: String,
    /// SHA-256 of the initdata document, hex: what the hardware reports.
    hash: String,
    /// Bytes of the annotation.
    annotation_bytes: usize,
    policy: PodPolicy,
}

#[derive(Debug, Serialize)]
struct Rego(String);

impl Render for Rego {
    fn text(&self, out: &mut dyn Write, _paint: Paint) -> io::Result<()> {
        write!(out, "{}", self.0)
    }
}

pub(crate) fn run(args: &ShowArgs, workspace: &Workspace, output: &Output) -> Result<(), Failure> {
    let pod = pods::find(&args.pod, &args.paths, workspace)?;
    if args.rego {
        output.result(args.format.format, &Rego(pod.initdata.policy().to_owned()))?;
        return Ok(());
    }
    let shown = Shown {
        pod: pod.shown(),
        hash: hex::encode(pod.initdata.hash()),
        annotation_bytes: pod.initdata.to_annotation().map_or(0, |text| text.len()),
        policy: pod.policy()?,
    };
    output.result(args.format.format, &shown)?;
    Ok(())
}

impl Render for Shown {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let policy = &self.policy;
        writeln!(out, "{}", paint.strong(&self.pod))?;
        writeln!(out, "policy      {}", self.hash)?;
        writeln!(out, "annotation  {} bytes", self.annotation_bytes)?;
        writeln!(out, "pod name    {}", policy.name)?;
        writeln!(out, "namespace   {}", policy.namespace)?;
        for (name, value) in &policy.sysctls {
            writeln!(out, "sysctl      {name}={value}")?;
        }
        let allowed = |stream| policy.streams.contains(&stream);
        let streams = match (allowed(Stream::Read), allowed(Stream::Write)) {
            (false, false) => "closed to the host",
            (true, false) => "the host may read what containers print",
            (false, true) => "the host may write to standard input",
            (true, true) => "the host may read what containers print, and write to standard input",
        };
        writeln!(out, "streams     {streams}")?;
        for (name, copies) in &policy.copies {
            for copy in copies {
                writeln!(out, "copied in   {name}: {}", copied(copy))?;
            }
        }
        for container in &policy.containers {
            writeln!(out, "\n{}", paint.strong(&container.name))?;
            self::container(out, container)?;
        }
        Ok(())
    }
}

fn copied(copy: &CopyPolicy) -> String {
    match copy {
        CopyPolicy::File { content: None } => "a file with any content".to_owned(),
        CopyPolicy::File {
            content: Some(content),
        } => format!(
            "a file of {} bytes, SHA-256 {}",
            content.size, content.sha256
        ),
        CopyPolicy::Directory { files: None } => "a directory with any files".to_owned(),
        CopyPolicy::Directory { files: Some(files) } => {
            let bound = |content: &Option<_>| {
                if content.is_some() {
                    "bound"
                } else {
                    "any content"
                }
            };
            let files: Vec<String> = files
                .iter()
                .map(|(path, content)| format!("{path} ({})", bound(content)))
                .collect();
            format!("a directory with {}", files.join(", "))
        }
        CopyPolicy::Empty => "a directory that stays empty".to_owned(),
    }
}

fn container(out: &mut dyn Write, container: &ContainerPolicy) -> io::Result<()> {
    let stage = match container.stage {
        Stage::Init => "init container: ends before the next one is created",
        Stage::Sidecar => "sidecar: started before the next one is created",
        Stage::Main => "after all init containers",
    };
    writeln!(out, "  runs        {stage}")?;
    let image = &container.image;
    let repository = image
        .repositories
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    writeln!(out, "  image       {repository}@{}", image.digest)?;
    let args: Vec<String> = container.args.iter().map(template).collect();
    writeln!(out, "  arguments   {}", args.join(" "))?;
    for variable in &container.env {
        writeln!(out, "  env         {variable}")?;
    }
    for (name, fact) in &container.env_facts {
        let value = match fact {
            EnvFact::Kind(kind) => format!("<{kind}>"),
            EnvFact::Parts(parts) => template(&Template::Parts(parts.clone())),
        };
        writeln!(out, "  env         {name}={value}")?;
    }
    let groups: Vec<String> = container.groups.iter().map(u32::to_string).collect();
    writeln!(
        out,
        "  user        {}:{}, groups {}",
        container.uid,
        container.gid,
        groups.join(" ")
    )?;
    writeln!(out, "  directory   {}", container.process.cwd)?;
    let rights = match container.privileged {
        true => "PRIVILEGED".to_owned(),
        false => match container.capabilities.is_empty() {
            true => "no capabilities".to_owned(),
            false => container.capabilities.join(" "),
        },
    };
    writeln!(out, "  rights      {rights}")?;
    for mount in &container.mounts {
        let kind = match mount.kind {
            MountKind::Copy => "copied in",
            MountKind::Disk => "temporary, encrypted or in the guest's root",
            MountKind::Memory => "temporary, in memory",
            MountKind::Untrusted => "THE HOST'S, as it is",
        };
        writeln!(
            out,
            "  mount       {} ({kind}, {})",
            mount.destination,
            mount.options.join(",")
        )?;
    }
    for device in &container.devices {
        writeln!(out, "  device      {device}")?;
    }
    if container.gpus > 0 {
        writeln!(out, "  GPUs        {}", container.gpus)?;
    }
    for command in &container.exec {
        writeln!(out, "  may execute {}", command.join(" "))?;
    }
    if container.exec_output {
        writeln!(
            out,
            "  readable    what these commands print, not what the container prints"
        )?;
    }
    Ok(())
}

fn template(template: &Template) -> String {
    match template {
        Template::Fixed(text) => text.clone(),
        Template::Parts(parts) => parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Variable { env } => format!("<{env}>"),
            })
            .collect(),
    }
}
