//! What no schema says about rendered objects: that names, ports and labels are those of what they mean.

#[cfg(test)]
pub(super) mod mistakes;
mod monitors;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

const PEERS: &str = "coordinator-peers";
const PEER_PORT: u64 = 7778;
const OPS_PORT: u64 = 9102;
/// Labels without which an object cannot be told from others.
const LABELS: [&str; 6] = [
    "name",
    "instance",
    "component",
    "part-of",
    "version",
    "managed-by",
];
/// Bytes of a label's value, by Kubernetes.
const LABEL_MAX: usize = 63;
/// Kinds that belong to no namespace.
const OF_THE_CLUSTER: [&str; 1] = ["RuntimeClass"];

/// What the documents of the repository say.
#[derive(Debug)]
pub(super) struct Facts {
    /// Ports of the Coordinator.
    ports: BTreeSet<u64>,
    /// Paths of its probes.
    probes: BTreeSet<String>,
    /// Runtime classes, without versions.
    classes: BTreeSet<String>,
}

impl Facts {
    /// From the table of ports in ARCHITECTURE.md, the table of platforms and the configuration of Prometheus.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let text = |name: &str| {
            fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))
        };
        let architecture = text("ARCHITECTURE.md")?;
        let section = architecture.split("## Ports of the Coordinator").nth(1);
        let section = section.context("ARCHITECTURE.md: expected the ports of the Coordinator")?;
        let section = section.split("\n## ").next().unwrap_or_default();
        let cells =
            |line: &str, cell: usize| line.split('|').nth(cell).map(str::trim).map(str::to_owned);
        let ports = section
            .lines()
            .filter_map(|line| cells(line, 1)?.parse().ok());
        let probes = section
            .split("/probe/{")
            .nth(1)
            .and_then(|rest| rest.split('}').next())
            .context("ARCHITECTURE.md: expected the paths of probes")?;
        let prometheus = text(monitors::PROMETHEUS)?;
        ensure!(
            prometheus.contains(&format!("job_name: {}\n", monitors::JOB)),
            "{}: expected the job {}, by which the chart's monitors go",
            monitors::PROMETHEUS,
            monitors::JOB
        );
        let platforms = text("docs/reference/platforms.md")?;
        let classes = platforms.lines().filter_map(|line| cells(line, 2));
        let classes = classes.filter(|class| class.starts_with("`contrast-"));
        let facts = Self {
            ports: ports.collect(),
            probes: probes
                .split(',')
                .map(|name| format!("/probe/{name}"))
                .collect(),
            classes: classes
                .map(|class| class.trim_matches('`').to_owned())
                .collect(),
        };
        ensure!(
            facts.ports.contains(&PEER_PORT)
                && facts.ports.contains(&OPS_PORT)
                && facts.classes.len() > 1,
            "expected ports in ARCHITECTURE.md and classes in docs/reference/platforms.md, found {facts:?}"
        );
        Ok(facts)
    }
}

/// Everything that is wrong.
pub(super) fn check(objects: &[Value], facts: &Facts) -> Vec<String> {
    let mut check = Check {
        all: objects,
        facts,
        problems: Vec::new(),
    };
    let mut seen = BTreeSet::new();
    for object in objects {
        if !seen.insert(shown(object)) {
            check.say(object, "is there twice");
        }
        check.metadata(object);
        match object["kind"].as_str().unwrap_or_default() {
            "Service" => check.service(object),
            "StatefulSet" => {
                check.workload(object);
                check.coordinator(object);
            }
            "DaemonSet" => {
                check.workload(object);
                check.installer(object);
            }
            "Deployment" => {
                check.workload(object);
                check.forwarder(object);
            }
            "PodDisruptionBudget" => check.budget(object),
            "NetworkPolicy" => check.network(object),
            "RuntimeClass" => check.class(object),
            "ServiceMonitor" => check.monitor(object, "endpoints", "Service"),
            "PodMonitor" => check.monitor(object, "podMetricsEndpoints", "pods"),
            "ConfigMap" => {}
            other => check.say(object, format!("nobody checks what a {other} means")),
        }
    }
    check.problems
}

struct Check<'a> {
    all: &'a [Value],
    facts: &'a Facts,
    problems: Vec<String>,
}

fn shown(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!(
        "{} {}/{}",
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"])
    )
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether a selector, which must not be empty, takes these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = map(selector);
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

/// Ports of a template's containers, by their names.
fn ports(template: &Value) -> BTreeMap<String, u64> {
    let ports =
        items(&template["spec"]["containers"]).flat_map(|container| items(&container["ports"]));
    let named = |port: &Value| {
        Some((
            port["name"].as_str()?.to_owned(),
            port["containerPort"].as_u64()?,
        ))
    };
    ports.filter_map(named).collect()
}

impl<'a> Check<'a> {
    fn say(&mut self, object: &Value, problem: impl std::fmt::Display) {
        self.problems.push(format!("{}: {problem}", shown(object)));
    }

    fn expect(&mut self, holds: bool, object: &Value, problem: impl std::fmt::Display) {
        if !holds {
            self.say(object, problem);
        }
    }

    /// Templates of pods in the namespace of an object that a selector takes.
    fn templates(&self, object: &Value, selector: &Value) -> Vec<&'a Value> {
        let here =
            |other: &&Value| other["metadata"]["namespace"] == object["metadata"]["namespace"];
        let templates = self
            .all
            .iter()
            .filter(here)
            .map(|other| &other["spec"]["template"]);
        let taken = |template: &&Value| selects(selector, &template["metadata"]["labels"]);
        templates.filter(taken).collect()
    }

    fn metadata(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        for label in LABELS {
            let name = format!("app.kubernetes.io/{label}");
            self.expect(
                metadata["labels"][&name].is_string(),
                object,
                format!("expected the label {name}"),
            );
        }
        let kind = object["kind"].as_str().unwrap_or_default();
        self.expect(
            metadata["namespace"].is_string() != OF_THE_CLUSTER.contains(&kind),
            object,
            "expected a namespace if and only if its kind has one",
        );
        let long = |(name, value): (&String, &Value)| {
            (value.as_str().unwrap_or_default().len() > LABEL_MAX).then(|| name.clone())
        };
        let template = &object["spec"]["template"]["metadata"]["labels"];
        for name in map(&metadata["labels"])
            .iter()
            .chain(&map(template))
            .filter_map(long)
        {
            self.say(
                object,
                format!("the value of {name} is longer than {LABEL_MAX} bytes"),
            );
        }
    }

    fn service(&mut self, service: &Value) {
        let selector = &service["spec"]["selector"];
        let templates = self.templates(service, selector);
        self.expect(
            templates.len() == 1,
            service,
            format!(
                "expected it to select one workload, found {}",
                templates.len()
            ),
        );
        for template in templates {
            let ports = ports(template);
            for port in items(&service["spec"]["ports"]) {
                let target = port["targetPort"].as_str().unwrap_or_default();
                let found = ports.get(target).copied();
                self.expect(
                    found.is_some() && found == port["port"].as_u64(),
                    service,
                    format!(
                        "port {} leads to `{target}`, which is {found:?} in the pod",
                        port["port"]
                    ),
                );
            }
        }
    }

    fn workload(&mut self, workload: &Value) {
        let spec = &workload["spec"];
        let template = &spec["template"];
        self.expect(
            selects(
                &spec["selector"]["matchLabels"],
                &template["metadata"]["labels"],
            ),
            workload,
            "its selector does not take its own pods",
        );
        let claims = items(&spec["volumeClaimTemplates"]).map(|claim| &claim["metadata"]["name"]);
        let volumes: Vec<&Value> = items(&template["spec"]["volumes"])
            .map(|volume| &volume["name"])
            .chain(claims)
            .collect();
        let ports = ports(template);
        for container in items(&template["spec"]["containers"]) {
            for mount in items(&container["volumeMounts"]) {
                self.expect(
                    volumes.contains(&&mount["name"]),
                    workload,
                    format!("mounts {}, which is no volume", mount["name"]),
                );
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let http = &container[probe]["httpGet"];
                if http.is_object() {
                    let port = http["port"].as_str().unwrap_or_default();
                    let path = http["path"].as_str().unwrap_or_default();
                    self.expect(
                        ports.get(port) == Some(&OPS_PORT) && self.facts.probes.contains(path),
                        workload,
                        format!("{probe} asks {path} at `{port}`, where no probe is served"),
                    );
                }
            }
            let requests = &container["resources"]["requests"];
            self.expect(
                requests["memory"].is_string() && requests == &container["resources"]["limits"],
                workload,
                "expected a limit of memory, and requests that are the limits",
            );
        }
    }

    /// Every route of the port forwarder begins at a port of its pod and ends at a port of a Service.
    fn forwarder(&mut self, workload: &Value) {
        let template = &workload["spec"]["template"];
        self.expect(
            template["spec"]["runtimeClassName"].is_null(),
            workload,
            "nothing can be forwarded to a pod with a runtime class",
        );
        let namespace = &workload["metadata"]["namespace"];
        let offered: BTreeSet<String> = self
            .all
            .iter()
            .filter(|other| {
                other["kind"] == "Service" && other["metadata"]["namespace"] == *namespace
            })
            .flat_map(|service| {
                let name = service["metadata"]["name"].as_str().unwrap_or_default();
                items(&service["spec"]["ports"]).map(move |port| format!("{name}:{}", port["port"]))
            })
            .collect();
        let own: BTreeSet<u64> = ports(template).into_values().collect();
        let variables = items(&template["spec"]["containers"][0]["env"]);
        let mut variables = variables.filter(|variable| variable["name"] == "CONTRAST_FORWARD");
        let routes = variables.next().map(|variable| &variable["value"]);
        let routes = routes.and_then(Value::as_str).unwrap_or_default();
        for route in routes.split(',') {
            let (listen, target) = route.split_once('=').unwrap_or_default();
            let listens = listen.parse().is_ok_and(|port: u64| own.contains(&port));
            self.expect(
                listens && offered.contains(target),
                workload,
                format!(
                    "the route `{route}` leads from no port of the pod, or to no port of a Service"
                ),
            );
        }
    }

    fn coordinator(&mut self, workload: &Value) {
        let spec = &workload["spec"];
        let template = &spec["template"];
        let found: BTreeSet<u64> = ports(template).into_values().collect();
        if found != self.facts.ports {
            let expected = &self.facts.ports;
            self.say(
                workload,
                format!("expected the ports {expected:?} of ARCHITECTURE.md, found {found:?}"),
            );
        }
        let namespace = workload["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default();
        let peers = format!("{PEERS}.{namespace}.svc:{PEER_PORT}");
        let container = &template["spec"]["containers"][0];
        let variable = |name: &str| {
            let found = items(&container["env"]).find(|variable| variable["name"] == name);
            found
                .and_then(|variable| variable["value"].as_str())
                .unwrap_or_default()
                .to_owned()
        };
        for (name, expected) in [
            ("CONTRAST_PEERS", format!("dns:{peers}")),
            (
                "CONTRAST_PEER_ADVERTISE_ADDRESS",
                format!("$(POD_NAME).{peers}"),
            ),
        ] {
            let found = variable(name);
            self.expect(
                found == expected,
                workload,
                format!("expected {name} {expected}, found {found}"),
            );
        }
        let own = items(&container["env"]).find(|one| one["name"] == "POD_NAME");
        self.expect(
            own.is_some_and(|one| one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"),
            workload,
            "expected the pod's own name in POD_NAME",
        );
        let governing = |service: &&Value| {
            service["kind"] == "Service"
                && service["metadata"]["name"] == spec["serviceName"]
                && service["spec"]["clusterIP"] == "None"
                && service["spec"]["publishNotReadyAddresses"] == true
        };
        let governed = spec["serviceName"] == PEERS && self.all.iter().any(|one| governing(&one));
        self.expect(
            governed,
            workload,
            "expected serviceName to be a headless Service of pods that are not ready, too",
        );
        let drain: u64 = variable("CONTRAST_DRAIN_DEADLINE")
            .parse()
            .unwrap_or(u64::MAX);
        let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64();
        self.expect(
            grace.is_some_and(|grace| grace > drain),
            workload,
            "Kubernetes kills it before it has drained",
        );
        self.expect(
            spec["podManagementPolicy"] == "Parallel",
            workload,
            "replicas would wait for each other",
        );
        let added = &container["securityContext"]["capabilities"]["add"];
        self.expect(
            (variable("CONTRAST_OPEN_INGRESS") == "true")
                == items(added).any(|one| one == "NET_ADMIN"),
            workload,
            "expected NET_ADMIN if and only if it opens the guest",
        );
        let class = template["spec"]["runtimeClassName"]
            .as_str()
            .unwrap_or_default();
        self.expect(
            class == "contrast-cc" || self.is_class(class),
            workload,
            format!("`{class}` is the class of no platform"),
        );
        let affinity = &template["spec"]["affinity"]["podAntiAffinity"];
        let terms = items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).chain(
            items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"])
                .map(|term| &term["podAffinityTerm"]),
        );
        let terms = terms.chain(items(&template["spec"]["topologySpreadConstraints"]));
        for term in terms {
            self.expect(
                selects(
                    &term["labelSelector"]["matchLabels"],
                    &template["metadata"]["labels"],
                ),
                workload,
                "it keeps away from pods that are not its own",
            );
        }
    }

    fn budget(&mut self, budget: &Value) {
        let spec = &budget["spec"];
        let taken = self.templates(budget, &spec["selector"]["matchLabels"]);
        self.expect(
            taken.len() == 1,
            budget,
            "expected it to select the Coordinator",
        );
        self.expect(
            spec["maxUnavailable"] == 1,
            budget,
            "expected it to allow one disruption at a time",
        );
    }

    fn network(&mut self, policy: &Value) {
        let spec = &policy["spec"];
        let taken = self.templates(policy, &spec["podSelector"]["matchLabels"]);
        self.expect(
            taken.len() == 1,
            policy,
            "expected it to select the Coordinator",
        );
        let mut open = BTreeSet::new();
        for rule in items(&spec["ingress"]) {
            for port in items(&rule["ports"]).filter_map(|port| port["port"].as_u64()) {
                open.insert(port);
                let only_replicas = items(&rule["from"]).count() == 1
                    && items(&rule["from"]).all(|peer| peer["podSelector"] == spec["podSelector"]);
                self.expect(
                    port != PEER_PORT || only_replicas,
                    policy,
                    "the peer API is for replicas only",
                );
            }
        }
        if open != self.facts.ports {
            let expected = &self.facts.ports;
            self.say(
                policy,
                format!(
                    "expected rules for the ports {expected:?} of ARCHITECTURE.md, found {open:?}"
                ),
            );
        }
        if items(&spec["policyTypes"]).any(|one| one == "Egress") {
            let reached = items(&spec["egress"]).flat_map(|rule| items(&rule["ports"]));
            let reached: BTreeSet<u64> = reached.filter_map(|port| port["port"].as_u64()).collect();
            self.expect(
                reached.is_superset(&BTreeSet::from([53, PEER_PORT])),
                policy,
                "it reaches neither DNS nor its replicas",
            );
        }
    }

    /// The class of a platform, with or without the version of a runtime.
    fn is_class(&self, class: &str) -> bool {
        let versioned = class.rsplit_once('-').filter(|(_, version)| {
            version.len() == 8 && version.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        self.facts
            .classes
            .contains(versioned.map_or(class, |(name, _)| name))
    }

    fn class(&mut self, class: &Value) {
        let name = class["metadata"]["name"].as_str().unwrap_or_default();
        self.expect(self.is_class(name), class, "it is the class of no platform");
        self.expect(
            class["handler"] == name,
            class,
            "expected the handler to have its name",
        );
        self.expect(
            class["overhead"]["podFixed"]["memory"].is_string(),
            class,
            "expected an overhead",
        );
    }

    fn installer(&mut self, daemon: &Value) {
        let name = daemon["metadata"]["name"].as_str().unwrap_or_default();
        let class = name.strip_suffix("-nodeinstaller").unwrap_or_default();
        let of_class = |object: &&Value| {
            object["kind"] == "RuntimeClass" && object["metadata"]["name"] == class
        };
        let Some(class) = self.all.iter().find(of_class) else {
            self.say(daemon, "expected a RuntimeClass of its name");
            return;
        };
        let spec = &daemon["spec"]["template"]["spec"];
        for field in ["nodeSelector", "tolerations"] {
            self.expect(
                spec[field] == class["scheduling"][field],
                daemon,
                format!("its {field} are not those of its class, so pods would come to nodes without the runtime"),
            );
        }
        let config =
            items(&spec["volumes"]).find_map(|volume| volume["configMap"]["name"].as_str());
        let map = self.all.iter().find(|object| {
            object["kind"] == "ConfigMap"
                && object["metadata"]["namespace"] == daemon["metadata"]["namespace"]
                && object["metadata"]["name"].as_str() == config
        });
        let document = map.and_then(|map| map["data"]["node-installer.json"].as_str());
        let document = document.and_then(|text| serde_json::from_str::<Value>(text).ok());
        self.expect(
            document.is_some_and(|document| document["handler"] == class["handler"]),
            daemon,
            "expected a configuration with the handler of its class",
        );
    }
}
