# --- CopyFile: only below the copies of this pod's volumes and files, and never through a link.
#
# Kubernetes writes a volume as <volume>/..<time>/<file>, with the links `..data` to ..<time> and <file> to `..data/<file>`.
# Those are the only links that can be made, each stays in its volume, and nothing is written to a path with `..data` in it.

CopyFileRequest if count(why_CopyFileRequest) == 0

CopyFileRequest := refused(why_CopyFileRequest) if count(why_CopyFileRequest) > 0

copied_path := text(["path"])

# Parts of the path below the share: the copy's own name, then what is inside.
below := split(rest, "/") if {
	startswith(copied_path, share)
	some prefix in ["watchable/", "passthrough/"]
	startswith(copied_path, concat("", [share, prefix]))
	rest := substring(copied_path, count(share) + count(prefix), -1)
}

below := split(substring(copied_path, count(share), -1), "/") if {
	startswith(copied_path, share)
	not startswith(copied_path, concat("", [share, "watchable/"]))
	not startswith(copied_path, concat("", [share, "passthrough/"]))
}

why_CopyFileRequest contains reason if {
	not below
	reason := sprintf("F01 path: expected one below %s, found %s", [share, copied_path])
}

why_CopyFileRequest contains reason if {
	some part in below
	not regex.match(`^[A-Za-z0-9._@+=,:-]+$`, part)
	reason := sprintf("F02 path: unexpected characters or an empty part in %s", [copied_path])
}

why_CopyFileRequest contains reason if {
	some part in below
	part in [".", "..", "..data"]
	not last_is_data_link
	reason := sprintf("F02 path: %s leads elsewhere", [copied_path])
}

last_is_data_link if {
	file_type == "Symlink"
	count(below) == 2
	below[1] == "..data"
}

file_type := object.get(input, "file_type", null)

why_CopyFileRequest contains reason if {
	not file_type in ["Regular", "Directory", "Symlink"]
	reason := sprintf("F03 file type: expected Regular, Directory or Symlink, found %v", [file_type])
}

# <container id>-<16 characters>-<name>: the name is that of a volume or file of the pod.
copy_name := substring(below[0], count(matched), -1) if {
	found := regex.find_n(`^[a-z0-9][a-z0-9.-]*?-[a-z0-9]{16}-`, below[0], 1)
	matched := found[0]
}

candidates := policy_data.copies[copy_name]

why_CopyFileRequest contains reason if {
	not candidates
	reason := sprintf("F04 path: %s is no file or volume of the pod; expected one of %s", [copy_name, concat(", ", sort(object.keys(policy_data.copies)))])
}

why_CopyFileRequest contains reason if {
	not copy_name
	reason := sprintf("F04 path: expected <container id>-<16 characters>-<name>, found %s", [copied_path])
}

why_CopyFileRequest contains reason if {
	count(candidates) > 0
	not fits_any
	reason := sprintf("F05 %s: it is not declared, or has other content than declared (%v bytes, SHA-256 %v)", [concat("/", array.slice(below, 1, count(below))), shown(input, "file_size"), shown(input, "data_sha256")])
}

fits_any if {
	some candidate in candidates
	fits(candidate)
}

# One file.
fits(candidate) if {
	candidate.kind == "file"
	count(below) == 1
	file_type == "Regular"
	plain_mode
	content_is(object.get(candidate, "content", null))
}

# A directory of Kubernetes: the directory itself.
fits(candidate) if {
	candidate.kind in ["directory", "empty"]
	count(below) == 1
	file_type == "Directory"
}

fits(candidate) if {
	candidate.kind == "directory"
	count(below) == 2
	file_type == "Symlink"
	below[1] == "..data"
	regex.match(stamp, text(["symlink_target"]))
}

fits(candidate) if {
	candidate.kind == "directory"
	count(below) == 2
	file_type == "Symlink"
	not startswith(below[1], "..")
	text(["symlink_target"]) == concat("/", ["..data", below[1]])
	first_of_a_file(candidate, below[1])
}

fits(candidate) if {
	candidate.kind == "directory"
	count(inside) > 0
	file_type == "Regular"
	plain_mode
	file_in(candidate, concat("/", inside))
}

fits(candidate) if {
	candidate.kind == "directory"
	count(below) == 2
	file_type == "Directory"
	regex.match(stamp, below[1])
}

fits(candidate) if {
	candidate.kind == "directory"
	count(inside) > 0
	file_type == "Directory"
	directory_in(candidate, concat("/", inside))
}

stamp := `^\.\.[0-9]{4}_[0-9]{2}_[0-9]{2}_[0-9]{2}_[0-9]{2}_[0-9]{2}\.[0-9]{1,10}$`

# Path inside the volume, without the directory that Kubernetes names after the time.
inside := array.slice(below, 2, count(below)) if {
	count(below) > 1
	regex.match(stamp, below[1])
}

inside := array.slice(below, 1, count(below)) if {
	count(below) > 1
	not startswith(below[1], "..")
}

first_of_a_file(candidate, _) if not candidate.files

first_of_a_file(candidate, name) if {
	some file, _ in candidate.files
	split(file, "/")[0] == name
}

file_in(candidate, _) if not candidate.files

file_in(candidate, file) if content_is(candidate.files[file])

directory_in(candidate, _) if not candidate.files

directory_in(candidate, directory) if {
	some file, _ in candidate.files
	startswith(file, concat("", [directory, "/"]))
}

# Content that is not bound is null. Bound content comes in one piece, and the agent says what it hashes to.
content_is(null)

content_is(expected) if {
	number(["offset"]) == 0
	number(["file_size"]) == expected.size
	object.get(input, "data_sha256", "") == expected.sha256
}

# Nothing that the host writes may carry somebody's rights: no set-user-id, no set-group-id.
plain_mode if bits.and(number(["file_mode"]), 3072) == 0
