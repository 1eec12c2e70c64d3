//! Values: those that are kept as manifests, those that only have to be right, and those that must be refused.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// Values and what becomes of them.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) namespace: &'static str,
    pub(super) values: Value,
    /// Name of the file in `deploy/manifests`, if it is kept.
    pub(super) kept: Option<&'static str>,
    /// What the refusal says, if the values must be refused.
    pub(super) refusal: Option<Vec<&'static str>>,
}

const PLATFORMS: [&str; 5] = [
    "metal-qemu-snp",
    "metal-qemu-snp-gpu",
    "metal-qemu-tdx",
    "metal-qemu-tdx-gpu",
    "insecure-software-tee",
];
/// Where values are shown to people.
const PAGE: &str = "docs/how-to/install.md";
const REGISTRY: &str = "registry.example.com/contrast";
const DIGEST: &str = "sha256:7d2c4b0f4f6a0b0d3cf1f5b6a3c49a8cf80ad7a0a0a0f6f5b5a54f4c3f9d1e01";

/// All of them.
///
/// # Errors
/// When a page of the documentation cannot be read, or has no values any more.
pub(super) fn all(root: &Path) -> Result<Vec<Case>> {
    let mut all = kept();
    all.extend(matrix());
    all.push(everything());
    all.extend(options());
    all.extend(refused());
    all.extend(documented(root)?);
    Ok(all)
}

/// Values that readers of the documentation are told to write.
fn documented(root: &Path) -> Result<Vec<Case>> {
    let text =
        fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let blocks = text.split("<<'EOF'\n").skip(1);
    let values = blocks.filter_map(|rest| rest.split_once("\nEOF\n"));
    let cases: Vec<Case> = values
        .enumerate()
        .map(|(number, (values, _))| case(format!("{PAGE}, {}. values", number + 1), json!(values)))
        .collect();
    ensure!(!cases.is_empty(), "{PAGE}: expected values in it");
    Ok(cases)
}

fn case(name: impl Into<String>, values: Value) -> Case {
    Case {
        name: name.into(),
        namespace: "contrast",
        values,
        kept: None,
        refusal: None,
    }
}

fn kept() -> Vec<Case> {
    let coordinator = |file, replicas| Case {
        kept: Some(file),
        ..case(
            file,
            json!({"image": {"registry": REGISTRY}, "coordinator": {"replicas": replicas}}),
        )
    };
    let runtime = |file, platform: &str, label: &str| Case {
        kept: Some(file),
        namespace: "kube-system",
        ..case(
            file,
            json!({
                "image": {"registry": REGISTRY},
                "coordinator": {"enabled": false},
                "nodeInstaller": {"priorityClassName": "system-node-critical"},
                "platforms": {platform: {"nodeSelector": {label: "true"}, "install": install(platform)}},
            }),
        )
    };
    vec![
        coordinator("coordinator-1.yaml", 1),
        coordinator("coordinator-3.yaml", 3),
        coordinator("coordinator-5.yaml", 5),
        runtime(
            "runtime-metal-qemu-snp.yaml",
            "metal-qemu-snp",
            "amd.feature.node.kubernetes.io/snp",
        ),
        runtime(
            "runtime-metal-qemu-tdx.yaml",
            "metal-qemu-tdx",
            "intel.feature.node.kubernetes.io/tdx",
        ),
    ]
}

/// What the node installer is told, beside platform and handler.
fn install(platform: &str) -> Value {
    let at = "/opt/edgeless/{handler}";
    let tee = if platform.contains("tdx") {
        "tdx"
    } else {
        "snp"
    };
    json!({
        "files": [{"source": "file:///payload", "path": at}],
        "runtime": {
            "type": "io.containerd.contrast-cc.v2",
            "shim": format!("{at}/bin/containerd-shim-contrast-cc-v2"),
            "config": format!("{at}/etc/configuration-qemu-{tee}.toml"),
        },
    })
}

/// Every combination of what changes the most.
fn matrix() -> Vec<Case> {
    let mut cases = Vec::new();
    let platforms = PLATFORMS.iter().copied().map(Some).chain([None]);
    for platform in platforms {
        for replicas in [1, 3, 5] {
            for bits in 0..16_u8 {
                let on = |bit: u8| bits & (1 << bit) != 0;
                let mut values = json!({
                    "image": {"registry": REGISTRY},
                    "coordinator": {
                        "replicas": replicas,
                        "image": {"digest": if on(3) { DIGEST } else { "" }},
                        "storage": {"className": if on(2) { "fast" } else { "" }},
                    },
                    "networkPolicy": {"enabled": on(1)},
                    "metrics": {"serviceMonitor": {"enabled": on(0)}, "annotations": on(0)},
                });
                if let Some(platform) = platform {
                    values["platforms"] = json!({platform: {}});
                    if on(3) {
                        values["platforms"][platform]["install"] = install(platform);
                    }
                }
                cases.push(case(
                    format!(
                        "{} replicas={replicas} metrics={} policy={} class={} digest={}",
                        platform.unwrap_or("no platform"),
                        on(0),
                        on(1),
                        on(2),
                        on(3)
                    ),
                    values,
                ));
            }
        }
    }
    cases
}

/// All that can be turned on at once.
pub(super) fn everything() -> Case {
    let node = json!({"nodeSelector": {"tee": "yes"}, "tolerations": [{"key": "tee", "operator": "Exists", "effect": "NoSchedule"}]});
    let platforms = PLATFORMS.iter().map(|platform| {
        let mut settings = node.clone();
        settings["runtimeVersion"] = json!("0a1b2c3d");
        settings["overheadMemory"] = json!("2Gi");
        settings["install"] = install(platform);
        settings["install"]["files"][0] = json!({
            "source": "file:///payload/bin/shim", "path": "/opt/edgeless/{handler}/bin/shim", "mode": "0755",
            "integrity": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        });
        settings["install"]["runtime"]["rs"] = json!(false);
        settings["install"]["runtime"]["pod_annotations"] = json!(["io.katacontainers.*"]);
        settings["install"]["runtime"]["snapshotter"] =
            json!({"name": "nydus", "address": "/run/{handler}/snapshotter.sock"});
        settings["install"]["containerd"] = json!({
            "dialect": "k3s", "config": "/etc/containerd/config.toml", "config_version": 3,
            "units": ["k3s.service"], "restart_timeout_seconds": 60,
        });
        ((*platform).to_owned(), settings)
    });
    let peer = json!([{"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]);
    case(
        "everything",
        json!({
            "image": {"registry": "registry.example.com:5000/a/b", "pullPolicy": "Always", "pullSecrets": ["one", "two"]},
            "coordinator": {
                "replicas": 5,
                "image": {"name": "coordinator", "tag": "9.9", "digest": DIGEST},
                "runtimeClassName": "contrast-cc-metal-qemu-snp-0a1b2c3d",
                "drainDeadlineSeconds": 3600,
                "log": {"level": "debug", "format": "json"},
                "streams": "read",
                "collateralProxy": "https://collateral.example.com",
                "env": {"HTTPS_PROXY": "http://proxy.example.com:3128", "CONTRAST_DEAD_MEMBER_GRACE": "60"},
                "resources": {"memory": "1Gi", "cpu": "500m"},
                "storage": {"size": "10Gi", "className": "fast"},
                "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
                "podAnnotations": {"a": "true"},
                "podLabels": {"team": "a"},
                "nodeSelector": node["nodeSelector"],
                "tolerations": node["tolerations"],
                "priorityClassName": "high",
                "antiAffinity": "hard",
                "topologySpread": {"enabled": true, "whenUnsatisfiable": "DoNotSchedule"},
            },
            "networkPolicy": {
                "enabled": true,
                "from": {"user": peer, "attest": peer, "mesh": peer, "transit": peer, "metrics": peer},
                "egress": {"enabled": true, "to": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}]},
            },
            "metrics": {
                "annotations": true,
                "service": {"enabled": true},
                "serviceMonitor": {"enabled": true, "interval": "15s", "labels": {"release": "prometheus"}},
                "podMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
            },
            "platforms": platforms.collect::<serde_json::Map<_, _>>(),
            "nodeInstaller": {
                "image": {"digest": DIGEST}, "resources": {"cpu": ""}, "priorityClassName": "system-node-critical",
            },
        }),
    )
}

/// Options that the matrix leaves as they are, one at a time.
fn options() -> Vec<Case> {
    let one = |name: &str, values: Value| {
        let mut values = values;
        values["image"]["registry"] = json!(REGISTRY);
        case(name, values)
    };
    vec![
        one(
            "closed guest",
            json!({"coordinator": {"openIngress": false}}),
        ),
        one(
            "no anti-affinity",
            json!({"coordinator": {"antiAffinity": "none"}}),
        ),
        one(
            "no disruption budget",
            json!({"coordinator": {"podDisruptionBudget": {"enabled": false}}}),
        ),
        one(
            "node port",
            json!({"coordinator": {"service": {"type": "NodePort"}}}),
        ),
        one(
            "metrics service",
            json!({"metrics": {"service": {"enabled": true}}}),
        ),
        one(
            "pod monitor",
            json!({"metrics": {"podMonitor": {"enabled": true}}}),
        ),
        Case {
            namespace: "2024",
            ..one(
                "names that look like numbers",
                json!({
                    "image": {"pullSecrets": ["1e3"]},
                    "coordinator": {"log": {"level": "off"}, "priorityClassName": "1", "storage": {"size": "1073741824"}},
                    "platforms": {"metal-qemu-snp": {"install": install("metal-qemu-snp"), "overheadMemory": "1073741824"}},
                    "nodeInstaller": {"priorityClassName": "1"},
                }),
            )
        },
        one("nothing", json!({"coordinator": {"enabled": false}})),
        one("below another chart", json!({"global": {"a": 1}})),
    ]
}

fn refused() -> Vec<Case> {
    let one = |name: &str, values: Value, parts: &[&'static str]| {
        let mut values = values;
        if values["image"].is_null() {
            values["image"] = json!({"registry": REGISTRY});
        }
        Case {
            refusal: Some(parts.to_vec()),
            ..case(name, values)
        }
    };
    let coordinator = |name: &str, settings: Value, parts: &[&'static str]| {
        one(name, json!({"coordinator": settings}), parts)
    };
    vec![
        one(
            "no registry",
            json!({"image": {}}),
            &["at '/image': missing property 'registry'"],
        ),
        one(
            "registry with a scheme",
            json!({"image": {"registry": "https://a"}}),
            &["at '/image/registry'"],
        ),
        one(
            "unknown part",
            json!({"coordinatr": {}}),
            &["additional properties 'coordinatr' not allowed"],
        ),
        one(
            "unknown platform",
            json!({"platforms": {"aks-clh-snp": {}}}),
            &["at '/platforms': additional properties 'aks-clh-snp' not allowed"],
        ),
        one(
            "version that is none",
            json!({"platforms": {"metal-qemu-snp": {"runtimeVersion": "1.2"}}}),
            &["at '/platforms/metal-qemu-snp/runtimeVersion'"],
        ),
        one(
            "nothing to install",
            json!({"platforms": {"metal-qemu-snp": {"install": {}}}}),
            &["at '/platforms/metal-qemu-snp/install': missing properties 'files', 'runtime'"],
        ),
        one(
            "file from the network",
            json!({"platforms": {"metal-qemu-snp": {"install": {"files": [{"source": "https://a/b", "path": "/b"}]}}}}),
            &["at '/platforms/metal-qemu-snp/install/files/0/source'"],
        ),
        one(
            "peer without anything",
            json!({"networkPolicy": {"from": {"user": [{}]}}}),
            &["at '/networkPolicy/from/user/0'"],
        ),
        one(
            "interval without a unit",
            json!({"metrics": {"podMonitor": {"interval": "30"}}}),
            &["at '/metrics/podMonitor/interval'"],
        ),
        coordinator(
            "two replicas",
            json!({"replicas": 2}),
            &["at '/coordinator/replicas': value must be one of 1, 3, 5"],
        ),
        coordinator(
            "replicas as text",
            json!({"replicas": "3"}),
            &["at '/coordinator/replicas'"],
        ),
        coordinator(
            "unknown key",
            json!({"replica": 3}),
            &["at '/coordinator': additional properties 'replica' not allowed"],
        ),
        coordinator(
            "bad quantity",
            json!({"resources": {"memory": "200MB"}}),
            &["at '/coordinator/resources/memory'", "'200MB'"],
        ),
        coordinator(
            "bad size",
            json!({"storage": {"size": ""}}),
            &["at '/coordinator/storage/size'"],
        ),
        coordinator(
            "tag as digest",
            json!({"image": {"digest": "0.1.0"}}),
            &["at '/coordinator/image/digest'"],
        ),
        coordinator(
            "class of another runtime",
            json!({"runtimeClassName": "kata"}),
            &["at '/coordinator/runtimeClassName'"],
        ),
        coordinator(
            "variable that the chart sets",
            json!({"env": {"CONTRAST_PEERS": ""}}),
            &["invalid propertyName 'CONTRAST_PEERS'"],
        ),
        coordinator(
            "annotation of Contrast",
            json!({"podAnnotations": {"contrast.edgeless.systems/streams": "read"}}),
            &["invalid propertyName 'contrast.edgeless.systems/streams'"],
        ),
        coordinator(
            "label that selects",
            json!({"podLabels": {"app.kubernetes.io/name": "x"}}),
            &["invalid propertyName 'app.kubernetes.io/name'"],
        ),
        coordinator(
            "type of a service",
            json!({"service": {"type": "ExternalName"}}),
            &["at '/coordinator/service/type'"],
        ),
        coordinator(
            "anti-affinity",
            json!({"antiAffinity": "Soft"}),
            &["at '/coordinator/antiAffinity'"],
        ),
    ]
}
