# Rules for kata-agent, the same for every pod. `policy_data`, appended below, says what the pod may be.
#
# State lives in `data.pstate` and is changed by the JSON patches (`ops`) that an allowed request returns:
#   sandbox:  {name, namespace, id} of the first container
#   active:   {container id: number of the container in policy_data.containers}
#   created:  {number: true} for every container that was ever created
#   started:  {number: true} for every container that was ever started
#   links:    {path: true} for every symbolic link that the host made through CopyFile
package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

# Requests that cannot change what runs, or only end it.
default DestroySandboxRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default OnlineCPUMemRequest := true
default RemoveStaleVirtiofsShareMountsRequest := true
default SignalProcessRequest := true
default StatsContainerRequest := true
default TtyWinResizeRequest := true
default WaitProcessRequest := true
# Logs: what a container prints is visible to the host.
default ReadStreamRequest := true

default AddARPNeighborsRequest := false
default AddSwapRequest := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default ExecProcessRequest := false
default GetDiagnosticDataRequest := false
default GetIPTablesRequest := false
default GetMetricsRequest := false
default ListInterfacesRequest := false
default ListRoutesRequest := false
default MemHotplugByProbeRequest := false
default PauseContainerRequest := false
default RemoveContainerRequest := false
default ReseedRandomDevRequest := false
default ResizeVolumeRequest := false
default ResumeContainerRequest := false
default SetGuestDateTimeRequest := false
default SetIPTablesRequest := false
default SetPolicyRequest := false
default StartContainerRequest := false
default StartTracingRequest := false
default StopTracingRequest := false
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default VolumeStatsRequest := false
default WriteStreamRequest := false

default state := {"sandbox": null, "active": {}, "created": {}, "started": {}, "links": {}}
state := data.pstate

write_state(new) := [{"op": "add", "path": "/pstate", "value": new}]

# --- CreateSandbox

CreateSandboxRequest if {
	input.guest_hook_path == ""
	count(input.kernel_modules) == 0
	input.sandbox_pidns == false
	every storage in input.storages {
		storage.driver == "ephemeral"
		storage.fstype == "tmpfs"
		storage.mount_point == "/run/kata-containers/sandbox/shm"
	}
}

# --- CreateContainer

annotations := input.OCI.Annotations

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	annotations["io.kubernetes.cri.container-type"] == "sandbox"
	count(sandbox_denials) == 0
	ops := write_state(object.union(state, {"sandbox": {
		"name": annotations["io.kubernetes.cri.sandbox-name"],
		"namespace": annotations["io.kubernetes.cri.sandbox-namespace"],
		"id": input.container_id,
	}}))
}

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	annotations["io.kubernetes.cri.container-type"] == "container"
	count(container_denials) == 0
	ops := write_state(object.union(state, {
		"active": object.union(state.active, {input.container_id: number}),
		"created": object.union(state.created, {sprintf("%d", [number]): true}),
	}))
}

# Number of the container in the policy: containers are known by name, everything else must agree with that entry.
number := index if {
	some index, candidate in policy_data.containers
	candidate.name == annotations["io.kubernetes.cri.container-name"]
}

container := policy_data.containers[number]

# Every reason why the request is refused. An empty set is a permission, so each rule fails closed: what cannot be read is a
# reason, too.
sandbox_denials contains "the pod's first container was created already" if state.sandbox != null

sandbox_denials contains reason if {
	not name_matches
	reason := sprintf("sandbox name: expected to match %s, found %v", [policy_data.sandbox_name, object.get(annotations, "io.kubernetes.cri.sandbox-name", null)])
}

sandbox_denials contains reason if {
	not namespace_matches
	reason := sprintf("namespace: expected %s, found %v", [policy_data.namespace, object.get(annotations, "io.kubernetes.cri.sandbox-namespace", null)])
}

sandbox_denials contains reason if {
	object.get(input.OCI.Process, "Args", null) != ["/pause"]
	reason := sprintf("arguments of the first container: expected [\"/pause\"], found %v", [object.get(input.OCI.Process, "Args", null)])
}

sandbox_denials contains reason if some reason in common_denials

container_denials contains reason if {
	not container
	reason := sprintf("container name: expected one of %v, found %v", [[c.name | some c in policy_data.containers], object.get(annotations, "io.kubernetes.cri.container-name", null)])
}

container_denials contains "the pod's first container was not created yet" if state.sandbox == null

container_denials contains reason if {
	state.sandbox != null
	found := object.get(annotations, "io.kubernetes.cri.sandbox-name", null)
	found != state.sandbox.name
	reason := sprintf("sandbox name: expected %s as for the first container, found %v", [state.sandbox.name, found])
}

container_denials contains reason if {
	not namespace_matches
	reason := sprintf("namespace: expected %s, found %v", [policy_data.namespace, object.get(annotations, "io.kubernetes.cri.sandbox-namespace", null)])
}

container_denials contains reason if {
	some earlier, before in policy_data.containers
	earlier < number
	not state.created[sprintf("%d", [earlier])]
	reason := sprintf("order: container %s must be created before %s", [before.name, container.name])
}

container_denials contains reason if {
	some _, active in state.active
	active == number
	reason := sprintf("container %s exists already", [container.name])
}

# An id names one container: a second one under it could borrow what the first may do.
container_denials contains "container id: it is in use already" if {
	input.container_id in object.keys(state.active)
}

container_denials contains "container id: it is the sandbox's" if {
	state.sandbox != null
	input.container_id == state.sandbox.id
}

container_denials contains "container id: it is missing" if not is_string(input.container_id)

container_denials contains "arguments: they are missing" if not input.OCI.Process.Args

container_denials contains reason if {
	not image_matches
	reason := sprintf("image: expected digest %s in both the pulled source and the annotation, found %v and %v", [container.image_digest, pulled_images, object.get(annotations, "io.kubernetes.cri.image-name", null)])
}

container_denials contains reason if {
	found := object.get(input.OCI.Process, "Args", null)
	found != container.args
	reason := sprintf("arguments: expected %v, found %v", [container.args, found])
}

container_denials contains reason if {
	some variable in object.get(input.OCI.Process, "Env", [])
	not env_allowed(variable)
	reason := sprintf("environment: %s is not declared", [variable])
}

container_denials contains reason if {
	some required in container.env
	not env_present(required)
	reason := sprintf("environment: declared variable %s is missing", [required.name])
}

container_denials contains reason if {
	names := [split(variable, "=")[0] | some variable in object.get(input.OCI.Process, "Env", [])]
	some position, name in names
	some other, same in names
	position < other
	name == same
	reason := sprintf("environment: %s is given twice", [name])
}

container_denials contains reason if {
	container.uid != null
	found := object.get(input.OCI.Process.User, "UID", null)
	found != container.uid
	reason := sprintf("user: expected uid %v, found %v", [container.uid, found])
}

container_denials contains reason if {
	container.gid != null
	found := object.get(input.OCI.Process.User, "GID", null)
	found != container.gid
	reason := sprintf("user: expected gid %v, found %v", [container.gid, found])
}

container_denials contains reason if {
	container.cwd != null
	found := object.get(input.OCI.Process, "Cwd", null)
	found != container.cwd
	reason := sprintf("working directory: expected %v, found %v", [container.cwd, found])
}

container_denials contains reason if {
	found := object.get(input.OCI.Process, "Terminal", null)
	found != container.terminal
	reason := sprintf("terminal: expected %v, found %v", [container.terminal, found])
}

container_denials contains reason if {
	found := object.get(input.OCI.Root, "Readonly", null)
	found != container.readonly_root
	reason := sprintf("read-only root file system: expected %v, found %v", [container.readonly_root, found])
}

container_denials contains reason if {
	some mount in object.get(input.OCI, "Mounts", [])
	not mount_allowed(mount)
	reason := sprintf("mount: %v from %v is not declared", [object.get(mount, "destination", null), object.get(mount, "source", null)])
}

container_denials contains reason if {
	some set in ["Bounding", "Effective", "Inheritable", "Permitted", "Ambient"]
	some capability in object.get(input.OCI.Process.Capabilities, set, [])
	not capability_allowed(capability)
	reason := sprintf("capability %s is not declared", [capability])
}

container_denials contains reason if {
	some device in object.get(input, "devices", [])
	not device.container_path in container.devices
	reason := sprintf("device %v is not declared", [object.get(device, "container_path", null)])
}

container_denials contains reason if some reason in common_denials

# Fields that no pod of ours uses and that could weaken any.
common_denials contains "root file system: it is missing" if not input.OCI.Root.Path

common_denials contains "hooks must be absent" if object.get(input.OCI, "Hooks", null) != null

common_denials contains "shared mounts must be absent" if count(object.get(input, "shared_mounts", [])) > 0

common_denials contains "a seccomp profile must be absent" if object.get(input.OCI.Linux, "Seccomp", null) != null

common_denials contains "the container must not share its process namespace" if object.get(input, "sandbox_pidns", false) != false

common_denials contains reason if {
	root := object.get(input.OCI.Root, "Path", "")
	not regex.match(`^/run/kata-containers/[a-z0-9.-]+/rootfs$`, root)
	reason := sprintf("root file system: unexpected path %s", [root])
}

common_denials contains reason if {
	some storage in object.get(input, "storages", [])
	not storage_allowed(storage)
	reason := sprintf("storage: driver %v at %v is not allowed", [object.get(storage, "driver", null), object.get(storage, "mount_point", null)])
}

name_matches if regex.match(policy_data.sandbox_name, annotations["io.kubernetes.cri.sandbox-name"])

namespace_matches if annotations["io.kubernetes.cri.sandbox-namespace"] == policy_data.namespace

pulled_images := [storage.source | some storage in object.get(input, "storages", []); storage.driver == "image_guest_pull"]

image_matches if {
	suffix := concat("", ["@", container.image_digest])
	count(pulled_images) == 1
	endswith(pulled_images[0], suffix)
	endswith(annotations["io.kubernetes.cri.image-name"], suffix)
}

env_allowed(variable) if {
	some declared in container.env
	env_is(declared, variable)
}

env_allowed(variable) if {
	some pattern in policy_data.env_patterns
	regex.match(pattern, variable)
}

env_present(declared) if {
	some variable in object.get(input.OCI.Process, "Env", [])
	env_is(declared, variable)
}

env_is(declared, variable) if {
	declared.value != null
	variable == concat("=", [declared.name, declared.value])
}

env_is(declared, variable) if {
	declared.value == null
	prefix := concat("", [declared.name, "="])
	startswith(variable, prefix)
	regex.match(declared.pattern, substring(variable, count(prefix), -1))
}

# Destinations are exact; a source is a kernel file system, something of this container in the shared directory, or an
# in-guest volume.
mount_allowed(mount) if {
	mount.destination in container.mounts
	source_allowed(mount)
}

source_allowed(mount) if mount.source in {"proc", "tmpfs", "devpts", "shm", "mqueue", "sysfs", "cgroup", "cgroup2"}

source_allowed(mount) if {
	regex.match(`^/run/kata-containers/(shared/containers/|sandbox/)[A-Za-z0-9._/=-]+$`, mount.source)
	not contains(mount.source, "..")
}

storage_allowed(storage) if storage.driver == "image_guest_pull"

storage_allowed(storage) if {
	storage.driver in {"local", "ephemeral", "watchable-bind"}
	not contains(storage.mount_point, "..")
	startswith(storage.mount_point, "/run/kata-containers/")
}

capability_allowed(capability) if trim_prefix(capability, "CAP_") in container.capabilities

capability_allowed(_) if container.privileged

# --- StartContainer: no container starts before the gates did.

StartContainerRequest := {"allowed": true, "ops": ops} if {
	started := state.active[input.container_id]
	count(start_denials) == 0
	ops := write_state(object.union(state, {"started": object.union(state.started, {sprintf("%d", [started]): true})}))
}

StartContainerRequest if {
	state.sandbox != null
	state.sandbox.id == input.container_id
}

start_denials contains reason if {
	number := state.active[input.container_id]
	some gate, before in policy_data.containers
	gate < number
	before.gate
	not state.started[sprintf("%d", [gate])]
	reason := sprintf("container %s must be started first", [before.name])
}

start_denials contains "no such container" if {
	not input.container_id in object.keys(state.active)
	not is_sandbox
}

is_sandbox if {
	state.sandbox != null
	state.sandbox.id == input.container_id
}

# --- RemoveContainer: a removed container may be created again.

RemoveContainerRequest := {"allowed": true, "ops": ops} if {
	ops := write_state(object.union(object.remove(state, ["active"]), {"active": object.remove(state.active, [input.container_id])}))
}

# --- ExecProcess: only the probes that the pod declares.

ExecProcessRequest if {
	executing := policy_data.containers[state.active[input.container_id]]
	some command in executing.exec_commands
	input.process.Args == command
	input.process.Terminal == false
}

# --- CopyFile: below the container share, never through a symbolic link.

share := `^/run/kata-containers/shared/containers/(watchable/)?[A-Za-z0-9_.-]+(/[A-Za-z0-9_. ()+@=,:-]+)*$`

copy_path_allowed if {
	regex.match(share, input.path)
	not dotted(input.path)
	not through_link(input.path)
}

dotted(path) if {
	some part in split(path, "/")
	part in {".", ".."}
}

through_link(path) if {
	some link, _ in state.links
	startswith(path, concat("", [link, "/"]))
}

through_link(path) if state.links[path]

file_kind := object.get(input, "file_type", null)

CopyFileRequest if {
	copy_path_allowed
	file_kind in {"Regular", "Directory"}
}

# The kubelet's atomic writer links `..data` and files to siblings. A link is made once, stays in its directory and is
# remembered.
CopyFileRequest := {"allowed": true, "ops": ops} if {
	regex.match(share, input.path)
	file_kind == "Symlink"
	not through_link(input.path)
	not startswith(input.symlink_target, "/")
	not dotted(input.symlink_target)
	count(split(input.path, "/")) > 6
	ops := write_state(object.union(state, {"links": object.union(state.links, {input.path: true})}))
}

# --- Network

UpdateInterfaceRequest if {
	input.interface.name != "lo"
	input.interface.hwAddr != "00:00:00:00:00:00"
	bits.and(input.interface.raw_flags, bits.negate(128)) == 0
}

UpdateRoutesRequest if {
	every route in input.routes.Routes {
		route.device != "lo"
		not startswith(route.source, "127.")
		route.source != "::1"
	}
}

AddARPNeighborsRequest if {
	every neighbor in input.neighbors.ARPNeighbors {
		neighbor.device != "lo"
		not startswith(neighbor.toIPAddress.address, "127.")
		neighbor.toIPAddress.mask == ""
		neighbor.state in {2, 128}
		bits.and(neighbor.flags, bits.negate(136)) == 0
	}
}

# --- What `contrast policy explain` and error messages show.

denials contains reason if {
	annotations["io.kubernetes.cri.container-type"] == "sandbox"
	some reason in sandbox_denials
}

denials contains reason if {
	annotations["io.kubernetes.cri.container-type"] == "container"
	some reason in container_denials
}

denials contains reason if {
	not input.OCI
	some reason in start_denials
}
