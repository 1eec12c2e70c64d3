# --- StartContainer: each once, and none before the init containers of the pod.

container_id := text(["container_id"])

running := state.active[container_id]

StartContainerRequest := {"allowed": true, "ops": ops} if {
	count(why_StartContainerRequest) == 0
	ops := write_state(with_container(object.union(running, {"started": true}), "started"))
}

StartContainerRequest := refused(why_StartContainerRequest) if count(why_StartContainerRequest) > 0

with_container(container, reached) := {
	"sandbox": state.sandbox,
	"facts": state.facts,
	"volumes": state.volumes,
	"active": object.union(object.remove(state.active, [container_id]), {container_id: container}),
	"reached": object.union(state.reached, {container.name: reached}),
}

why_StartContainerRequest contains reason if {
	not running
	reason := sprintf("R01 no container has the id %s", [container_id])
}

why_StartContainerRequest contains reason if {
	running.started
	reason := sprintf("R02 container %s was started already", [container_id])
}

why_StartContainerRequest contains reason if {
	some index, container in policy_data.containers
	container.name == running.name
	some earlier, before in policy_data.containers
	earlier < index
	before.stage == "sidecar"
	not state.reached[before.name] in ["started", "ended"]
	reason := sprintf("R03 container %s must be started before %s", [before.name, running.name])
}

# --- RemoveContainer: what was removed may be created again, by another id.

RemoveContainerRequest := {"allowed": true, "ops": ops} if {
	count(why_RemoveContainerRequest) == 0
	ops := write_state({
		"sandbox": state.sandbox,
		"facts": state.facts,
		"volumes": state.volumes,
		"active": object.remove(state.active, [container_id]),
		"reached": object.union(state.reached, ended),
	})
}

RemoveContainerRequest := refused(why_RemoveContainerRequest) if count(why_RemoveContainerRequest) > 0

ended := {running.name: "ended"} if running.started

ended := {} if not running.started

why_RemoveContainerRequest contains reason if {
	not running
	reason := sprintf("R01 no container has the id %s", [container_id])
}

# --- Requests about a container that exists.

known contains reason if {
	not running
	reason := sprintf("R01 no container has the id %s", [container_id])
}

SignalProcessRequest if count(known) == 0

SignalProcessRequest := refused(known) if count(known) > 0

StatsContainerRequest if count(known) == 0

StatsContainerRequest := refused(known) if count(known) > 0

TtyWinResizeRequest if count(known) == 0

TtyWinResizeRequest := refused(known) if count(known) > 0

WaitProcessRequest if count(known) == 0

WaitProcessRequest := refused(known) if count(known) > 0

# --- Streams: what a container prints, and what it reads, is for the host only where the pod says so. What the commands print that
# may be executed in the sidecar of the service mesh is for the host, too.

ReadStreamRequest if count(why_ReadStreamRequest) == 0

ReadStreamRequest := refused(why_ReadStreamRequest) if count(why_ReadStreamRequest) > 0

why_ReadStreamRequest contains "R04 the host may not read output; the annotation contrast.edgeless.systems/streams allows it" if {
	not "read" in policy_data.streams
	not of_readable_command
}

# The container's own process has the container's id, or no id.
of_readable_command if {
	executing.exec_output
	not text(["exec_id"]) in ["", "!", container_id]
}

why_ReadStreamRequest contains reason if some reason in known

WriteStreamRequest if count(why_WriteStreamRequest) == 0

WriteStreamRequest := refused(why_WriteStreamRequest) if count(why_WriteStreamRequest) > 0

CloseStdinRequest if count(why_WriteStreamRequest) == 0

CloseStdinRequest := refused(why_WriteStreamRequest) if count(why_WriteStreamRequest) > 0

why_WriteStreamRequest contains "R05 the host may not write input; the annotation contrast.edgeless.systems/streams allows it" if {
	not "write" in policy_data.streams
}

why_WriteStreamRequest contains reason if some reason in known

# --- ExecProcess: the probes and hooks of the container, and the check of the sidecar of the service mesh, as the container itself.

ExecProcessRequest if count(why_ExecProcessRequest) == 0

ExecProcessRequest := refused(why_ExecProcessRequest) if count(why_ExecProcessRequest) > 0

why_ExecProcessRequest contains reason if {
	not running
	reason := sprintf("E00 no container has the id %s", [container_id])
}

executing := candidate if {
	some candidate in policy_data.containers
	candidate.name == running.name
}

why_ExecProcessRequest contains "E01 nothing can be executed in the pause container" if {
	running
	not executing
}

why_ExecProcessRequest contains reason if {
	running
	not running.started
	reason := sprintf("E01 container %s was not started", [container_id])
}

why_ExecProcessRequest contains reason if {
	found := list(["process", "Args"])
	not found in executing.exec
	reason := sprintf("E02 command: expected a probe, hook or check of container %s, found %v", [executing.name, found])
}

why_ExecProcessRequest contains reason if {
	some path in [["string_user"], ["process", "SelinuxLabel"], ["process", "ApparmorProfile"], ["process", "Rlimits"], ["process", "Terminal"], ["process", "User", "Username"]]
	found := object.get(input, path, null)
	not nothing(found)
	reason := sprintf("E03 %s: expected nothing, found %v", [concat(".", path), found])
}

why_ExecProcessRequest contains reason if {
	found := text(["process", "Cwd"])
	found != executing.process.Cwd
	reason := sprintf("E04 working directory: expected %s, found %s", [executing.process.Cwd, found])
}

why_ExecProcessRequest contains reason if {
	found := flag(["process", "NoNewPrivileges"])
	found != executing.process.NoNewPrivileges
	reason := sprintf("E04 no new privileges: expected %v, found %v", [executing.process.NoNewPrivileges, found])
}

why_ExecProcessRequest contains reason if {
	some field, expected in {"UID": executing.uid, "GID": executing.gid}
	found := number(["process", "User", field])
	found != expected
	reason := sprintf("E05 user: expected %s %v, found %v", [field, expected, found])
}

why_ExecProcessRequest contains reason if {
	some group in list(["process", "User", "AdditionalGids"])
	not group in executing.groups
	reason := sprintf("E05 groups: expected some of %v, found %v", [executing.groups, group])
}

why_ExecProcessRequest contains reason if {
	some set, found in mapping(["process", "Capabilities"])
	some capability in found
	not capability in exec_capabilities(set)
	reason := sprintf("E06 %s capabilities: %v is more than the container has", [lower(set), capability])
}

exec_capabilities(set) := executing.capabilities if set in ["Bounding", "Effective", "Permitted"]

exec_capabilities(set) := [] if set in ["Ambient", "Inheritable"]

why_ExecProcessRequest contains reason if {
	not only_services(exec_left)
	some variable in exec_left
	not regex.match(one_service, variable)
	reason := sprintf("E07 environment: %v is not the container's", [variable])
}

why_ExecProcessRequest contains "E07 environment: a variable is given twice, or has no name" if {
	variables := list(["process", "Env"])
	count({name | some variable in variables; name := env_name(variable)}) != count(variables)
}

exec_left contains variable if {
	some variable in list(["process", "Env"])
	not exec_env(variable)
}

exec_env(variable) if variable in executing.env

exec_env(variable) if {
	kind := executing.env_facts[env_name(variable)].kind
	known_fact(kind, substring(variable, indexof(variable, "=") + 1, -1))
}

exec_env(variable) if {
	parts := executing.env_facts[env_name(variable)].parts
	substring(variable, indexof(variable, "=") + 1, -1) == filled(list(["process", "Env"]), parts)
}

exec_env(variable) if variable == concat("", ["HOSTNAME=", pod_hostname])

pod_hostname := policy_data.hostname if policy_data.hostname != ""

pod_hostname := trim_right(substring(state.sandbox.name, 0, 63), "-.") if policy_data.hostname == ""

known_fact("pod-name", value) if value == state.sandbox.name

known_fact("namespace", value) if value == state.sandbox.namespace

known_fact("number", value) if regex.match(fact_patterns["number"], value)

known_fact(kind, value) if value == state.facts[kind]

