//! Who the service meshes of all pods together demand to talk to: names that certificates carry, and workloads.

use contrast_mesh_annotation::{Egress, Identity, Ingress, IngressService, Workload};

use super::{
    Notes,
    model::{Pod, Resource},
    rules,
    services::selects,
};
use crate::generate::services::names;

/// A pod that gets a certificate, and the names that `generate` puts into it.
struct Member<'p, 'a> {
    pod: &'p Pod<'a>,
    names: Vec<String>,
}

pub(super) fn check<'a>(resources: &'a [Resource], pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    let members: Vec<Member<'_, 'a>> = pods
        .iter()
        .filter(|pod| !pod.is_coordinator())
        .map(|pod| Member {
            pod,
            names: certificate_names(resources, pod),
        })
        .collect();
    for member in members.iter().filter(|member| member.pod.has_mesh()) {
        egress(member.pod, &members, notes);
        ingress(member.pod, &members, notes);
    }
}

fn certificate_names(resources: &[Resource], pod: &Pod<'_>) -> Vec<String> {
    let own = pod.resource.name().to_owned();
    let services = resources
        .iter()
        .filter(|resource| resource.is("", "Service") && selects(resource, pod));
    std::iter::once(own)
        .chain(services.flat_map(|service| names(service.name(), service.namespace())))
        .collect()
}

/// A value that does not follow the grammar has been told.
fn egress<'a>(pod: &Pod<'a>, members: &[Member<'_, 'a>], notes: &mut Notes<'a>) {
    const NAME: &str = "servicemesh-egress";
    let Some(Ok(Egress(entries))) = pod.annotation(NAME).map(str::parse) else {
        return;
    };
    for entry in entries {
        match &entry.identity {
            Identity::AnyMember => {}
            Identity::Workloads(workloads) => {
                unknown(pod, NAME, entry.name.as_str(), workloads, members, notes);
            }
            Identity::Target => target(pod, &entry, members, notes),
        }
    }
}

fn target<'a>(
    pod: &Pod<'a>,
    entry: &contrast_mesh_annotation::EgressEntry,
    members: &[Member<'_, 'a>],
    notes: &mut Notes<'a>,
) {
    let host = entry.remote.host.to_string();
    let host = host.trim_matches(['[', ']']);
    let carriers: Vec<&Pod<'_>> = members
        .iter()
        .filter(|member| member.names.iter().any(|name| name == host))
        .map(|member| member.pod)
        .collect();
    match carriers.as_slice() {
        [_] => {}
        [] => {
            let text = (
                format!(
                    "the egress `{}` dials `{host}`, a name that no workload of these files gets into its certificate",
                    entry.name
                ),
                "correct it, add the Service of that name, name the workload with `#identity=`, or add the name to the workload's SANs in the manifest",
            );
            notes.annotation(
                &rules::EGRESS_TARGET_UNKNOWN,
                pod,
                "servicemesh-egress",
                text,
            );
        }
        [first, ..] => {
            let all: Vec<String> = carriers.iter().map(|pod| pod.resource.shown()).collect();
            let text = (
                format!(
                    "the egress `{}` dials `{host}`, and {} have this name in their certificates, so each of them may answer",
                    entry.name,
                    all.join(" and ")
                ),
                format!(
                    "name who is meant, for example `#identity={}`",
                    workload(first)
                ),
            );
            notes.annotation(
                &rules::EGRESS_TARGET_AMBIGUOUS,
                pod,
                "servicemesh-egress",
                text,
            );
        }
    }
}

fn ingress<'a>(pod: &Pod<'a>, members: &[Member<'_, 'a>], notes: &mut Notes<'a>) {
    const NAME: &str = "servicemesh-ingress";
    let Some(Ok(Ingress::Ports(entries))) = pod.annotation(NAME).map(str::parse) else {
        return;
    };
    for entry in entries {
        if let IngressService::Tcp { allow, .. } = &entry.service {
            unknown(pod, NAME, entry.name.as_str(), allow, members, notes);
        }
    }
}

/// Tells the workloads that are none of these files'.
fn unknown<'a>(
    pod: &Pod<'a>,
    annotation: &'static str,
    entry: &str,
    workloads: &[Workload],
    members: &[Member<'_, 'a>],
    notes: &mut Notes<'a>,
) {
    let unknown = workloads
        .iter()
        .filter(|workload| !members.iter().any(|member| is(member.pod, workload, pod)));
    for workload in unknown {
        let text = (
            format!(
                "the entry `{entry}` of `{annotation}` names the workload `{workload}`, and none of these files defines it as a confidential one"
            ),
            "correct it, as `name`, `namespace/name` or `namespace/kind/name`, or name its file, too",
        );
        notes.annotation(&rules::MESH_WORKLOAD_UNKNOWN, pod, annotation, text);
    }
}

/// Whether `pod` is the workload that an annotation of `own` names.
fn is(pod: &Pod<'_>, workload: &Workload, own: &Pod<'_>) -> bool {
    let namespace = workload
        .namespace
        .as_deref()
        .unwrap_or_else(|| own.resource.namespace());
    let kind = workload.kind.as_deref();
    pod.resource.name() == workload.name
        && pod.resource.namespace() == namespace
        && kind.is_none_or(|kind| pod.resource.kind().eq_ignore_ascii_case(kind))
}

/// A workload as annotations name it, in full.
fn workload(pod: &Pod<'_>) -> String {
    let resource = pod.resource;
    let kind = resource.kind().to_ascii_lowercase();
    format!("{}/{kind}/{}", resource.namespace(), resource.name())
}
