//! The service mesh of one pod.

use std::collections::BTreeMap;

use contrast_mesh_annotation::{AnnotationError, Egress, Ingress, IngressService};

use super::{Notes, model::Pod, rules};

pub(super) fn check<'a>(pod: &Pod<'a>, notes: &mut Notes<'a>) {
    ports(pod, notes);
    if !pod.has_mesh() {
        return;
    }
    if let Some(egress) = pod.annotation("servicemesh-egress") {
        match egress.parse::<Egress>() {
            Ok(parsed) if parsed.0.is_empty() => {
                let text = (
                    "`servicemesh-egress` names no target".to_owned(),
                    "remove it, or write `name#127.x.y.z:port#host:port` or `name#transparent#host:port`"
                        .to_owned(),
                );
                notes.annotation(
                    &rules::EGRESS_WITHOUT_TARGET,
                    pod,
                    "servicemesh-egress",
                    text,
                );
            }
            Ok(_) => {}
            Err(error) => malformed(pod, &error, notes),
        }
    }
    if let Some(Err(error)) = pod
        .annotation("servicemesh-ingress")
        .map(str::parse::<Ingress>)
    {
        malformed(pod, &error, notes);
    }
    if pod.skips_initializer() {
        let text = (
            "it has the service mesh and skips the Initializer, so the sidecar waits for certificates".to_owned(),
            "remove `skip-initializer`, or the annotations of the service mesh".to_owned(),
        );
        notes.annotation(
            &rules::MESH_WITHOUT_INITIALIZER,
            pod,
            "skip-initializer",
            text,
        );
    }
}

fn malformed<'a>(pod: &Pod<'a>, error: &AnnotationError, notes: &mut Notes<'a>) {
    let form = match error.annotation {
        "servicemesh-ingress" => "`name#port#disable-tls`, or `DISABLED`",
        _ => "`name#127.x.y.z:port#host:port` or `name#transparent#host:port`",
    };
    for problem in &error.problems {
        let text = (
            format!(
                "`{}` in `{}`, character {}: {}",
                problem.entry,
                error.annotation,
                problem.character(),
                problem.reason
            ),
            format!("write entries as {form}, with `##` between them"),
        );
        notes.annotation(&rules::MESH_MALFORMED, pod, error.annotation, text);
    }
}

/// All containers of a pod share one network.
fn ports<'a>(pod: &Pod<'a>, notes: &mut Notes<'a>) {
    let mut numbers: BTreeMap<(u64, &str), &str> = BTreeMap::new();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for container in pod.containers() {
        for (path, port) in container.list_items("ports") {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let number = port["containerPort"].as_u64().unwrap_or_default();
            let name = port["name"].as_str();
            let before = numbers.insert((number, protocol), container.name());
            let twice = before.map(|other| (format!("port {number}/{protocol}"), other));
            let same_name = name.and_then(|name| {
                let other = names.insert(name, container.name())?;
                Some((format!("the port name `{name}`"), other))
            });
            if let Some((what, other)) = twice.or(same_name) {
                let text = (
                    format!("{what} is declared by `{other}` already"),
                    "give each its own port and name",
                );
                notes.container(&rules::DUPLICATE_PORT, &container, &path, text);
            }
        }
    }
}

/// How the pod serves a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// Nothing comes in there.
    Not,
    /// A client certificate is asked for: the default, or for those who are allowed.
    WithCertificate,
    /// A rule lets clients in without certificate.
    Open,
}

/// How the pod's mesh serves `port`; `None` when the annotation is malformed.
pub(super) fn served(pod: &Pod<'_>, port: u64, udp: bool) -> Option<Served> {
    // Without the annotation, the mesh is as with an empty one.
    let written = pod.annotation("servicemesh-ingress").unwrap_or_default();
    let entries = match written.parse::<Ingress>().ok()? {
        Ingress::Disabled => return Some(Served::Not),
        Ingress::Ports(entries) => entries,
    };
    let mut rules = entries.iter().filter(|entry| {
        u64::from(entry.port) == port && matches!(entry.service, IngressService::Udp) == udp
    });
    Some(match rules.next().map(|entry| &entry.service) {
        None if udp => Served::Not,
        None => Served::WithCertificate,
        Some(IngressService::Tcp { allow, .. }) if !allow.is_empty() => Served::WithCertificate,
        Some(_) => Served::Open,
    })
}
