//! Services, and the ports of the pods that they lead to.

use contrast_resources::Step;
use serde_json::Value;

use super::{
    Notes,
    mesh::{Served, served},
    model::{Pod, Resource, entries, items, keys, text},
    rules,
};

pub(super) fn check<'a>(resources: &'a [Resource], pods: &[Pod<'a>], notes: &mut Notes<'a>) {
    for service in resources
        .iter()
        .filter(|resource| resource.is("", "Service"))
    {
        let selected = pods.iter().filter(|pod| selects(service, pod));
        for pod in selected.filter(|pod| !pod.is_coordinator()) {
            check_pod(service, pod, notes);
        }
    }
}

pub(super) fn selects(service: &Resource, pod: &Pod<'_>) -> bool {
    let selector = &service.object()["spec"]["selector"];
    let labels = &pod.template["metadata"]["labels"];
    entries(selector).next().is_some()
        && service.namespace() == pod.resource.namespace()
        && entries(selector).all(|(key, value)| labels.get(key) == Some(value))
}

fn check_pod<'a>(service: &'a Resource, pod: &Pod<'a>, notes: &mut Notes<'a>) {
    let workload = pod.resource.shown();
    let spec = &service.object()["spec"];
    let outside = matches!(text(&spec["type"]), "LoadBalancer" | "NodePort");
    let mut without_mesh = false;
    for (index, port) in items(spec, "ports").iter().enumerate() {
        let path: Vec<Step> = vec!["spec".into(), "ports".into(), index.into()];
        let target = match target(pod, port) {
            Target::Port(target) => target,
            Target::Unknown(name) => {
                let text = (
                    format!(
                        "it leads to the port `{name}`, which no container of {workload} declares"
                    ),
                    "use a name that stands under `ports` of a container, or the number",
                );
                notes.resource(&rules::UNKNOWN_TARGET_PORT, service, &path, text);
                continue;
            }
        };
        let protocol = text(&port["protocol"]);
        let tcp = matches!(protocol, "" | "TCP");
        if !pod.has_mesh() {
            // Only TCP is meshed.
            without_mesh |= tcp;
            continue;
        }
        let how = match protocol {
            "" | "TCP" => served(pod, target, false),
            "UDP" => served(pod, target, true),
            _ => Some(Served::Not),
        };
        match how {
            Some(Served::Not) => {
                let advice = match (pod.annotation("servicemesh-ingress"), protocol) {
                    (Some("DISABLED"), _) => {
                        "remove `DISABLED`, or the port of the Service".to_owned()
                    }
                    (_, "UDP") => format!("add the ingress rule `name#{target}#true#udp`"),
                    _ => "use TCP or UDP".to_owned(),
                };
                let text = (
                    format!(
                        "it leads to port {target}{} of {workload}, which its service mesh does not serve",
                        if tcp {
                            String::new()
                        } else {
                            format!("/{protocol}")
                        }
                    ),
                    advice,
                );
                notes.resource(&rules::SERVICE_PORT_NOT_SERVED, service, &path, text);
            }
            Some(Served::WithCertificate) if outside => {
                let text = (
                    format!(
                        "clients from outside reach port {target} of {workload}, which asks for a certificate of the mesh"
                    ),
                    format!(
                        "add the ingress rule `name#{target}#false` for TLS without client certificate"
                    ),
                );
                notes.resource(&rules::SERVICE_NEEDS_CERTIFICATE, service, &path, text);
            }
            Some(Served::WithCertificate | Served::Open) | None => {}
        }
    }
    if without_mesh {
        let text = (
            format!("it leads to {workload}, which has no service mesh"),
            "add `contrast.edgeless.systems/servicemesh-ingress: \"\"` to its pod template, unless it speaks TLS itself",
        );
        notes.resource(
            &rules::SERVICE_WITHOUT_MESH,
            service,
            &keys(&["spec", "ports"]),
            text,
        );
    }
}

enum Target {
    Port(u64),
    /// A name that no container declares.
    Unknown(String),
}

fn target(pod: &Pod<'_>, port: &Value) -> Target {
    let written = match &port["targetPort"] {
        Value::Null => &port["port"],
        written => written,
    };
    let Some(name) = written.as_str() else {
        return Target::Port(written.as_u64().unwrap_or_default());
    };
    let mut declared = pod.containers().flat_map(|container| {
        let ports: Vec<&Value> = container
            .list_items("ports")
            .map(|(_, port)| port)
            .collect();
        ports
    });
    match declared.find(|declared| declared["name"] == name) {
        Some(declared) => Target::Port(declared["containerPort"].as_u64().unwrap_or_default()),
        None => Target::Unknown(name.to_owned()),
    }
}
