//! Volumes and files: what the host copies into the guest, and the storages behind mounts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Host, SHARE, hashed, hex64, id, list};

impl Host<'_> {
    /// Where a volume is mounted from, how, and the storages behind it.
    pub(super) fn volume(
        &mut self,
        mount: &Value,
        id_: &str,
        stamp: &str,
    ) -> (String, &'static str, Vec<Value>) {
        let name = mount["name"].as_str().unwrap_or_default();
        let volumes = self.pod.spec()["volumes"].clone();
        let volume = volumes
            .as_array()
            .into_iter()
            .flatten()
            .find(|volume| volume["name"] == name)
            .cloned();
        let group = id(&self.pod.spec()["securityContext"]["fsGroup"]);
        let owner = group.map(|group| json!({"group_id": group}));
        let options = |first: &[&str]| -> Vec<String> {
            let fsgid = group.map(|group| format!("fsgid={group}"));
            first.iter().map(ToString::to_string).chain(fsgid).collect()
        };
        let disk = |options: Value| {
            let place = format!("/run/kata-containers/sandbox/storage/{}", base(name));
            let storage = json!({
                "driver": "blk", "driver_options": options, "fs_group": owner, "fstype": "ext4", "mount_point": place, "options": [],
                "source": "00/01", "shared": true,
            });
            (place, "rw", vec![storage])
        };
        match volume {
            None => disk(json!([])),
            Some(volume) if volume["emptyDir"]["medium"] == "Memory" => {
                let place = format!("/run/kata-containers/sandbox/ephemeral/{name}");
                let storage = json!({
                    "driver": "ephemeral", "driver_options": [], "fs_group": null, "fstype": "tmpfs", "mount_point": place,
                    "options": options(&[]), "source": "tmpfs", "shared": true,
                });
                (place, "rw", vec![storage])
            }
            Some(volume) if volume.get("emptyDir").is_some() && self.flavour.disks => {
                disk(json!(["encryption_key=ephemeral", "create_filesystem"]))
            }
            Some(volume) if volume.get("emptyDir").is_some() => {
                let place = format!("{SHARE}{}/rootfs/local/{name}", self.sandbox);
                let storage = json!({
                    "driver": "local", "driver_options": [], "fs_group": null, "fstype": "local", "mount_point": place,
                    "options": options(&["mode=0777"]), "source": "local", "shared": true,
                });
                (place, "rw", vec![storage])
            }
            Some(volume) => {
                let files = self.pod.files(&volume);
                let path = mount["mountPath"].as_str().unwrap_or_default();
                let last = path.rsplit('/').next().unwrap_or_default();
                let source = match mount["subPath"].as_str() {
                    Some(key) => {
                        let data = files.get(key).cloned().unwrap_or_default();
                        self.copy_file(id_, last, &data, "bound file")
                    }
                    None => {
                        let mutable = self.pod.mutable(name);
                        let free = |file: &str| mutable || matches!(file, "token" | "labels");
                        self.copy_directory(id_, last, &files, stamp, free)
                    }
                };
                (source, "ro", Vec::new())
            }
        }
    }

    /// The kubelet writes the volumes again; nothing changed in them.
    pub(super) fn copy_volumes(&mut self, container: &Value, id_: &str, stamp: &str) {
        for mount in list(container, "volumeMounts") {
            self.volume(mount, id_, stamp);
        }
    }

    pub(super) fn copy_name(&mut self, id_: &str, name: &str) -> String {
        self.copies += 1;
        let random = &hex64(&format!("{}{id_}{name}", self.copies))[..16];
        format!("{SHARE}{id_}-{random}-{name}")
    }

    pub(super) fn copy(
        &mut self,
        path: &str,
        kind: &str,
        target: &str,
        data: &[u8],
        role: &'static str,
    ) {
        let mut body = json!({
            "path": path, "file_type": kind, "symlink_target": target, "file_size": data.len(), "file_mode": 0o100_644,
            "dir_mode": 0o750, "uid": 0, "gid": 0, "offset": 0,
        });
        if kind == "Regular" {
            body["data_sha256"] = json!(hashed(data));
        }
        self.push("CopyFileRequest", path, body);
        if let Some(request) = self.requests.last_mut() {
            request.role = role;
        }
    }

    pub(super) fn copy_file(
        &mut self,
        id_: &str,
        name: &str,
        data: &[u8],
        role: &'static str,
    ) -> String {
        let path = self.copy_name(id_, name);
        self.copy(&path, "Regular", "", data, role);
        path
    }

    /// As the kubelet's atomic writer lays it out.
    pub(super) fn copy_directory(
        &mut self,
        id_: &str,
        name: &str,
        files: &BTreeMap<String, Vec<u8>>,
        stamp: &str,
        free: impl Fn(&str) -> bool,
    ) -> String {
        let path = self.copy_name(id_, name);
        self.copy(&path, "Directory", "", b"", "directory");
        self.copy(
            &format!("{path}/{stamp}"),
            "Directory",
            "",
            b"",
            "directory",
        );
        let mut links = Vec::new();
        for (file, data) in files {
            if let Some((directory, _)) = file.rsplit_once('/') {
                self.copy(
                    &format!("{path}/{stamp}/{directory}"),
                    "Directory",
                    "",
                    b"",
                    "directory",
                );
            }
            let role = if free(file) {
                "free file"
            } else {
                "bound file"
            };
            self.copy(&format!("{path}/{stamp}/{file}"), "Regular", "", data, role);
            let first = file.split('/').next().unwrap_or_default().to_owned();
            if !links.contains(&first) {
                links.push(first);
            }
        }
        self.copy(&format!("{path}/..data"), "Symlink", stamp, b"", "link");
        for link in links {
            self.copy(
                &format!("{path}/{link}"),
                "Symlink",
                &format!("..data/{link}"),
                b"",
                "link",
            );
        }
        path
    }
}

fn base(name: &str) -> String {
    hex64(name)[..8].to_owned()
}
