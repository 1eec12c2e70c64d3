# --- CreateContainer: the process, and what the kernel hides from it.

env := list(["OCI", "Process", "Env"])

found_env := {variable | some variable in env}

env_name(variable) := substring(variable, 0, indexof(variable, "=")) if indexof(variable, "=") > 0

value_in(variables, name) := values[0] if {
	prefix := concat("", [name, "="])
	values := [substring(variable, count(prefix), -1) | some variable in variables; startswith(variable, prefix)]
	count(values) == 1
}

env_value(name) := value_in(env, name)

hostname := policy_data.hostname if policy_data.hostname != ""

hostname := trim_right(substring(sandbox_name, 0, 63), "-.") if policy_data.hostname == ""

# Values that only the cluster knows. Those that are not a field of the request are remembered: see `cluster_facts`.
fact_patterns := {
	"host-ip": `^[0-9a-f.:]{2,45}$`,
	"host-ips": `^[0-9a-f.:,]{2,91}$`,
	"node-name": `^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`,
	"number": `^[0-9]+$`,
	"pod-index": `^[0-9]+$`,
	"pod-ip": `^[0-9a-f.:]{2,45}$`,
	"pod-ips": `^[0-9a-f.:,]{2,91}$`,
	"pod-uid": `^[0-9a-f-]{32,36}$`,
}

cluster_value(kind, value) if {
	kind == "pod-name"
	value == sandbox_name
}

cluster_value(kind, value) if {
	kind == "namespace"
	value == sandbox_namespace
}

cluster_value(kind, value) if regex.match(fact_patterns[kind], value)

# A number is one container's limit; everything else is the same for the whole pod.
found_facts contains ["pod-uid", annotations["io.kubernetes.cri.sandbox-uid"]]

found_facts contains [rule.kind, env_value(name)] if {
	some name, rule in entry.env_facts
	rule.kind in ["host-ip", "host-ips", "node-name", "pod-index", "pod-ip", "pod-ips", "pod-uid"]
}

found_kinds := {pair[0] | some pair in found_facts}

smallest_fact(kind) := min({pair[1] | some pair in found_facts; pair[0] == kind})

cluster_facts := {kind: smallest_fact(kind) | some kind in found_kinds}

why_CreateContainerRequest contains reason if {
	some pair in found_facts
	expected := cluster_facts[pair[0]]
	pair[1] != expected
	reason := sprintf("C07 %s: expected one value, found %v and %v", [pair[0], expected, pair[1]])
}

env_left := unmatched - {concat("", ["HOSTNAME=", hostname])}

why_CreateContainerRequest contains reason if {
	not only_services(env_left)
	some variable in env_left
	not regex.match(one_service, variable)
	reason := sprintf("C13 environment: %v is not declared", [variable])
}

# What Kubernetes adds for Services can be hundreds of variables, so they are matched as lines of one text.
one_service := concat("", ["^(", policy_data.env_pattern, ")$"])

all_services := concat("", ["^((", policy_data.env_pattern, ")(\n|$))*$"])

only_services(variables) if {
	joined := concat("\n", variables)
	regex.match(all_services, joined)
	count(split(joined, "\n")) == max([1, count(variables)])
}

unmatched := {variable |
	some variable in found_env - declared_env
	not env_by_fact(variable)
}

declared_env := {variable | some variable in entry.env}

env_by_fact(variable) if cluster_value(entry.env_facts[env_name(variable)].kind, env_value(env_name(variable)))

env_by_fact(variable) if {
	parts := entry.env_facts[env_name(variable)].parts
	env_value(env_name(variable)) == filled(env, parts)
}

why_CreateContainerRequest contains reason if {
	is_container
	some variable in declared_env - found_env
	reason := sprintf("C14 environment: expected %s, which is missing", [variable])
}

why_CreateContainerRequest contains reason if {
	some name, _ in entry.env_facts
	not env_value(name)
	reason := sprintf("C14 environment: expected the variable %s, which is missing", [name])
}

why_CreateContainerRequest contains "C15 environment: a variable is given twice, or has no name" if {
	count({name | some variable in env; name := env_name(variable)}) != count(env)
}

# Text with values of variables in it, as Kubernetes fills `$(NAME)` in.
filled(_, text) := text if is_string(text)

filled(variables, parts) := concat("", words) if {
	is_array(parts)
	words := [word | some part in parts; word := fill(variables, part)]
	count(words) == count(parts)
}

fill(_, part) := part if is_string(part)

fill(variables, part) := value_in(variables, part.env) if is_object(part)

expected_args := [word | some arg in entry.args; word := filled(env, arg)]

why_CreateContainerRequest contains reason if {
	found := list(["OCI", "Process", "Args"])
	found != expected_args
	reason := sprintf("C16 arguments: expected %v, found %v", [expected_args, found])
}

why_CreateContainerRequest contains reason if {
	some field, expected in entry.process
	found := object.get(input, ["OCI", "Process", field], process_defaults[field])
	found != expected
	reason := sprintf("C17 %s: expected %v, found %v", [field, expected, found])
}

process_defaults := {"Cwd": "", "NoNewPrivileges": false, "Terminal": false}

why_CreateContainerRequest contains reason if {
	found := flag(["OCI", "Root", "Readonly"])
	found != entry.readonly_root
	reason := sprintf("C18 read-only root file system: expected %v, found %v", [entry.readonly_root, found])
}

why_CreateContainerRequest contains reason if {
	is_container
	some field, expected in {"UID": entry.uid, "GID": entry.gid}
	found := number(["OCI", "Process", "User", field])
	found != expected
	reason := sprintf("C19 user: expected %s %v, found %v", [field, expected, found])
}

why_CreateContainerRequest contains reason if {
	is_container
	found := list(["OCI", "Process", "User", "AdditionalGids"])
	not same_members(found, entry.groups)
	reason := sprintf("C19 groups: expected %v, found %v", [entry.groups, found])
}

# The pause container takes the pod's user over from some runtimes, its image's from others; it does nothing.
why_CreateContainerRequest contains reason if {
	is_sandbox
	some field, allowed in {"UID": entry.uids, "GID": entry.gids}
	found := number(["OCI", "Process", "User", field])
	not found in allowed
	reason := sprintf("C19 user: expected %s one of %v, found %v", [field, allowed, found])
}

why_CreateContainerRequest contains reason if {
	is_sandbox
	some group in list(["OCI", "Process", "User", "AdditionalGids"])
	not group in entry.gids
	reason := sprintf("C19 groups: expected some of %v, found %v", [entry.gids, group])
}

why_CreateContainerRequest contains reason if {
	some set, expected in {"Ambient": [], "Bounding": entry.capabilities, "Effective": entry.capabilities, "Inheritable": [], "Permitted": entry.capabilities}
	found := object.get(input, ["OCI", "Process", "Capabilities", set], [])
	not same_members(found, expected)
	reason := sprintf("C20 %s capabilities: expected %s, found %v", [lower(set), concat(" ", expected), found])
}

why_CreateContainerRequest contains reason if {
	found := text(["OCI", "Process", "ApparmorProfile"])
	not found in entry.apparmor
	reason := sprintf("C21 AppArmor profile: expected one of %v, found %s", [entry.apparmor, found])
}

# --- Namespaces, kernel settings, hidden paths

namespaces := [namespace | some namespace in list(["OCI", "Linux", "Namespaces"])]

netns := paths[0] if {
	paths := [object.get(namespace, "Path", "") | some namespace in namespaces; namespace.Type == "network"]
	count(paths) == 1
}

netns := "" if count([1 | some namespace in namespaces; namespace.Type == "network"]) == 0

why_CreateContainerRequest contains reason if {
	found := [shown(namespace, "Type") | some namespace in namespaces; not shown(namespace, "Type") in ["network", "cgroup"]]
	not same_members(found, ["ipc", "mount", "uts"])
	reason := sprintf("C22 namespaces: expected ipc, mount and uts, found %v", [found])
}

why_CreateContainerRequest contains reason if {
	some namespace in namespaces
	shown(namespace, "Type") != "network"
	found := shown(namespace, "Path")
	not found in ["", null]
	reason := sprintf("C22 namespace %v: expected a new one, found %v", [namespace.Type, found])
}

why_CreateContainerRequest contains reason if {
	some key, value in mapping(["OCI", "Linux", "Sysctl"])
	object.get(policy_data.sysctls, key, object.get(runtime_sysctls, key, null)) != value
	reason := sprintf("C23 sysctl %s: unexpected value %v", [key, value])
}

why_CreateContainerRequest contains reason if {
	is_sandbox
	some key, value in policy_data.sysctls
	not mapping(["OCI", "Linux", "Sysctl"])[key]
	reason := sprintf("C23 sysctl %s: expected %v, which is missing", [key, value])
}

# What containerd sets for every pod that has its own network (enable_unprivileged_ports, enable_unprivileged_icmp).
runtime_sysctls := {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}

# Hidden by every runtime in use, and by newer ones.
masked := ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]

masked_too := ["/proc/asound", "/proc/interrupts", "/sys/devices/virtual/powercap"]

read_only := ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

masked_found := list(["OCI", "Linux", "MaskedPaths"])

hidden := array.concat(list(["OCI", "Linux", "ReadonlyPaths"]), masked_found)

why_CreateContainerRequest contains reason if {
	not entry.unmasked
	some path in masked
	not path in masked_found
	reason := sprintf("C24 masked paths: %s is missing", [path])
}

why_CreateContainerRequest contains reason if {
	not entry.unmasked
	some path in read_only
	not path in hidden
	reason := sprintf("C24 read-only paths: %s is missing", [path])
}

# More of them could hide a file that the application relies on.
why_CreateContainerRequest contains reason if {
	some path in hidden
	not path in masked
	not path in masked_too
	not path in read_only
	not regex.match(`^/sys/devices/system/cpu/cpu[0-9]+/thermal_throttle$`, path)
	reason := sprintf("C24 masked or read-only paths: %v is unexpected", [path])
}

why_CreateContainerRequest contains reason if {
	found := text(["OCI", "Linux", "CgroupsPath"])
	not cgroup_path(found)
	reason := sprintf("C25 cgroup: expected a path that ends with the container id, found %s", [found])
}

cgroup_path("")

cgroup_path(path) if {
	regex.match(`^[A-Za-z0-9/_.:-]+$`, path)
	not contains(path, "..")
	some separator in ["/", ":"]
	endswith(path, concat("", [separator, bundle]))
}

why_CreateContainerRequest contains reason if {
	found := text(["OCI", "Hostname"])
	not found in ["", hostname]
	reason := sprintf("C26 host name: expected %s, found %s", [hostname, found])
}

why_CreateContainerRequest contains reason if {
	found := text(["OCI", "Version"])
	not regex.match(`^1\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$`, found)
	reason := sprintf("C27 OCI version: expected 1.x, found %s", [found])
}
