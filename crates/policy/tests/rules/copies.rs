//! CopyFile.

use serde_json::json;

use crate::host::{Host, copy, template};

/// CVE-2026-41326: the host plants a symbolic link and then writes through it.
#[test]
fn files_are_never_copied_through_a_link() {
    let mut host = Host::new();
    let time = "..2026_01_01_00_00_00.123456789";
    let kind = "CopyFileRequest";
    host.allowed(kind, &copy("config", "Directory", "", ""));
    host.allowed(kind, &copy(&format!("config/{time}"), "Directory", "", ""));
    host.allowed(
        kind,
        &copy(&format!("config/{time}/key"), "Regular", "", "value"),
    );
    host.allowed(kind, &copy("config/..data", "Symlink", time, ""));
    host.allowed(kind, &copy("config/key", "Symlink", "..data/key", ""));
    host.refused(
        kind,
        &copy("config/..data/key", "Regular", "", "value"),
        "F02",
    );
    host.refused(
        kind,
        &copy("config/..data/..data", "Symlink", time, ""),
        "F02",
    );
    host.refused(kind, &copy("config/evil", "Symlink", "/etc", ""), "F05");
    host.refused(
        kind,
        &copy("config/evil", "Symlink", "../../etc", ""),
        "F05",
    );
    host.refused(kind, &copy("config/key", "Symlink", "../other", ""), "F05");
    host.refused(kind, &copy("config/..data", "Symlink", "/etc", ""), "F05");
    host.refused(
        kind,
        &copy(&format!("config/{time}"), "Symlink", "/etc", ""),
        "F05",
    );
    host.refused(
        kind,
        &copy(&format!("config/{time}/evil"), "Symlink", "/etc", ""),
        "F05",
    );
    host.refused(kind, &copy("config/../x", "Regular", "", ""), "F02");
    host.refused(kind, &copy("config/x", "Unknown", "", ""), "F03");
    host.refused(kind, &copy("hosts", "Symlink", "/etc/passwd", ""), "F05");
}

#[test]
fn content_of_a_config_map_is_bound() {
    let mut host = Host::new();
    let file = "config/..2026_01_01_00_00_00.123456789/key";
    let kind = "CopyFileRequest";
    host.allowed(kind, &copy(file, "Regular", "", "value"));
    host.refused(
        kind,
        &copy(file, "Regular", "", "evil!"),
        "F05 ..2026_01_01_00_00_00.123456789/key: it is not declared, or has other content",
    );
    host.refused(
        kind,
        &copy(
            "config/..2026_01_01_00_00_00.123456789/other",
            "Regular",
            "",
            "value",
        ),
        "F05",
    );
    let mut tail = copy(file, "Regular", "", "value");
    tail["offset"] = json!(5);
    host.refused(kind, &tail, "F05");
    let mut unhashed = copy(file, "Regular", "", "value");
    unhashed.as_object_mut().expect("object").remove("data");
    host.refused(kind, &unhashed, "F05");
    let mut set_user_id = copy("hosts", "Regular", "", "");
    set_user_id["file_mode"] = json!(0o104_755);
    host.refused(kind, &set_user_id, "F05");

    let mut mutable = template();
    mutable["metadata"] =
        json!({"annotations": {"contrast.edgeless.systems/mutable-volumes": "config"}});
    Host::with(&mutable).allowed(kind, &copy(file, "Regular", "", "evil!"));
}
