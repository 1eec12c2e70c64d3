//! The cluster, as `kubectl` sees it.

use contrast_clock::WallClock;
use serde_json::Value;

use super::{Check, clock};
use crate::{
    args::DoctorArgs,
    diagnostic::Diagnose as _,
    generate::platforms,
    kube::{DEPLOYMENT, Kubectl, KubectlError},
};

/// What the chart demands (`kubeVersion`).
const MINOR_MIN: u64 = 30;
const COORDINATOR: &str = "statefulset/coordinator";
const INSTALLER: &str = "app.kubernetes.io/component=node-installer";

/// Looks at everything that a deployment needs of a cluster.
pub(crate) async fn look_at(args: &DoctorArgs, ours: &dyn WallClock) -> Vec<Check> {
    let kubectl = Kubectl::new(args.kube_context.clone());
    let mut checks = Vec::new();
    let client = kubectl
        .json(&["version", "--client", "--output=json"])
        .await;
    let found = client.map(|version| text(&version["clientVersion"]["gitVersion"]));
    let usable = push(&mut checks, "kubectl", found);
    if !usable {
        return checks;
    }
    let context = kubectl
        .json(&["config", "view", "--minify", "--output=json"])
        .await
        .map(|config| {
            let context = text(&config["current-context"]);
            let server = text(&config["clusters"][0]["cluster"]["server"]);
            format!("context {context}, {server}")
        });
    if !push(&mut checks, "kubeconfig", context) {
        return checks;
    }
    // With this much to say, kubectl shows the headers of answers.
    let version = kubectl.run(&["get", "--raw=/version", "-v=8"]).await;
    let now = ours.now();
    let said = version.as_ref().ok().map(|(_, said)| said.clone());
    match version {
        Ok((body, _)) => checks.push(server_version(&body)),
        Err(error) => {
            push(&mut checks, "API server", Err(error));
            return checks;
        }
    }
    let date = said.as_deref().and_then(date);
    checks.extend(date.map(|date| clock("the API server", date, now)));
    checks.push(runtime_classes(&kubectl).await);
    checks.push(node_installer(&kubectl).await);
    let namespace = args
        .namespace
        .as_ref()
        .map(|name| format!("--namespace={name}"));
    for (name, what, hint) in [
        (
            "Coordinator",
            COORDINATOR,
            "`kubectl describe` shows why its pods do not start; without a manifest none is ready, so run `contrast set`",
        ),
        (
            "port forwarder",
            DEPLOYMENT,
            "`--kube` and `contrast port-forward` need it: install the chart with `portForwarder.enabled=true`",
        ),
    ] {
        checks.push(replicas(&kubectl, name, what, namespace.as_deref(), hint).await);
    }
    checks
}

/// A row for what `kubectl` did or failed to do; whether it did.
fn push(checks: &mut Vec<Check>, name: &str, found: Result<String, KubectlError>) -> bool {
    checks.push(match &found {
        Ok(found) => Check::good(name, found),
        Err(error) => failed(name, error),
    });
    found.is_ok()
}

fn failed(name: &str, error: &KubectlError) -> Check {
    Check::failed(name, error.to_string(), &error.hints().join("; "))
}

fn server_version(body: &[u8]) -> Check {
    const NAME: &str = "API server";
    let version: Value = serde_json::from_slice(body).unwrap_or_default();
    let shown = text(&version["gitVersion"]);
    // Some vendors write `29+`.
    let minor = text(&version["minor"]);
    let minor = minor.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    match minor.parse::<u64>() {
        Ok(minor) if minor < MINOR_MIN => Check::failed(
            NAME,
            format!("Kubernetes {shown}"),
            &format!("update the cluster: the chart needs Kubernetes 1.{MINOR_MIN}"),
        ),
        Ok(_) => Check::good(NAME, format!("Kubernetes {shown}")),
        Err(_) => Check::warning(
            NAME,
            "it does not say its version",
            "check that the address is that of an API server",
        ),
    }
}

/// From kubectl's log of an answer's headers.
fn date(said: &str) -> Option<&str> {
    said.lines()
        .find_map(|line| line.trim().strip_prefix("Date: "))
}

async fn runtime_classes(kubectl: &Kubectl) -> Check {
    const NAME: &str = "runtime classes";
    let list = match kubectl
        .json(&["get", "runtimeclasses", "--output=json"])
        .await
    {
        Ok(list) => list,
        Err(error) => return failed(NAME, &error),
    };
    let mut ours: Vec<String> = items(&list)
        .map(|class| text(&class["metadata"]["name"]))
        .filter(|name| platforms::is_confidential(name))
        .collect();
    ours.sort();
    match ours.is_empty() {
        true => Check::failed(
            NAME,
            "none of Contrast",
            "install the chart with your platforms, for example `platforms={metal-qemu-snp}`",
        ),
        false => Check::good(NAME, ours.join(", ")),
    }
}

async fn node_installer(kubectl: &Kubectl) -> Check {
    const NAME: &str = "node installer";
    let selector = format!("--selector={INSTALLER}");
    let arguments = [
        "get",
        "daemonsets",
        "--all-namespaces",
        selector.as_str(),
        "--output=json",
    ];
    let list = match kubectl.json(&arguments).await {
        Ok(list) => list,
        Err(error) => return failed(NAME, &error),
    };
    let mut found = Vec::new();
    let mut waits = false;
    for set in items(&list) {
        let status = &set["status"];
        let (ready, wanted) = (
            number(&status["numberReady"]),
            number(&status["desiredNumberScheduled"]),
        );
        waits |= ready < wanted || wanted == 0;
        found.push(format!(
            "{}: {ready} of {wanted} nodes",
            text(&set["metadata"]["name"])
        ));
    }
    match (found.is_empty(), waits) {
        (true, _) => Check::warning(
            NAME,
            "there is none",
            "nodes that you prepare yourself need none; else install it with the chart",
        ),
        (false, true) => Check::failed(
            NAME,
            found.join(", "),
            "the logs of its pods say what a node lacks; no node at all: label them as the chart's nodeSelector wants",
        ),
        (false, false) => Check::good(NAME, found.join(", ")),
    }
}

async fn replicas(
    kubectl: &Kubectl,
    name: &str,
    what: &str,
    namespace: Option<&str>,
    hint: &str,
) -> Check {
    let mut arguments = vec!["get", what, "--output=json"];
    arguments.extend(namespace);
    match kubectl.json(&arguments).await {
        Ok(set) => {
            let wanted = number(&set["spec"]["replicas"]);
            let ready = number(&set["status"]["readyReplicas"]);
            let images = items(&set["spec"]["template"]["spec"]["containers"]);
            let image = images.map(|container| text(&container["image"])).next();
            let found = format!("{ready} of {wanted} ready, {}", image.unwrap_or_default());
            match ready == wanted {
                true => Check::good(name, found),
                false => Check::warning(name, found, hint),
            }
        }
        Err(KubectlError::Failed { said, .. }) if said.contains("NotFound") => {
            let hint =
                "install the chart in this namespace, or name another one with `--namespace`";
            Check::warning(name, "there is none in this namespace", hint)
        }
        Err(error) => failed(name, &error),
    }
}

/// Of a list, or of an array.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.as_array().or_else(|| value["items"].as_array());
    list.into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
