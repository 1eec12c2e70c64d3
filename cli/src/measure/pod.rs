//! `contrast measure pod`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::PathBuf,
};

use contrast_measure::{Basis, ContainerCpu, MilliCpu, PodError, PodVcpus};
use contrast_resources::pod_template_path;
use serde::Serialize;
use serde_json::Value;

use crate::{
    commands::measure::PodArgs,
    deployment,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
};

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Pods(Vec<Pod>);

/// A pod and its vCPUs.
#[derive(Debug, Serialize)]
struct Pod {
    /// Kind and name.
    pod: String,
    namespace: String,
    vcpus: u32,
    /// Which sum decides: `none`, `containers`, `init containers` or `pod`.
    basis: &'static str,
    /// What is rounded up, thousandths of a CPU.
    need_millicpu: u64,
    /// What the pod itself states.
    pod_millicpu: Option<u64>,
    gpus: u64,
    containers: Vec<Container>,
    /// How many vCPUs Kata chooses from the limits that the kubelet passes on.
    vcpus_by_kata: u64,
    /// How many vCPUs the VM is launched with: what `contrast generate` writes into the manifest.
    vcpus_launched: u32,
}

#[derive(Debug, Serialize)]
struct Container {
    name: String,
    /// `container`, `sidecar` or `init container`.
    role: String,
    /// What it contributes, thousandths of a CPU.
    need_millicpu: u64,
    limit_millicpu: Option<u64>,
    request_millicpu: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum MeasureError {
    #[error("the vCPUs of {pod} cannot be computed")]
    Pod {
        pod: String,
        #[source]
        source: PodError,
    },
    #[error("no pod in {}", .paths.join(", "))]
    NoPods { paths: Vec<String> },
}

impl Diagnose for MeasureError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

pub(crate) fn run(args: &PodArgs, output: &Output) -> Result<(), Failure> {
    let mut files = BTreeSet::new();
    for path in &args.paths {
        deployment::collect(path, &mut files)?;
    }
    let mut pods = Vec::new();
    for file in files {
        for object in deployment::objects(&file)? {
            pods.extend(measure(&object)?);
        }
    }
    if pods.is_empty() {
        let quoted = |path: &PathBuf| format!("`{}`", path.display());
        let paths = args.paths.iter().map(quoted).collect();
        return Err(MeasureError::NoPods { paths }.into());
    }
    let pods = Pods(pods);
    output.result(args.format.format, &pods)?;
    for pod in pods
        .0
        .iter()
        .filter(|pod| pod.vcpus_by_kata != u64::from(pod.vcpus))
    {
        let (name, by_kata, vcpus) = (&pod.pod, pod.vcpus_by_kata, pod.vcpus);
        output.warning(&match by_kata > u64::from(vcpus) {
            true => format!(
                "Kata gives {name} {by_kata} vCPUs, not {vcpus}, since sidecars run beside later init containers: the digest for {by_kata} \
                 is the one that evidence will show"
            ),
            false => format!(
                "Kata on its own gives {name} {by_kata} vCPUs, not {vcpus}: it knows limits only, and of init containers the largest; \
                 `contrast generate` adds the annotation that makes it {vcpus}"
            ),
        });
    }
    Ok(())
}

/// The pod that an object describes, if it describes one.
fn measure(object: &Value) -> Result<Option<Pod>, MeasureError> {
    let Some(path) = pod_template_path(object) else {
        return Ok(None);
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]).or_else(|| text(&metadata["generateName"]));
    let kind = text(&object["kind"]).unwrap_or_default();
    let shown = format!("{kind}/{}", name.unwrap_or_default());
    let template = path
        .iter()
        .try_fold(object, |value, step| step.of(value))
        .unwrap_or(&Value::Null);
    let pod = PodVcpus::of(&template["spec"]).map_err(|source| MeasureError::Pod {
        pod: shown.clone(),
        source,
    })?;
    Ok(Some(Pod {
        pod: shown,
        namespace: text(&metadata["namespace"]).unwrap_or_else(|| "default".into()),
        vcpus: pod.vcpus.get(),
        basis: match pod.basis {
            Basis::Containers => "containers",
            Basis::InitContainers => "init containers",
            Basis::Pod => "pod",
            _ => "none",
        },
        need_millicpu: pod.need.0,
        pod_millicpu: pod.pod.map(|need| need.0),
        gpus: pod.gpus,
        containers: pod.containers.into_iter().map(Container::from).collect(),
        vcpus_by_kata: pod.by_kata,
        vcpus_launched: pod.launched.get(),
    }))
}

impl From<ContainerCpu> for Container {
    fn from(container: ContainerCpu) -> Self {
        let thousandths = |value: MilliCpu| value.0;
        Self {
            need_millicpu: container.need().0,
            limit_millicpu: container.limit.map(thousandths),
            request_millicpu: container.request.map(thousandths),
            role: container.role.to_string(),
            name: container.name,
        }
    }
}

impl Render for Pods {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        for (index, pod) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            let noun = if pod.vcpus == 1 { "vCPU" } else { "vCPUs" };
            let title = format!("{}: {} {noun}", pod.pod, pod.vcpus);
            writeln!(out, "{}", paint.strong(&title))?;
            writeln!(out, "  because  {}", pod.reason())?;
            for container in &pod.containers {
                writeln!(out, "  {}", container.line())?;
            }
            if let Some(need) = pod.pod_millicpu {
                writeln!(out, "  {:<15}  {:<20}  {need}m", "pod", "spec.resources")?;
            }
            if pod.gpus > 0 {
                writeln!(out, "  {:<15}  {}", "GPUs", pod.gpus)?;
            }
        }
        Ok(())
    }
}

impl Pod {
    fn reason(&self) -> String {
        let need = self.need_millicpu;
        let what = match self.basis {
            "containers" => "containers and sidecars need",
            "init containers" => "init containers need",
            "pod" => "the pod states",
            _ => return "nothing has CPU resources".into(),
        };
        let whole = self.vcpus.saturating_sub(1);
        format!("{what} {need}m, rounded up to {whole}; 1 more is for the guest itself")
    }
}

impl Container {
    fn line(&self) -> String {
        let source = match (self.limit_millicpu, self.request_millicpu) {
            (None, None) => "no CPU resources",
            (Some(limit), request) if request.is_none_or(|request| request <= limit) => "limit",
            _ => "request",
        };
        format!(
            "{:<15}  {:<20}  {}m ({source})",
            self.role, self.name, self.need_millicpu
        )
    }
}
