# --- CreateSandbox: once, before any container.

CreateSandboxRequest if count(why_CreateSandboxRequest) == 0

CreateSandboxRequest := refused(why_CreateSandboxRequest) if count(why_CreateSandboxRequest) > 0

why_CreateSandboxRequest contains "B01 the pod runs already" if state.sandbox != null

why_CreateSandboxRequest contains "B01 the pod runs already" if count(state.active) > 0

why_CreateSandboxRequest contains reason if {
	some field in ["guest_hook_path", "kernel_modules", "sandbox_pidns"]
	found := object.get(input, field, null)
	not nothing(found)
	reason := sprintf("B02 %s: expected nothing, found %v", [field, found])
}

why_CreateSandboxRequest contains reason if {
	some storage in list(["storages"])
	not shared_memory(storage)
	reason := sprintf("B03 storage: expected the tmpfs at /run/kata-containers/sandbox/shm only, found driver %v at %v", [shown(storage, "driver"), shown(storage, "mount_point")])
}

why_CreateSandboxRequest contains "B03 storage: the same one twice" if count(list(["storages"])) > 1

shared_memory(storage) if {
	storage.driver == "ephemeral"
	storage.fstype == "tmpfs"
	storage.source in ["shm", "tmpfs"]
	storage.mount_point == "/run/kata-containers/sandbox/shm"
	nothing(object.get(storage, "driver_options", null))
	nothing(object.get(storage, "fs_group", null))
	options := [option | some option in storage.options; not startswith(option, "size=")]
	same_members(options, ["noexec", "nosuid", "nodev", "mode=1777"])
	count(storage.options) - count(options) <= 1
	every option in storage.options {
		regex.match(`^[a-z]+(=[0-9]+)?$`, option)
	}
}

# --- Network: the host may connect the pod, but not touch its loopback interface or addresses.

UpdateInterfaceRequest if count(why_UpdateInterfaceRequest) == 0

UpdateInterfaceRequest := refused(why_UpdateInterfaceRequest) if count(why_UpdateInterfaceRequest) > 0

why_UpdateInterfaceRequest contains "N01 interface: it is missing" if count(mapping(["interface"])) == 0

why_UpdateInterfaceRequest contains reason if {
	some field in ["name", "device"]
	found := text(["interface", field])
	not interface_name(found)
	reason := sprintf("N02 interface %s: expected another one than lo, of letters and digits, found %s", [field, found])
}

why_UpdateInterfaceRequest contains "N03 interface: its hardware address is all zero" if {
	text(["interface", "hwAddr"]) == "00:00:00:00:00:00"
}

# 128 is IFF_NOARP.
why_UpdateInterfaceRequest contains reason if {
	found := number(["interface", "raw_flags"])
	bits.and(found, bits.negate(128)) != 0
	reason := sprintf("N04 interface flags: expected 0 or 128 (no ARP), found %v", [found])
}

why_UpdateInterfaceRequest contains reason if {
	some address in list(["interface", "IPAddresses"])
	not address_sane(address)
	reason := sprintf("N05 interface address: expected an IP address that is not loopback, found %v", [shown(address, "address")])
}

address_sane(address) if {
	address_like(address.address)
	not loopback(address.address)
}

interface_name(name) if {
	name != "lo"
	regex.match(`^[A-Za-z0-9_.-]{1,15}$`, name)
}

UpdateRoutesRequest if count(why_UpdateRoutesRequest) == 0

UpdateRoutesRequest := refused(why_UpdateRoutesRequest) if count(why_UpdateRoutesRequest) > 0

why_UpdateRoutesRequest contains reason if {
	some route in list(["routes", "Routes"])
	not interface_name(shown(route, "device"))
	reason := sprintf("N06 route: expected another device than lo, found %v", [shown(route, "device")])
}

why_UpdateRoutesRequest contains reason if {
	some route in list(["routes", "Routes"])
	some field in ["source", "dest", "gateway"]
	not route_address(shown(route, field))
	reason := sprintf("N07 route %s: expected an IP address that is not loopback, found %v", [field, shown(route, field)])
}

route_address(null)

route_address(address) if {
	address_like(address)
	not loopback(address)
}

AddARPNeighborsRequest if count(why_AddARPNeighborsRequest) == 0

AddARPNeighborsRequest := refused(why_AddARPNeighborsRequest) if count(why_AddARPNeighborsRequest) > 0

why_AddARPNeighborsRequest contains reason if {
	some neighbor in list(["neighbors", "ARPNeighbors"])
	not neighbor_sane(neighbor)
	reason := sprintf("N09 neighbor: expected a reachable or permanent entry for an address that is not loopback, on a device that is not lo, found %v on %v in state %v with flags %v", [shown(shown(neighbor, "toIPAddress"), "address"), shown(neighbor, "device"), shown(neighbor, "state"), shown(neighbor, "flags")])
}

# States 2 (reachable) and 128 (permanent); flags 8 (proxy) and 128 (router): linux/neighbour.h.
neighbor_sane(neighbor) if {
	interface_name(neighbor.device)
	address := neighbor.toIPAddress.address
	address != ""
	address_like(address)
	not loopback(address)
	object.get(neighbor, ["toIPAddress", "mask"], "") == ""
	neighbor.state in [2, 128]
	bits.and(object.get(neighbor, "flags", 0), bits.negate(136)) == 0
}
