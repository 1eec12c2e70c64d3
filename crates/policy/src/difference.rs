//! What one policy allows and another does not, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::PodPolicy;

/// One difference between two policies of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `pod`, or the name of a container.
    pub place: String,
    /// What it concerns.
    pub what: String,
    /// How it changed.
    #[serde(flatten)]
    pub change: Change,
}

/// How something changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Only the new policy accepts it.
    Allowed {
        /// What.
        value: String,
    },
    /// Only the old policy accepts it.
    Forbidden {
        /// What.
        value: String,
    },
    /// One value is expected instead of another.
    Replaced {
        /// By the old policy.
        old: String,
        /// By the new policy.
        new: String,
    },
}

/// Compares two policies. Containers are compared by name; an empty result means that they accept the same requests.
///
/// # Errors
/// Never for data of these types.
pub fn differences(old: &PodPolicy, new: &PodPolicy) -> Result<Vec<Difference>, serde_json::Error> {
    let mut found = Vec::new();
    let (mut old_pod, mut new_pod) = (serde_json::to_value(old)?, serde_json::to_value(new)?);
    for pod in [&mut old_pod, &mut new_pod] {
        if let Some(fields) = pod.as_object_mut() {
            fields.remove("containers");
        }
    }
    compare("pod", "", &old_pod, &new_pod, &mut found);

    let order = |policy: &PodPolicy| -> Vec<String> {
        let names = policy.containers.iter().map(|container| &container.name);
        names.cloned().collect()
    };
    let (old_order, new_order) = (order(old), order(new));
    let by_name = |policy: &PodPolicy| -> Result<BTreeMap<String, Value>, serde_json::Error> {
        let containers = policy.containers.iter();
        containers
            .map(|container| Ok((container.name.clone(), serde_json::to_value(container)?)))
            .collect()
    };
    let (old_containers, new_containers) = (by_name(old)?, by_name(new)?);
    let names: BTreeSet<&String> = old_containers.keys().chain(new_containers.keys()).collect();
    for name in names {
        let change = match (old_containers.get(name), new_containers.get(name)) {
            (Some(old), Some(new)) => {
                compare(name, "", old, new, &mut found);
                continue;
            }
            (Some(_), None) => Change::Forbidden {
                value: name.clone(),
            },
            (None, _) => Change::Allowed {
                value: name.clone(),
            },
        };
        found.push(Difference {
            place: "pod".to_owned(),
            what: "container".to_owned(),
            change,
        });
    }
    let common = |order: &[String], other: &BTreeMap<String, Value>| -> Vec<String> {
        let kept = order.iter().filter(|name| other.contains_key(*name));
        kept.cloned().collect()
    };
    let (old_common, new_common) = (
        common(&old_order, &new_containers),
        common(&new_order, &old_containers),
    );
    if old_common != new_common {
        found.push(Difference {
            place: "pod".to_owned(),
            what: "order of containers".to_owned(),
            change: Change::Replaced {
                old: old_common.join(", "),
                new: new_common.join(", "),
            },
        });
    }
    Ok(found)
}

fn compare(place: &str, path: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let mut note = |change| {
        found.push(Difference {
            place: place.to_owned(),
            what: in_words(path),
            change,
        });
    };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let below = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                let none = Value::Null;
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                let (old, new) = (of(old), of(new));
                compare(
                    place,
                    &below,
                    old.as_ref().unwrap_or(&none),
                    new.as_ref().unwrap_or(&none),
                    found,
                );
            }
        }
        // The order of arguments matters; other lists are sets.
        (Value::Array(old), Value::Array(new)) if path != "args" => {
            for value in old.iter().filter(|value| !new.contains(value)) {
                note(Change::Forbidden {
                    value: shown(value),
                });
            }
            for value in new.iter().filter(|value| !old.contains(value)) {
                note(Change::Allowed {
                    value: shown(value),
                });
            }
        }
        (Value::Null, new) => note(Change::Allowed { value: shown(new) }),
        (old, Value::Null) => note(Change::Forbidden { value: shown(old) }),
        (old, new) => note(Change::Replaced {
            old: shown(old),
            new: shown(new),
        }),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Names of the data's fields, for people.
fn in_words(path: &str) -> String {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let words = match first {
        "args" => "arguments",
        "apparmor" => "AppArmor profiles",
        "copies" => "files that the host copies in",
        "devices" => "block devices",
        "env" => "environment",
        "env_facts" => "variables with values of the cluster",
        "env_pattern" => "variables of Kubernetes",
        "exec" => "commands that may be executed",
        "exec_output" => "output of such commands that the host may read",
        "files" => "files of Kubernetes",
        "fs_group" => "group of volumes",
        "gid" => "group",
        "gpus" => "number of GPUs",
        "groups" => "supplementary groups",
        "hostname" => "host name",
        "name" => "name",
        "readonly_root" => "read-only root file system",
        "sandbox" => "pause container",
        "stage" => "when it runs",
        "streams" => "streams that the host may use",
        "sysctls" => "kernel settings",
        "uid" => "user",
        "unmasked" => "unmasked /proc and /sys",
        other => other,
    };
    match rest {
        "" => words.to_owned(),
        rest => format!("{words}: {rest}"),
    }
}

#[cfg(test)]
mod tests {
    use contrast_images::ImageCache;
    use serde_json::json;

    use super::*;
    use crate::{ConfigObjects, PodName, PodSource};

    fn policy(container: &Value) -> PodPolicy {
        let mut container = container.clone();
        container["name"] = json!("web");
        container["image"] = json!(format!("web@sha256:{}", "0a".repeat(32)));
        let template = json!({"spec": {"containers": [container]}});
        let source = PodSource {
            kind: "Pod",
            name: PodName::Fixed("web"),
            namespace: None,
            template: &template,
            claims: &[],
            images: &ImageCache::default(),
            config: &ConfigObjects::default(),
        };
        source.policy().expect("policy")
    }

    #[test]
    fn differences_say_what_became_allowed_and_what_forbidden() {
        let old = policy(&json!({"command": ["/web", "-v"], "env": [{"name": "A", "value": "1"}]}));
        let new = policy(&json!({"command": ["/web"], "env": [{"name": "A", "value": "2"}]}));
        assert_eq!(differences(&old, &old).expect("compares"), []);
        let found = differences(&old, &new).expect("compares");
        let difference = |what: &str, change| Difference {
            place: "web".into(),
            what: what.into(),
            change,
        };
        let value = |text: &str| text.to_owned();
        let expected = [
            difference(
                "arguments",
                Change::Replaced {
                    old: value(r#"["/web","-v"]"#),
                    new: value(r#"["/web"]"#),
                },
            ),
            difference(
                "environment",
                Change::Forbidden {
                    value: value("A=1"),
                },
            ),
            difference(
                "environment",
                Change::Allowed {
                    value: value("A=2"),
                },
            ),
        ];
        assert_eq!(found, expected);
    }
}
