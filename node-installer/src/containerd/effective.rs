//! What containerd makes of its configuration: judged from `containerd config dump`, or from what k3s rendered.

use toml::{Table, Value};

use super::{Entry, Version};

/// containerd would not do what its configuration is to make it do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EffectiveError {
    /// Its answer is no TOML.
    #[error("containerd's answer is no TOML: {0}")]
    Toml(String),
    /// Nothing of the CRI plugin is there.
    #[error(
        "containerd has no configuration of runtimes, neither in `{}` nor in `{}`; use a containerd with the CRI plugin", Version::V2.plugin(), Version::V3.plugin()
    )]
    NoPlugin,
    /// The handler is not there.
    #[error(
        "containerd does not know the runtime `{handler}`; expected it among {known}. Look for an import that replaces it"
    )]
    Missing {
        /// Which.
        handler: String,
        /// Those that it knows.
        known: String,
    },
    /// The handler is another one.
    #[error(
        "containerd has {found} as `{key}` of the runtime `{handler}`, expected {expected}; {hint}"
    )]
    Differs {
        /// Which.
        handler: String,
        /// What differs.
        key: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// containerd serves no pod without its default runtime.
    #[error(
        "the default runtime `{name}` is not configured any more, and without it containerd serves no pod; add it to the configuration"
    )]
    NoDefault {
        /// Its name.
        name: String,
    },
    /// A runtime of somebody else is another one.
    #[error(
        "the runtime `{name}` would change from {before} to {after}; move the runtimes of containerd into one file"
    )]
    Changed {
        /// Its name.
        name: String,
        /// What it was.
        before: String,
        /// What it would be.
        after: String,
    },
    /// A runtime of somebody else is gone.
    #[error("the runtime `{name}` would be gone; move the runtimes of containerd into one file")]
    Lost {
        /// Its name.
        name: String,
    },
}

struct Runtimes {
    all: Table,
    default: String,
}

fn read(dump: &str) -> Result<Runtimes, EffectiveError> {
    let document: Table = dump
        .parse()
        .map_err(|error: toml::de::Error| EffectiveError::Toml(error.message().to_owned()))?;
    let plugins = document.get("plugins").and_then(Value::as_table);
    let containerd = [Version::V3, Version::V2]
        .into_iter()
        .find_map(|version| {
            plugins?
                .get(version.plugin())?
                .get("containerd")?
                .as_table()
        })
        .ok_or(EffectiveError::NoPlugin)?;
    let all = containerd.get("runtimes").and_then(Value::as_table);
    let default = containerd.get("default_runtime_name");
    Ok(Runtimes {
        all: all.cloned().unwrap_or_default(),
        default: default.and_then(Value::as_str).unwrap_or("runc").to_owned(),
    })
}

/// Judges what containerd says that its configuration is. `before` is what it said before a change, after which no other runtime may be gone or another one.
///
/// # Errors
/// When it does not know the runtime, knows another one, or forgets one of somebody else.
pub fn judge(dump: &str, before: Option<&str>, entry: &Entry) -> Result<(), EffectiveError> {
    let runtimes = read(dump)?;
    let handler = &entry.handler;
    let Some(found) = runtimes.all.get(handler) else {
        let known: Vec<&str> = runtimes.all.keys().map(String::as_str).collect();
        return Err(EffectiveError::Missing {
            handler: handler.clone(),
            known: if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            },
        });
    };
    for (key, expected) in values(entry) {
        let of_key = match key {
            "ConfigPath" => found.get("options").and_then(|options| options.get(key)),
            _ => found.get(key),
        };
        if of_key != Some(&expected) {
            return Err(EffectiveError::Differs {
                handler: handler.clone(),
                key,
                expected: expected.to_string(),
                found: of_key.map_or_else(|| "nothing".into(), Value::to_string),
                hint: match key {
                    "snapshotter" => "a snapshotter for one runtime needs containerd 1.7 or newer",
                    _ => "look for an import that replaces it",
                },
            });
        }
    }
    // Nothing that can be lost, if there was nothing that could be read.
    let before = before.and_then(|before| read(before).ok());
    check_default(&runtimes)?;
    check_others(&runtimes, before, handler)
}

/// Judges what containerd says that its configuration is without the runtime `handler`. `before` is what it said with it.
///
/// # Errors
/// When its default runtime is gone, or a runtime of somebody else is gone or another one.
pub fn judge_without(
    dump: &str,
    before: Option<&str>,
    handler: &str,
) -> Result<(), EffectiveError> {
    let runtimes = read(dump)?;
    let before = before.and_then(|before| read(before).ok());
    // What was broken before is not held against the change.
    if before
        .as_ref()
        .is_none_or(|before| check_default(before).is_ok())
    {
        check_default(&runtimes)?;
    }
    check_others(&runtimes, before, handler)
}

fn check_default(runtimes: &Runtimes) -> Result<(), EffectiveError> {
    match runtimes.all.contains_key(&runtimes.default) {
        true => Ok(()),
        false => Err(EffectiveError::NoDefault {
            name: runtimes.default.clone(),
        }),
    }
}

fn check_others(
    runtimes: &Runtimes,
    before: Option<Runtimes>,
    handler: &str,
) -> Result<(), EffectiveError> {
    for (name, before) in before.into_iter().flat_map(|before| before.all) {
        match runtimes.all.get(&name) {
            _ if name == handler => {}
            None => return Err(EffectiveError::Lost { name }),
            Some(after) if !same(Some(&before), Some(after)) => {
                return Err(EffectiveError::Changed {
                    name,
                    before: before.to_string(),
                    after: after.to_string(),
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whether containerd takes two values for the same; what is not there is empty.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Table(a)), Some(Value::Table(b))) => {
            let mut keys = a.keys().chain(b.keys());
            keys.all(|key| same(a.get(key), b.get(key)))
        }
        (Some(one), None) | (None, Some(one)) => is_empty(one),
        (Some(a), Some(b)) => a == b || (is_empty(a) && is_empty(b)),
        (None, None) => true,
    }
}

/// Whether containerd takes a value for nothing; a runtime without `sandboxer` has `podsandbox`.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => matches!(text.as_str(), "" | "podsandbox"),
        Value::Boolean(set) => !set,
        Value::Integer(number) => *number == 0,
        Value::Array(all) => all.is_empty(),
        Value::Table(table) => table.values().all(is_empty),
        _ => false,
    }
}

/// What of the CRI plugin is not running, from the table that `ctr plugins ls` prints: type, name, platforms, state.
pub(crate) fn not_running(listing: &str) -> Option<String> {
    let plugins: Vec<Vec<&str>> = listing
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let mut of_cri = plugins
        .iter()
        .filter_map(|columns| match columns.as_slice() {
            [kind, name, .., state] => {
                let serves = (*kind == "io.containerd.grpc.v1" && *name == "cri")
                    || *kind == "io.containerd.cri.v1";
                serves.then(|| (format!("{kind}.{name}"), *state))
            }
            _ => None,
        });
    let mut some = false;
    let broken = of_cri.find(|(_, state)| {
        some = true;
        *state != "ok"
    });
    match (broken, some) {
        (Some((name, state)), _) => Some(format!("{name} is in the state `{state}`")),
        (None, false) => Some("it is not there".into()),
        (None, true) => None,
    }
}

/// Where containerd listens, by its own word.
pub(crate) fn address(dump: &str) -> Option<String> {
    let document: Table = dump.parse().ok()?;
    let address = document.get("grpc")?.get("address")?.as_str()?;
    Some(address.to_owned())
}

fn values(entry: &Entry) -> Vec<(&'static str, Value)> {
    let runtime = &entry.runtime;
    let annotations = runtime.pod_annotations.iter();
    let annotations = annotations.map(|one| Value::String(one.clone())).collect();
    let text = |text: &str| Value::String(text.to_owned());
    let mut values = vec![
        ("runtime_type", text(&runtime.runtime_type)),
        ("runtime_path", text(runtime.shim.as_str())),
        ("privileged_without_host_devices", Value::Boolean(true)),
        ("pod_annotations", Value::Array(annotations)),
        ("ConfigPath", text(runtime.config.as_str())),
    ];
    if let Some(snapshotter) = &runtime.snapshotter {
        values.push(("snapshotter", text(&snapshotter.name)));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let path = |text: &str| crate::path::HostPath::new(text).expect("plain");
        Entry {
            handler: "h".into(),
            runtime: crate::config::Runtime {
                runtime_type: "io.containerd.x.v2".into(),
                shim: path("/shim"),
                config: path("/kata.toml"),
                rs: false,
                pod_annotations: Vec::new(),
                snapshotter: None,
            },
        }
    }

    /// What containerd says, with this `runc`.
    fn dump(runc: &str) -> String {
        let runtimes = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes";
        format!(
            "[{runtimes}.h]\nruntime_type = 'io.containerd.x.v2'\nruntime_path = '/shim'\nprivileged_without_host_devices = true\npod_annotations = []\noptions.ConfigPath = '/kata.toml'\n[{runtimes}.runc]\n{runc}\n"
        )
    }

    #[test]
    fn other_runtimes_must_stay_what_they_are() {
        let judged = |before: &str, after: &str| judge(&dump(after), Some(&dump(before)), &entry());
        for (before, after) in [
            (
                "options.SystemdCgroup = true",
                "options.SystemdCgroup = true",
            ),
            (
                "options.SystemdCgroup = false\nsandboxer = 'podsandbox'",
                "options = {}",
            ),
            ("", "container_annotations = []\ncni_max_conf_num = 0"),
        ] {
            assert_eq!(judged(before, after), Ok(()), "{before} | {after}");
        }
        for (before, after) in [
            ("options.SystemdCgroup = true", ""),
            (
                "options.SystemdCgroup = true",
                "options.SystemdCgroup = false",
            ),
            ("runtime_type = 'a'", "runtime_type = 'b'"),
            ("", "runtime_path = '/other'"),
        ] {
            let error = judged(before, after).expect_err(before);
            assert!(matches!(error, EffectiveError::Changed { .. }), "{error}");
        }
    }

    #[test]
    fn each_value_of_the_runtime_counts() {
        let good = dump("");
        for (old, new) in [
            ("x.v2", "y.v2"),
            ("'/shim'", "'/other'"),
            ("= true", "= false"),
            ("[]", "['a']"),
            ("/kata.toml", "/other.toml"),
        ] {
            let error = judge(&good.replacen(old, new, 1), None, &entry()).expect_err(old);
            assert!(matches!(error, EffectiveError::Differs { .. }), "{error}");
        }
        let error = judge(&good.replace(".runc]", ".crun]"), None, &entry());
        assert!(
            matches!(error, Err(EffectiveError::NoDefault { .. })),
            "{error:?}"
        );
        let (_, runc) = good
            .split_once("ConfigPath = '/kata.toml'\n")
            .expect("runc");
        let lost = format!("{}{runc}", good.replace(".runc]", ".crun]"));
        let error = judge(&good, Some(&lost), &entry());
        assert!(
            matches!(error, Err(EffectiveError::Lost { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn a_plugin_that_is_not_ok_is_named() {
        let one = "TYPE                         ID    PLATFORMS      STATUS    \nio.containerd.grpc.v1        cri   linux/amd64    STATE        \nio.containerd.grpc.v1        leases   -    ok\n";
        assert_eq!(not_running(&one.replace("STATE", "ok")), None);
        let error = not_running(&one.replace("STATE", "error")).expect("broken");
        assert_eq!(error, "io.containerd.grpc.v1.cri is in the state `error`");
        let two = "io.containerd.grpc.v1 cri - ok\nio.containerd.cri.v1 images - ok\nio.containerd.cri.v1 runtime linux/amd64 skip\n";
        let error = not_running(two).expect("broken");
        assert!(
            error.contains("cri.v1.runtime is in the state `skip`"),
            "{error}"
        );
        assert!(not_running("io.containerd.grpc.v1 leases - ok\n").is_some());
    }
}
