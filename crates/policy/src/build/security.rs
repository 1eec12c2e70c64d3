//! Capabilities and profiles.

use serde_json::Value;

use super::fields::words;

/// Capabilities that containerd gives a container by default, ascending.
pub(crate) const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The capabilities that only privileged containers have by default (capabilities(7), Linux 5.9 and later).
const FURTHER_CAPABILITIES: [&str; 27] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// Names with their prefix, ascending.
pub(super) fn capabilities(security: &Value) -> Vec<String> {
    let named = |key: &str| -> Vec<String> {
        words(&security["capabilities"][key])
            .iter()
            .map(|name| name.to_ascii_uppercase())
            .map(|name| match name.starts_with("CAP_") || name == "ALL" {
                true => name,
                false => format!("CAP_{name}"),
            })
            .collect()
    };
    let (added, dropped) = (named("add"), named("drop"));
    let all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let mut kept: Vec<String> = Vec::new();
    if security["privileged"] == true || all(&added) {
        kept.extend(FURTHER_CAPABILITIES.map(str::to_owned));
    }
    if security["privileged"] == true || all(&added) || !all(&dropped) {
        kept.extend(DEFAULT_CAPABILITIES.map(str::to_owned));
    }
    if security["privileged"] != true {
        kept.extend(added.into_iter().filter(|name| name != "ALL"));
        kept.retain(|name| !dropped.contains(name));
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Names that runtimes put into a request. The guest's kernel loads no profile.
pub(super) fn apparmor(pod: &Value, container: &Value) -> Vec<String> {
    let own = [container, pod]
        .iter()
        .map(|security| &security["appArmorProfile"])
        .find(|profile| profile.is_object());
    let declared = own.and_then(|profile| match profile["type"].as_str()? {
        "Unconfined" => Some("unconfined".to_owned()),
        "Localhost" => profile["localhostProfile"].as_str().map(str::to_owned),
        _ => None,
    });
    let mut names = vec![String::new(), "cri-containerd.apparmor.d".to_owned()];
    names.extend(declared);
    names
}
