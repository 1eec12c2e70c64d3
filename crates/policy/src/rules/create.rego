# --- CreateContainer: who asks, which container it is, and whether it is its turn.

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	count(why_CreateContainerRequest) == 0
	ops := write_state(created_state)
}

CreateContainerRequest := refused(why_CreateContainerRequest) if count(why_CreateContainerRequest) > 0

created_state := {
	"sandbox": sandbox_facts,
	"facts": object.union(state.facts, cluster_facts),
	"volumes": object.union(state.volumes, volume_sources),
	"active": object.union(state.active, {bundle: {"name": container_name, "started": false}}),
	"reached": object.union({container_name: "created"}, state.reached),
}

annotations := mapping(["OCI", "Annotations"])

annotation(key) := value if {
	value := object.get(annotations, key, "")
	is_string(value)
}

container_type := annotation("io.kubernetes.cri.container-type")

is_sandbox if container_type == "sandbox"

is_container if container_type == "container"

# The pause container has the empty name, which no other can have.
container_name := "" if is_sandbox

container_name := annotation("io.kubernetes.cri.container-name") if is_container

entry := object.union(pause, policy_data.sandbox) if is_sandbox

entry := policy_data.containers[position] if is_container

position := index if {
	some index, candidate in policy_data.containers
	candidate.name == container_name
}

# The pause container is the guest's own; the host only says that it is to run.
pause := {
	"apparmor": ["", "cri-containerd.apparmor.d"],
	"args": ["/pause"],
	"capabilities": [
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	],
	"devices": [],
	"env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
	"env_facts": {},
	"files": [],
	"gpus": 0,
	"mounts": [],
	"privileged": false,
	"process": {"Cwd": "/", "NoNewPrivileges": true, "Terminal": false},
	"readonly_root": true,
	"unmasked": false,
}

sandbox_name := annotation("io.kubernetes.cri.sandbox-name")

sandbox_namespace := annotation("io.kubernetes.cri.sandbox-namespace")

# Types of what is read below.
shape := {
	"array": [
		["devices"], ["shared_mounts"], ["storages"], ["OCI", "Mounts"], ["OCI", "Process", "Args"], ["OCI", "Process", "Env"],
		["OCI", "Process", "Rlimits"], ["OCI", "Process", "User", "AdditionalGids"], ["OCI", "Linux", "Devices"],
		["OCI", "Linux", "MaskedPaths"], ["OCI", "Linux", "Namespaces"], ["OCI", "Linux", "ReadonlyPaths"],
	],
	"object": [["OCI"], ["OCI", "Annotations"], ["OCI", "Linux"], ["OCI", "Process"], ["OCI", "Process", "Capabilities"], ["OCI", "Process", "User"], ["OCI", "Root"], ["OCI", "Linux", "Sysctl"], ["OCI", "Linux", "Resources"]],
	"string": [["container_id"], ["exec_id"], ["OCI", "Hostname"], ["OCI", "Linux", "CgroupsPath"], ["OCI", "Linux", "RootfsPropagation"], ["OCI", "Process", "ApparmorProfile"], ["OCI", "Process", "Cwd"], ["OCI", "Root", "Path"], ["OCI", "Version"]],
	"number": [["OCI", "Process", "User", "UID"], ["OCI", "Process", "User", "GID"]],
	"boolean": [["OCI", "Process", "NoNewPrivileges"], ["OCI", "Process", "Terminal"], ["OCI", "Root", "Readonly"]],
}

why_CreateContainerRequest contains reason if {
	some type, paths in shape
	some path in paths
	found := type_name(object.get(input, path, null))
	not found in [type, "null"]
	reason := sprintf("C01 %s: expected %s, found %s", [concat(".", path), type, found])
}

# Fields that no pod uses and that could weaken any.
unused := [
	["sandbox_pidns"], ["shared_mounts"], ["string_user"], ["OCI", "Domainname"], ["OCI", "Hooks"], ["OCI", "Linux", "GIDMappings"],
	["OCI", "Linux", "IntelRdt"], ["OCI", "Linux", "MountLabel"], ["OCI", "Linux", "Resources", "BlockIO"], ["OCI", "Linux", "Resources", "Devices"],
	["OCI", "Linux", "Resources", "HugepageLimits"], ["OCI", "Linux", "Resources", "Memory", "DisableOOMKiller"],
	["OCI", "Linux", "Resources", "Network"], ["OCI", "Linux", "Resources", "Pids"],
	["OCI", "Linux", "Seccomp"], ["OCI", "Linux", "UIDMappings"], ["OCI", "Process", "Rlimits"], ["OCI", "Process", "SelinuxLabel"],
	["OCI", "Process", "User", "Username"], ["OCI", "Solaris"], ["OCI", "Windows"],
]

why_CreateContainerRequest contains reason if {
	some path in unused
	found := object.get(input, path, null)
	not nothing(found)
	reason := sprintf("C02 %s: expected nothing, found %v", [concat(".", path), found])
}

# The container's directory names it everywhere else.
root := text(["OCI", "Root", "Path"])

bundle := id if {
	parts := split(root, "/")
	count(parts) == 5
	parts[0] == ""
	parts[1] == "run"
	parts[2] == "kata-containers"
	parts[4] == "rootfs"
	id := parts[3]
	regex.match(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`, id)
	not contains(id, "..")
	not id in ["sandbox", "shared"]
}

why_CreateContainerRequest contains reason if {
	not bundle
	reason := sprintf("C03 root directory: expected /run/kata-containers/<container id>/rootfs, found %s", [root])
}

# The agent refuses an empty id by itself.
why_CreateContainerRequest contains reason if {
	some field in ["container_id", "exec_id"]
	found := text([field])
	not found in ["", bundle]
	reason := sprintf("C03 %s: expected that of the root directory, %s, found %s", [field, bundle, found])
}

why_CreateContainerRequest contains reason if {
	not is_sandbox
	not is_container
	reason := sprintf("C04 container type: expected sandbox or container, found %v", [object.get(annotations, "io.kubernetes.cri.container-type", null)])
}

why_CreateContainerRequest contains reason if {
	is_container
	not entry
	reason := sprintf("C05 container name: expected one of %s, found %v", [concat(", ", [c.name | some c in policy_data.containers]), object.get(annotations, "io.kubernetes.cri.container-name", null)])
}

why_CreateContainerRequest contains reason if {
	not regex.match(policy_data.name, sandbox_name)
	reason := sprintf("C06 pod name: expected %s, found %v", [policy_data.name, object.get(annotations, "io.kubernetes.cri.sandbox-name", null)])
}

why_CreateContainerRequest contains reason if {
	not regex.match(policy_data.namespace, sandbox_namespace)
	reason := sprintf("C06 namespace: expected %s, found %v", [policy_data.namespace, object.get(annotations, "io.kubernetes.cri.sandbox-namespace", null)])
}

# --- What the first container fixes holds for all.

sandbox_facts := {
	"name": sandbox_name,
	"namespace": sandbox_namespace,
	"id": annotation("io.kubernetes.cri.sandbox-id"),
	"netns": netns,
}

why_CreateContainerRequest contains reason if {
	state.sandbox != null
	some field, expected in state.sandbox
	found := sandbox_facts[field]
	found != expected
	reason := sprintf("C07 %s: expected %s as for the pod's first container, found %s", [field, expected, found])
}

why_CreateContainerRequest contains "C07 facts of the pod: they cannot be read" if not sandbox_facts

why_CreateContainerRequest contains reason if {
	some kind, value in cluster_facts
	expected := state.facts[kind]
	value != expected
	reason := sprintf("C07 %s: expected %s as in an earlier container, found %s", [kind, expected, value])
}

# --- Order: each container once at a time, in the order of the pod, behind all init containers.

why_CreateContainerRequest contains reason if {
	some id, other in state.active
	other.name == container_name
	id != bundle
	reason := sprintf("C08 order: container %s exists already, as %s", [container_name, id])
}

# The runtime may repeat a creation; once started, the id is taken until the container is removed.
why_CreateContainerRequest contains reason if {
	state.active[bundle].started
	reason := sprintf("C08 order: container %s was started already", [bundle])
}

why_CreateContainerRequest contains reason if {
	state.active[bundle].name != container_name
	reason := sprintf("C08 order: the id %s belongs to container %s", [bundle, state.active[bundle].name])
}

why_CreateContainerRequest contains "C08 order: the pod has ended" if {
	state.reached[""] == "ended"
}

why_CreateContainerRequest contains reason if {
	some index, before in policy_data.containers
	index < position
	not before.stage == "main"
	not state.reached[before.name] == done_at[before.stage]
	not state.reached[before.name] == "ended"
	reason := sprintf("C09 order: container %s must have %s before %s is created, it is %s", [before.name, done_at[before.stage], container_name, object.get(state.reached, before.name, "absent")])
}

why_CreateContainerRequest contains reason if {
	some index, before in policy_data.containers
	index < position
	before.stage == "main"
	not state.reached[before.name]
	reason := sprintf("C09 order: container %s must be created before %s", [before.name, container_name])
}

done_at := {"init": "ended", "sidecar": "started"}

# --- Annotations: a closed list, each with its values.

annotation_patterns := {
	"io.containerd.cri.runtime-handler": `^[a-z0-9][a-z0-9.-]*$`,
	"io.kubernetes.container.hash": `^[0-9a-f]+$`,
	"io.kubernetes.container.restartCount": `^[0-9]+$`,
	"io.kubernetes.container.terminationMessagePath": `^/[A-Za-z0-9._/-]+$`,
	"io.kubernetes.container.terminationMessagePolicy": `^(File|FallbackToLogsOnError)$`,
	"io.kubernetes.cri.podsandbox.image-name": `^[A-Za-z0-9./:@_-]+$`,
	"io.kubernetes.cri.sandbox-cpu-period": `^[0-9]+$`,
	"io.kubernetes.cri.sandbox-cpu-quota": `^-?[0-9]+$`,
	"io.kubernetes.cri.sandbox-cpu-shares": `^[0-9]+$`,
	"io.kubernetes.cri.sandbox-id": `^[a-z0-9]{64}$`,
	"io.kubernetes.cri.sandbox-memory": `^[0-9]+$`,
	"io.kubernetes.cri.sandbox-uid": `^[0-9a-f-]{32,36}$`,
	"io.kubernetes.pod.terminationGracePeriod": `^[0-9]+$`,
	"nerdctl/network-namespace": `^/(var/)?run/netns/[A-Za-z0-9_-]+$`,
}

kata_types := {"sandbox": "pod_sandbox", "container": "pod_container"}

annotation_is(key, value) if regex.match(annotation_patterns[key], value)

annotation_is("io.kubernetes.cri.container-type", value) if value in ["sandbox", "container"]

annotation_is("io.katacontainers.pkg.oci.container_type", value) if value == kata_types[container_type]

annotation_is("io.katacontainers.pkg.oci.bundle_path", value) if {
	startswith(value, "/")
	endswith(value, concat("", ["/", bundle]))
	not contains(value, "..")
}

annotation_is("io.kubernetes.cri.container-name", value) if {
	is_container
	value == entry.name
}

annotation_is("io.kubernetes.cri.image-name", value) if {
	is_container
	image_named(value)
}

# Checked above, by C06 and C07.
annotation_is("io.kubernetes.cri.sandbox-name", value) if is_string(value)

annotation_is("io.kubernetes.cri.sandbox-namespace", value) if is_string(value)

annotation_is("io.kubernetes.cri.sandbox-log-directory", value) if {
	is_sandbox
	prefix := concat("", ["/var/log/pods/", sandbox_namespace, "_", sandbox_name, "_"])
	startswith(value, prefix)
	regex.match(`^[0-9a-f-]{32,36}$`, substring(value, count(prefix), -1))
}

# For the hypervisor; nothing in the guest reads them.
annotation_is(key, value) if {
	startswith(key, "io.katacontainers.config.hypervisor.")
	regex.match(`^[A-Za-z0-9+/=]*$`, value)
}

annotation_is(key, value) if {
	is_container
	entry.gpus > 0
	regex.match(`^cdi\.k8s\.io/vfio[0-9]+$`, key)
	regex.match(`^nvidia\.com/p?gpu=[0-9]+$`, value)
}

why_CreateContainerRequest contains reason if {
	some key, value in annotations
	not annotation_is(key, value)
	reason := sprintf("C10 annotation %s: unexpected value %v", [key, value])
}

why_CreateContainerRequest contains "C10 annotation io.kubernetes.cri.image-name: it is missing" if {
	is_container
	not annotations["io.kubernetes.cri.image-name"]
}

# --- The guest pulls exactly the pinned image.

pulls := [storage | some storage in storages; storage.driver == "image_guest_pull"]

image_named(reference) if {
	some repository in entry.image.repositories
	startswith(reference, repository)
	tag := trim_suffix(substring(reference, count(repository), -1), concat("", ["@", entry.image.digest]))
	count(reference) == (count(repository) + count(tag)) + (1 + count(entry.image.digest))
	regex.match(`^(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$`, tag)
}

why_CreateContainerRequest contains reason if {
	is_container
	count(pulls) != 1
	reason := sprintf("C11 image: expected one image to pull in the guest, found %d", [count(pulls)])
}

why_CreateContainerRequest contains reason if {
	is_container
	some pull in pulls
	not image_named(pull.source)
	reason := sprintf("C11 image: expected %s@%s, found %v", [entry.image.repositories[0], entry.image.digest, shown(pull, "source")])
}

why_CreateContainerRequest contains reason if {
	is_sandbox
	count(pulls) > 1
	reason := "C11 image: expected the guest's own pause image at most once"
}

why_CreateContainerRequest contains reason if {
	is_sandbox
	some pull in pulls
	pull.source != "pause"
	reason := sprintf("C11 image: expected the guest's own pause image, found %v", [pull.source])
}

why_CreateContainerRequest contains reason if {
	some pull in pulls
	not pull_plain(pull)
	reason := "C12 image: expected a plain overlay at the root directory, with one option that carries the request's annotations"
}

pull_plain(pull) if {
	is_string(pull.source)
	pull.fstype == "overlay"
	pull.mount_point == root
	nothing(object.get(pull, "fs_group", null))
	nothing(object.get(pull, "options", null))
	nothing(object.get(pull, "shared", null))
	count(pull.driver_options) == 1
	option := pull.driver_options[0]
	startswith(option, "image_guest_pull=")
	pulled := json.unmarshal(substring(option, count("image_guest_pull="), -1))
	object.keys(pulled) == {"metadata"}
	pulled.metadata["io.kubernetes.cri.container-type"] == container_type
	every key, value in pulled.metadata {
		annotation_is(key, value)
		object.get(annotations, key, value) == value
	}
}
