# Rules for kata-agent, the same for every pod. `policy_data`, appended behind them, says what the pod may be.
#
# A request is allowed when its set `why_<Request>` is empty. Each member of such a set is one reason to refuse, as text that
# begins with the code of its rule. Rules fail closed: what cannot be read is a reason, too.
#
# State lives in `data.pstate` and is changed by the JSON patches (`ops`) that an allowed request returns:
#   sandbox:  facts that the pod's first container fixed: {name, namespace, id, netns}, or null
#   facts:    {kind: value} of what only the cluster knows (addresses, node name, uid); the first value counts
#   volumes:  {volume: source} of temporary volumes
#   active:   {container id: {name, started}} of containers that exist
#   reached:  {container name: created, started or ended}, the furthest that each ever came
package agent_policy

import future.keywords.contains
import future.keywords.every
import future.keywords.if
import future.keywords.in

# Requests that tell the host nothing and change nothing that runs, or end the pod.
default DestroySandboxRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default OnlineCPUMemRequest := true
default RemoveStaleVirtiofsShareMountsRequest := true

# Requests with rules below.
default AddARPNeighborsRequest := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default ExecProcessRequest := false
default ReadStreamRequest := false
default RemoveContainerRequest := false
default SignalProcessRequest := false
default StartContainerRequest := false
default StatsContainerRequest := false
default TtyWinResizeRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default WaitProcessRequest := false
default WriteStreamRequest := false

# Requests that no pod needs. Whatever is not named at all is refused as well.
default AddSwapPathRequest := false
default AddSwapRequest := false
default AllowRequestsFailingPolicy := false
default GetDiagnosticDataRequest := false
default GetIPTablesRequest := false
default GetMetricsRequest := false
default ListInterfacesRequest := false
default ListRoutesRequest := false
default MemAgentCompactConfig := false
default MemAgentMemcgConfig := false
default MemHotplugByProbeRequest := false
default PauseContainerRequest := false
default ReseedRandomDevRequest := false
default ResizeVolumeRequest := false
default ResumeContainerRequest := false
default SetGuestDateTimeRequest := false
default SetIPTablesRequest := false
default SetPolicyRequest := false
default StartTracingRequest := false
default StopTracingRequest := false
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default VolumeStatsRequest := false

default state := {"sandbox": null, "facts": {}, "volumes": {}, "active": {}, "reached": {}}

state := data.pstate

write_state(new) := [{"op": "add", "path": "/pstate", "value": new}]

# The agent shows what is printed: the first reason, one line.
refused(reasons) := false if print(min(reasons))

# Fields of the request. What is absent or null has the default of protobuf; what has another type becomes something that no
# rule accepts.
list(path) := value if {
	value := object.get(input, path, [])
	is_array(value)
} else := [] if {
	object.get(input, path, null) == null
} else := ["!"]

text(path) := value if {
	value := object.get(input, path, "")
	is_string(value)
} else := "" if {
	object.get(input, path, null) == null
} else := "!"

number(path) := value if {
	value := object.get(input, path, 0)
	is_number(value)
} else := 0 if {
	object.get(input, path, null) == null
} else := -1

flag(path) := value if {
	value := object.get(input, path, false)
	is_boolean(value)
} else := false if {
	object.get(input, path, null) == null
} else := "!"

mapping(path) := value if {
	value := object.get(input, path, {})
	is_object(value)
} else := {} if {
	object.get(input, path, null) == null
} else := {"!": "!"}

# For messages, which must not fail: a field of anything.
shown(value, key) := object.get(value, key, null) if is_object(value)

shown(value, _) := value if not is_object(value)

nothing(value) if value == null

nothing(value) if value in ["", [], {}, false]

# Same members, none of them twice.
same_members(found, expected) if {
	count(found) == count(expected)
	{member | some member in found} == {member | some member in expected}
}

address_like(address) if regex.match(`^[0-9A-Fa-f.:]*(/[0-9]{1,3})?$`, address)

loopback(address) if startswith(address, "127.")

loopback(address) if startswith(address, "::ffff:127.")

loopback(address) if address == "::1"
