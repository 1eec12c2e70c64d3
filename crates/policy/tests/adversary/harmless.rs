//! Changes that a policy may let pass, and why.

use serde_json::Value;

use crate::honest::Request;

/// A class of changes.
#[derive(Debug)]
pub(crate) struct Harmless {
    pub(crate) name: &'static str,
    /// Kinds of request; empty for any.
    kinds: &'static [&'static str],
    /// Roles of the request; empty for any.
    roles: &'static [&'static str],
    /// Beginnings of the field's path; empty for any.
    places: &'static [&'static str],
    /// What was done to it; empty for anything.
    changes: &'static [&'static str],
    pub(crate) reason: &'static str,
}

const CREATE: &[&str] = &["CreateContainerRequest"];
const ANY: &[&str] = &[];
const LEFT_OUT: &[&str] = &["drop", "null", "empty", "duplicate"];

/// In the order in which they are tried.
pub(crate) const CLASSES: &[Harmless] = &[
    Harmless {
        name: "default left out",
        kinds: ANY,
        roles: ANY,
        places: &["=default"],
        changes: &["drop", "null", "empty", "other type"],
        reason: "an absent field has its default in protobuf, and that is the honest value",
    },
    Harmless {
        name: "order of a set",
        kinds: ANY,
        roles: ANY,
        places: &[
            "/OCI/Process/Capabilities",
            "/OCI/Process/Env",
            "/OCI/Process/User/AdditionalGids",
            "/OCI/Linux/MaskedPaths",
            "/OCI/Linux/ReadonlyPaths",
            "/OCI/Linux/Namespaces",
            "/OCI/Mounts",
            "/storages",
            "/process/Env",
        ],
        changes: &["reverse"],
        reason: "the order has no meaning: sets, distinct names, options, and mounts that the runtime sorts",
    },
    Harmless {
        name: "hidden twice",
        kinds: CREATE,
        roles: ANY,
        places: &["/OCI/Linux/MaskedPaths", "/OCI/Linux/ReadonlyPaths"],
        changes: &["duplicate"],
        reason: "hiding a path again hides the same path",
    },
    Harmless {
        name: "paths that not every runtime hides",
        kinds: CREATE,
        roles: ANY,
        places: &[
            "/OCI/Linux/MaskedPaths/~proc~asound",
            "/OCI/Linux/MaskedPaths/~sys~devices~virtual~powercap",
        ],
        changes: &["drop"],
        reason: "older versions of containerd leave them visible, and they show hardware only",
    },
    Harmless {
        name: "no mounts at all",
        kinds: CREATE,
        roles: ANY,
        places: &["=/OCI/Mounts"],
        changes: &["drop", "null", "empty"],
        reason: "only a container that declares none can do without, see the next class",
    },
    Harmless {
        name: "mounts of the system",
        kinds: CREATE,
        roles: &["container", "privileged"],
        places: &[
            "/OCI/Mounts/~dev",
            "/OCI/Mounts/~proc",
            "/OCI/Mounts/~sys",
            "/OCI/Mounts/~etc~hostname",
            "/OCI/Mounts/~etc~hosts",
            "/OCI/Mounts/~etc~resolv.conf",
            "/OCI/Mounts/~var~run~secrets~kubernetes.io~serviceaccount",
        ],
        changes: &["drop"],
        reason: "without them a program lacks something and nothing of the host takes its place; declared volumes are required",
    },
    Harmless {
        name: "privileged containers see everything",
        kinds: CREATE,
        roles: &["privileged"],
        places: &[
            "/OCI/Linux/MaskedPaths",
            "/OCI/Linux/ReadonlyPaths",
            "/OCI/Linux/Devices",
        ],
        changes: ANY,
        reason: "known paths may be hidden from them or not; numbers of a device are the agent's, found by the declared device",
    },
    Harmless {
        name: "pause container",
        kinds: CREATE,
        roles: &["pause"],
        places: &[
            "/OCI/Mounts",
            "/OCI/Process/Env",
            "/OCI/Process/User",
            "/storages",
            "/OCI/Annotations/io.kubernetes.cri.sandbox-uid",
        ],
        changes: &[
            "drop",
            "null",
            "empty",
            "plus one",
            "minus one",
            "duplicate",
            "reverse",
        ],
        reason: "it runs the guest's own /pause, which reads nothing; without a root file system it does not start",
    },
    Harmless {
        name: "for the host only",
        kinds: CREATE,
        roles: ANY,
        places: &["/OCI/Annotations/"],
        changes: &["drop"],
        reason: "what an absent annotation would have said is only read by the host; the ones that identify the container are required",
    },
    Harmless {
        name: "resources",
        kinds: CREATE,
        roles: ANY,
        places: &[
            "/OCI/Linux/Resources",
            "/OCI/Process/OOMScoreAdj",
            "/OCI/Linux/CgroupsPath",
            "/stdin_port",
            "/stdout_port",
            "/stderr_port",
        ],
        changes: ANY,
        reason: "availability is the host's: it can stop the whole VM; devices, swap and huge pages are refused",
    },
    Harmless {
        name: "variables of Kubernetes",
        kinds: CREATE,
        roles: ANY,
        places: &[
            "/OCI/Process/Env/API_",
            "/OCI/Process/Env/KUBERNETES_",
            "/OCI/Process/Env/HOSTNAME",
        ],
        changes: &["drop"],
        reason: "addresses of Services and the host name are the host's to say; the pod did not declare them",
    },
    Harmless {
        name: "facts of the cluster",
        kinds: CREATE,
        roles: ANY,
        places: &[
            "/OCI/Process/Env/NODE",
            "/OCI/Process/Env/IP",
            "/OCI/Process/Env/HOST",
            "/OCI/Process/Env/CPU",
        ],
        changes: &["append"],
        reason: "only the cluster knows the value; it has the right form and stays the same for the whole pod",
    },
    Harmless {
        name: "profile that nobody loads",
        kinds: CREATE,
        roles: ANY,
        places: &["/OCI/Process/ApparmorProfile", "/OCI/Process/ConsoleSize"],
        changes: ANY,
        reason: "the guest loads no AppArmor profile; known names pass. A console size draws characters",
    },
    Harmless {
        name: "host name left out",
        kinds: CREATE,
        roles: ANY,
        places: &["/OCI/Hostname"],
        changes: LEFT_OUT,
        reason: "the sandbox has it already",
    },
    Harmless {
        name: "id left out",
        kinds: CREATE,
        roles: ANY,
        places: &["/container_id", "/exec_id"],
        changes: LEFT_OUT,
        reason: "the agent refuses an empty id; the policy goes by the root directory",
    },
    Harmless {
        name: "disk of the host",
        kinds: CREATE,
        roles: ANY,
        places: &[
            "/devices/~dev~csi0/id",
            "/devices/~dev~csi0/vm_path",
            "/devices/~dev~image_store/id",
            "/devices/~dev~image_store/vm_path",
            "/OCI/Linux/Devices/b",
        ],
        changes: ANY,
        reason: "which disk is behind a declared block device is the host's to say; whoever opens it encrypts or authenticates what is on it",
    },
    Harmless {
        name: "root that only receives",
        kinds: CREATE,
        roles: &["container"],
        places: &["/OCI/Linux/RootfsPropagation"],
        changes: LEFT_OUT,
        reason: "the guest's default is the same, `rslave`; where a mount is shared, the propagation is required",
    },
    Harmless {
        name: "life and owner of a volume",
        kinds: CREATE,
        roles: ANY,
        places: &[
            "/storages/blk/shared",
            "/storages/ephemeral/shared",
            "/storages/blk/fs_group",
            "/storages/ephemeral/options",
            "/storages/blk/driver_options",
        ],
        changes: &["drop", "null", "flip", "empty"],
        reason: "an emptyDir that is not shared or has no group serves fewer; the rules demand its encryption where it is declared",
    },
    Harmless {
        name: "white space in JSON",
        kinds: CREATE,
        roles: ANY,
        places: &["/storages/image_guest_pull/driver_options"],
        changes: &["newline", "space"],
        reason: "it means the same",
    },
    Harmless {
        name: "network",
        kinds: &[
            "UpdateInterfaceRequest",
            "UpdateRoutesRequest",
            "AddARPNeighborsRequest",
        ],
        roles: ANY,
        places: ANY,
        changes: ANY,
        reason: "the host is the network; what leaves the pod is protected by TLS. Loopback is refused",
    },
    Harmless {
        name: "names of the sandbox",
        kinds: &["CreateSandboxRequest"],
        roles: ANY,
        places: &[
            "/dns",
            "/hostname",
            "/sandbox_id",
            "/storages/ephemeral/shared",
            "/storages/ephemeral/options",
        ],
        changes: ANY,
        reason: "DNS is the host's; names identify nothing; shared memory may have another size",
    },
    Harmless {
        name: "no sandbox, or less of it",
        kinds: &["CreateSandboxRequest"],
        roles: ANY,
        places: ANY,
        changes: &["drop", "null", "empty", "left out", "replayed"],
        reason: "the agent creates no container without a sandbox; before the first container it may be set up again",
    },
    Harmless {
        name: "content that is not bound",
        kinds: &["CopyFileRequest"],
        roles: &["free file", "directory", "link"],
        places: &["/data_sha256", "/file_size", "/offset"],
        changes: ANY,
        reason: "name resolution, tokens, the downward API and volumes that the pod calls mutable are the host's to fill",
    },
    Harmless {
        name: "another file of a mutable volume",
        kinds: &["CopyFileRequest"],
        roles: &["free file", "link", "directory"],
        places: &["/path"],
        changes: &["append"],
        reason: "the pod gives up which files such a volume has",
    },
    Harmless {
        name: "owner and permissions of a copy",
        kinds: &["CopyFileRequest"],
        roles: ANY,
        places: &["/uid", "/gid", "/dir_mode", "/file_mode"],
        changes: ANY,
        reason: "they decide who in the container reads it; set-user-id and set-group-id are refused",
    },
    Harmless {
        name: "target of what is no link",
        kinds: &["CopyFileRequest"],
        roles: &["free file", "bound file", "directory"],
        places: &["/symlink_target"],
        changes: ANY,
        reason: "the agent reads it for links only",
    },
    Harmless {
        name: "environment of a probe",
        kinds: &["ExecProcessRequest"],
        roles: ANY,
        places: &["/process/Env", "/process/User"],
        changes: &[
            "drop",
            "null",
            "empty",
            "duplicate",
            "reverse",
            "other type",
        ],
        reason: "a probe with less can only fail, and its result is the host's to use",
    },
    Harmless {
        name: "signals, and names of probes",
        kinds: &[
            "SignalProcessRequest",
            "ExecProcessRequest",
            "WaitProcessRequest",
        ],
        roles: ANY,
        places: &["/exec_id", "/signal", "/process/Capabilities"],
        changes: ANY,
        reason: "the host may end any process; a probe's name is its own, and it gets no capabilities but the container's",
    },
    Harmless {
        name: "output of the mesh's check",
        kinds: &["ReadStreamRequest"],
        roles: ANY,
        places: &["/exec_id", "/len"],
        changes: ANY,
        reason: "of the sidecar's commands only; the sidecar's own output has the container's id, or none, and is refused",
    },
    Harmless {
        name: "questions",
        kinds: &[
            "DestroySandboxRequest",
            "GetOOMEventRequest",
            "GuestDetailsRequest",
        ],
        roles: ANY,
        places: ANY,
        changes: ANY,
        reason: "they change nothing that runs, or end the pod; nothing in them is read",
    },
    Harmless {
        name: "left out or repeated",
        kinds: &[
            "CopyFileRequest",
            "ExecProcessRequest",
            "ReadStreamRequest",
            "SignalProcessRequest",
            "StatsContainerRequest",
            "WaitProcessRequest",
        ],
        roles: ANY,
        places: &["=whole"],
        changes: &["left out", "replayed"],
        reason: "a file that is missing is seen to be missing, the same content may come again; the rest only looks, or ends something",
    },
    Harmless {
        name: "created again before it starts",
        kinds: CREATE,
        roles: ANY,
        places: &["=whole"],
        changes: &["replayed"],
        reason: "runtimes repeat a creation after a timeout; only one process can be started under the id",
    },
    Harmless {
        name: "never started, never removed",
        kinds: &["StartContainerRequest", "RemoveContainerRequest"],
        roles: ANY,
        places: &["=whole"],
        changes: &["left out"],
        reason: "what does not start does nothing; where later containers rely on it they are refused",
    },
];

/// Requests about which the rules remember nothing.
const WITHOUT_MEMORY: &[&str] = &[
    "AddARPNeighborsRequest",
    "CopyFileRequest",
    "DestroySandboxRequest",
    "ExecProcessRequest",
    "GetOOMEventRequest",
    "GuestDetailsRequest",
    "ReadStreamRequest",
    "SignalProcessRequest",
    "StatsContainerRequest",
    "UpdateInterfaceRequest",
    "UpdateRoutesRequest",
    "WaitProcessRequest",
];

/// Two neighbours in exchanged order.
pub(crate) const EXCHANGED: Harmless = Harmless {
    name: "exchanged with a request without memory",
    kinds: WITHOUT_MEMORY,
    roles: ANY,
    places: ANY,
    changes: &["exchanged"],
    reason: "the rules keep no memory of it, so it means the same before and after its neighbour",
};

/// The class of a change of one field, or of a whole request (`place` is empty).
pub(crate) fn of(request: &Request, place: &str, change: &str) -> Option<&'static Harmless> {
    let is_default = is_default(request, place);
    CLASSES.iter().find(|class| {
        let kind = class.kinds.is_empty() || class.kinds.contains(&request.kind);
        let role = class.roles.is_empty() || class.roles.contains(&request.role);
        let in_place = class.places.is_empty()
            || class.places.iter().any(|beginning| match *beginning {
                "=default" => is_default,
                "=whole" => place.is_empty(),
                "=/OCI/Mounts" => place == "/OCI/Mounts",
                beginning => place.starts_with(beginning),
            });
        let change = class.changes.is_empty() || class.changes.contains(&change);
        kind && role && in_place && change
    })
}

/// The class of two neighbouring requests in exchanged order.
pub(crate) fn exchanged(first: &str, second: &str) -> Option<&'static Harmless> {
    let one = WITHOUT_MEMORY.contains(&first) || WITHOUT_MEMORY.contains(&second);
    one.then_some(&EXCHANGED)
}

/// Whether the honest value of a field is protobuf's default. Places of list elements name what they are about.
fn is_default(request: &Request, place: &str) -> bool {
    let value = place
        .split('/')
        .skip(1)
        .try_fold(&request.body, |value, part| {
            let key = part.replace("~1", "/").replace("~0", "~");
            match value {
                Value::Array(items) => items
                    .iter()
                    .find(|item| crate::mutation::about(item) == part),
                other => other.get(key),
            }
        });
    match value {
        None => false,
        Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Bool(true)) => false,
    }
}
