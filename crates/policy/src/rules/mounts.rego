# --- CreateContainer: mounts, the storages behind them, devices.

mounts := list(["OCI", "Mounts"])

mounted := {mount.destination | some mount in mounts}

storages := list(["storages"])

devices := list(["devices"])

share := "/run/kata-containers/shared/containers/"

# File systems of the kernel and of the pod, as containerd mounts them; options sorted.
kernel_mounts := {
	"/dev": [["tmpfs", "tmpfs", ["mode=755", "nosuid", "size=65536k", "strictatime"]]],
	"/dev/mqueue": [["mqueue", "mqueue", ["nodev", "noexec", "nosuid"]]],
	"/dev/pts": [["devpts", "devpts", ["gid=5", "mode=0620", "newinstance", "noexec", "nosuid", "ptmxmode=0666"]]],
	"/dev/shm": [["bind", "/run/kata-containers/sandbox/shm", ["rbind"]]],
	"/proc": [["proc", "proc", ["nodev", "noexec", "nosuid"]]],
	"/sys": [["sysfs", "sysfs", ["nodev", "noexec", "nosuid", "ro"]]],
	"/sys/fs/cgroup": [["cgroup", "cgroup", ["nodev", "noexec", "nosuid", "relatime", "ro"]]],
}

privileged_mounts := {
	"/sys": [["sysfs", "sysfs", ["nodev", "noexec", "nosuid", "rw"]]],
	"/sys/fs/cgroup": [["cgroup", "cgroup", ["nodev", "noexec", "nosuid", "relatime", "rw"]]],
}

# Options that newer runtimes add to the cgroup file system; they only restrict it.
cgroup_extras := ["memory_recursiveprot", "nsdelegate"]

# Files that Kubernetes gives every container: destination, and the name that the copy ends with.
pod_files := {"/etc/hostname": "hostname", "/etc/hosts": "hosts", "/etc/resolv.conf": "resolv.conf"}

why_CreateContainerRequest contains reason if {
	some mount in mounts
	not mount_is(mount)
	reason := sprintf("C30 mount at %v: unexpected type, source or options: %v from %v with %v", [shown(mount, "destination"), shown(mount, "type_"), shown(mount, "source"), shown(mount, "options")])
}

why_CreateContainerRequest contains "C31 mounts: a destination is given twice" if {
	count({shown(mount, "destination") | some mount in mounts}) != count(mounts)
}

why_CreateContainerRequest contains reason if {
	some declared in entry.mounts
	not declared.destination in mounted
	reason := sprintf("C32 mount at %s: it is declared and missing", [declared.destination])
}

declared_mounts := {declared.destination: declared | some declared in entry.mounts}

own_files := {file.destination: file | some file in entry.files}

mount_is(mount) if declared_mount(declared_mounts[mount.destination], mount)

mount_is(mount) if {
	not declared_mounts[mount.destination]
	undeclared_mount(mount)
}

undeclared_mount(mount) if kernel_mount(mount)

undeclared_mount(mount) if {
	name := pod_files[mount.destination]
	mount.type_ == "bind"
	copied(mount.source, name)
	sort(mount.options) in [["rbind", "ro", "rprivate"], ["rbind", "rprivate", "rw"], ["nodev", "noexec", "nosuid", "rbind", "ro"]]
}

undeclared_mount(mount) if {
	file := own_files[mount.destination]
	mount.type_ == "bind"
	copied(mount.source, file.name)
	sort(mount.options) == file.options
}

kernel_mount(mount) if {
	some form in kernel_mounts[mount.destination]
	kernel_form(mount, form)
}

kernel_mount(mount) if {
	entry.privileged
	some form in privileged_mounts[mount.destination]
	kernel_form(mount, form)
}

kernel_form(mount, form) if {
	mount.type_ == form[0]
	mount.source == form[1]
	options := [option | some option in mount.options; not extra_option(mount, option)]
	sort(options) == form[2]
	count({option | some option in mount.options}) == count(mount.options)
}

extra_option(mount, option) if {
	mount.destination == "/sys/fs/cgroup"
	option in cgroup_extras
}

# A copy that the host made for this container: <share>[watchable/|passthrough/]<container id>-<16 characters>-<name>.
copied(source, name) if {
	startswith(source, share)
	some prefix in ["", "watchable/", "passthrough/"]
	head := concat("", [share, prefix, bundle, "-"])
	startswith(source, head)
	tail := concat("", ["-", name])
	endswith(source, tail)
	count(source) == (count(head) + count(tail)) + 16
	not contains(substring(source, count(head), 16), "/")
}

declared_mount(declared, mount) if {
	declared.kind == "copy"
	mount.type_ == "bind"
	copied(mount.source, declared.name)
	sort(mount.options) == declared.options
}

declared_mount(declared, mount) if {
	declared.kind in ["disk", "memory", "untrusted"]
	mount.type_ in ["bind", "local"]
	sort(mount.options) == declared.options
	some storage in storages
	storage.mount_point == mount.source
	volume_storage(declared, storage)
}

# What a container mounts reaches the others only through a root that is shared; containerd says so when a mount of the container is. One whose root is a
# slave only receives, and that is the guest's default as well.
why_CreateContainerRequest contains reason if {
	found := text(["OCI", "Linux", "RootfsPropagation"])
	not found in root_propagations
	reason := sprintf("C28 propagation of the root: expected one of %v as for the declared mounts, found %v", [root_propagations, found])
}

root_propagations := ["rshared"] if propagates("rshared")

root_propagations := ["", "rslave"] if {
	not propagates("rshared")
	propagates("rslave")
}

root_propagations := [""] if {
	not propagates("rshared")
	not propagates("rslave")
}

propagates(way) if {
	some declared in entry.mounts
	way in declared.options
}

# --- Storages

why_CreateContainerRequest contains reason if {
	some storage in storages
	not storage_is(storage)
	reason := sprintf("C33 storage at %v: expected that of a declared volume, found driver %v", [shown(storage, "mount_point"), shown(storage, "driver")])
}

why_CreateContainerRequest contains "C33 storages: a mount point is given twice" if {
	count({shown(storage, "mount_point") | some storage in storages}) != count(storages)
}

storage_is(storage) if storage.driver == "image_guest_pull"

storage_is(storage) if {
	some declared in entry.mounts
	some mount in mounts
	mount.destination == declared.destination
	mount.source == storage.mount_point
	volume_storage(declared, storage)
}

# A directory in the guest's memory-backed root.
volume_storage(declared, storage) if {
	declared.kind == "disk"
	storage.driver == "local"
	storage.fstype == "local"
	storage.source == "local"
	storage.mount_point in [concat("", [share, prefix, annotation("io.kubernetes.cri.sandbox-id"), "/rootfs/local/", declared.volume]) | some prefix in ["", "passthrough/"]]
	nothing(object.get(storage, "driver_options", null))
	owned(storage, ["mode=0777"])
}

# A disk of the host, encrypted with a key that never leaves the guest and is forgotten with it.
volume_storage(declared, storage) if {
	declared.kind == "disk"
	storage.driver in ["blk", "scsi"]
	storage.fstype in ["ext4", "xfs"]
	same_members(storage.driver_options, ["encryption_key=ephemeral", "create_filesystem"])
	regex.match(`^[0-9a-f:/.]+$`, storage.source)
	regex.match(`^/run/kata-containers/sandbox/storage/[A-Za-z0-9_=-]+$`, storage.mount_point)
	owned(storage, [])
}

# A disk of the host as it is: the pod says that it expects no protection of it.
volume_storage(declared, storage) if {
	declared.kind == "untrusted"
	storage.driver in ["blk", "scsi"]
	storage.fstype in ["ext4", "xfs"]
	nothing(object.get(storage, "driver_options", null))
	regex.match(`^[0-9a-f:/.]+$`, storage.source)
	regex.match(`^/run/kata-containers/sandbox/storage/[A-Za-z0-9_=-]+$`, storage.mount_point)
	owned(storage, [])
}

volume_storage(declared, storage) if {
	declared.kind == "memory"
	storage.driver == "ephemeral"
	storage.fstype == "tmpfs"
	storage.source == "tmpfs"
	storage.mount_point == concat("", ["/run/kata-containers/sandbox/ephemeral/", declared.volume])
	nothing(object.get(storage, "driver_options", null))
	owned(storage, [])
}

# The pod's fsGroup may be an option, or a field, or both.
owned(storage, required) if {
	group := concat("", ["fsgid=", format_int(policy_data.fs_group, 10)])
	options := [option |
		some option in object.get(storage, "options", [])
		not regex.match(`^size=[0-9]+[kmg]?$`, option)
	]
	extra := [option | some option in options; not option in required]
	extra in [[], [group]]
	same_members([option | some option in options; option in required], required)
	owner(object.get(storage, "fs_group", null))
	is_boolean(object.get(storage, "shared", false))
}

owner(null)

owner(group) if {
	policy_data.fs_group > 0
	group.group_id == policy_data.fs_group
}

# A volume stays the same one in all containers, and is no other.
volume_sources := {declared.volume: mount.source |
	some declared in entry.mounts
	declared.kind in ["disk", "memory", "untrusted"]
	some mount in mounts
	mount.destination == declared.destination
}

why_CreateContainerRequest contains reason if {
	some volume, source in volume_sources
	expected := state.volumes[volume]
	source != expected
	reason := sprintf("C34 volume %s: expected %s as in an earlier container, found %s", [volume, expected, source])
}

why_CreateContainerRequest contains reason if {
	some volume, source in volume_sources
	some other, taken in state.volumes
	other != volume
	source == taken
	reason := sprintf("C34 volume %s: expected its own place, found %s, which is that of %s", [volume, source, other])
}

why_CreateContainerRequest contains "C34 volumes: two of them have the same place" if {
	count({source | some source in volume_sources}) != count(volume_sources)
}

# --- Devices

block_devices := [device | some device in devices; not vfio_path(device)]

vfio_path(device) if startswith(device.container_path, "/dev/vfio")

vfio_devices := [device | some device in devices; vfio_path(device)]

why_CreateContainerRequest contains reason if {
	some device in block_devices
	not block_device(device)
	reason := sprintf("C35 device %v: it is not declared, or no block device", [shown(device, "container_path")])
}

block_device(device) if {
	device.container_path in entry.devices
	device.type_ in ["blk", "blk-ccw", "scsi"]
	regex.match(`^(/dev/[a-z0-9/]+)?$`, object.get(device, "vm_path", ""))
	nothing(object.get(device, "options", null))
}

why_CreateContainerRequest contains reason if {
	is_container
	found := [shown(device, "container_path") | some device in block_devices]
	not same_members(found, entry.devices)
	reason := sprintf("C35 devices: expected %v, found %v", [entry.devices, found])
}

why_CreateContainerRequest contains reason if {
	some device in list(["OCI", "Linux", "Devices"])
	not device_node(device)
	reason := sprintf("C36 device node %v: it is not declared", [shown(device, "Path")])
}

device_node(device) if device.Path in entry.devices

device_node(device) if {
	entry.gpus > 0
	regex.match(`^/dev/vfio/(devices/vfio)?[0-9]+$|^/dev/vfio/vfio$`, device.Path)
}

# GPUs: devices that are there from the start are named by CDI annotations alone; plugged ones come as devices, too.
cdi_numbers := [trim_prefix(key, "cdi.k8s.io/vfio") | some key, _ in annotations; startswith(key, "cdi.k8s.io/vfio")]

why_CreateContainerRequest contains reason if {
	is_container
	count(cdi_numbers) != entry.gpus
	reason := sprintf("C37 GPUs: expected %d, found %d", [entry.gpus, count(cdi_numbers)])
}

why_CreateContainerRequest contains "C37 GPUs: two annotations name the same device" if {
	count({annotations[concat("", ["cdi.k8s.io/vfio", digits])] | some digits in cdi_numbers}) != count(cdi_numbers)
}

why_CreateContainerRequest contains "C38 GPU devices: expected those of the annotations, or none" if {
	count(vfio_devices) > 0
	not same_members([trim_prefix(object.get(device, "container_path", ""), "/dev/vfio/devices/vfio") | some device in vfio_devices], cdi_numbers)
}

why_CreateContainerRequest contains reason if {
	some device in vfio_devices
	not vfio_device(device)
	reason := sprintf("C38 GPU device %v: unexpected id, type or options", [shown(device, "container_path")])
}

vfio_device(device) if {
	suffix := trim_prefix(device.container_path, "/dev/vfio/devices/vfio")
	regex.match(`^[0-9]+$`, suffix)
	device.id == concat("", ["vfio", suffix])
	device.type_ in ["vfio-pci", "vfio-pci-gk"]
	object.get(device, "vm_path", "") in ["", device.container_path]
	count(device.options) > 0
	every option in device.options {
		regex.match(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]=[0-9a-f]{2}/[0-9a-f]{2}$`, option)
	}
}
