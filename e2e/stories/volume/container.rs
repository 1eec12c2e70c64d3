//! The Initializer of a pod runs in a container: its `/dev` has the usual few nodes and the volume's, and nobody makes others.

use std::{thread::sleep, time::Duration};

use crate::support::{Bench, Guest, OPEN_DEADLINE, SMALL};

/// What a container runtime puts there, and the device of the first disk as Kubernetes does with `volumeDevices`.
const NODES: &str = "set -e; mount -t tmpfs none /dev; mkdir /dev/shm; mknod /dev/null c 1 3; mknod /dev/zero c 1 5; mknod /dev/full c 1 7; \
    mknod /dev/random c 1 8; mknod /dev/urandom c 1 9; mknod /dev/tty c 5 0; ";

#[test]
fn volumes_are_opened_where_nodes_of_devices_are_missing() {
    let Some(bench) = Bench::set_up("container") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let shared = bench.disk("shared", 160);
    let mut guest = bench.boot("guest", &[&disk, &shared]);
    guest.succeed(
        "mkdir /ciphertext && mkfs.ext4 -q /dev/vdb && mount -t ext4 /dev/vdb /ciphertext",
    );
    let forms = [
        "-d /dev/csi0",
        "-d /ciphertext/contrast-volume --file-bytes 67108864",
    ];
    for options in forms {
        for content in ["first", "second"] {
            contain(&mut guest, options);
            let before = guest.succeed(&inside("cat /state/file 2>/dev/null || true"));
            let expected = if content == "first" { "" } else { "first\n" };
            assert_eq!(before, expected, "{options}");
            guest.succeed(&inside(&format!("echo {content} > /state/file")));
            guest.close();
        }
        assert_eq!(guest.succeed("losetup -a"), "");
    }
    // A host that cuts the file off: it stays as it is, though the size that was asked for is larger.
    guest.succeed("mv /ciphertext/contrast-volume /ciphertext/whole; head -c 50331648 /ciphertext/whole > /ciphertext/contrast-volume");
    let digest = "sha256sum < /ciphertext/contrast-volume";
    let before = guest.succeed(digest);
    let said = guest.refused_with(&format!("{} --secret-file /contrast/secret", forms[1]));
    assert!(said.contains("it was cut off"), "{said}");
    assert_eq!(guest.succeed(digest), before);
    // A host that names a file of the guest: the link is not followed.
    guest.succeed("rm /ciphertext/contrast-volume; ln -s /dev/vda /ciphertext/contrast-volume");
    let said = guest.refused_with(&format!("{} --secret-file /contrast/secret", forms[1]));
    assert!(said.contains("cannot open the volume's file"), "{said}");
}

#[test]
fn container_that_ends_while_formatting_is_followed_by_another_one() {
    let Some(bench) = Bench::set_up("restarts of the container") else {
        return;
    };
    let disk = bench.disk("disk", SMALL * 2);
    let mut guest = bench.boot("guest", &[&disk]);
    for pause in [0, 300, 700] {
        start_contained(&mut guest, "-d /dev/csi0");
        let is_mapped = "cat /sys/block/dm-*/dm/name | grep -q _dif";
        guest
            .0
            .wait_until(is_mapped, OPEN_DEADLINE)
            .expect("mapped");
        sleep(Duration::from_millis(pause));
        guest.succeed("kill -KILL $(cat /tmp/pid) || { cat /tmp/log; exit 1; }");
    }
    contain(&mut guest, "-d /dev/csi0");
    let log = guest.succeed("cat /tmp/log");
    assert!(
        log.contains("removing what an earlier container left open"),
        "{log}"
    );
    guest.succeed(&inside("echo 1 > /state/file"));
    guest.close();
}

/// Opens a volume in a container.
fn contain(guest: &mut Guest, options: &str) {
    start_contained(guest, options);
    guest.wait_until_open();
}

fn start_contained(guest: &mut Guest, options: &str) {
    let numbers = guest.succeed("cat /sys/block/vda/dev");
    let (major, minor) = numbers.trim().split_once(':').expect("numbers");
    let run =
        format!("exec initializer cryptsetup {options} -m /state --secret-file /contrast/secret");
    guest.succeed(&format!(
        "unshare -m sh -c '{NODES} mknod /dev/csi0 b {major} {minor}; {run}' > /tmp/log 2>&1 & echo $! > /tmp/pid"
    ));
}

/// In the mounts of the container, which are not those of the guest.
fn inside(script: &str) -> String {
    format!("nsenter -m -t $(cat /tmp/pid) sh -c '{script}'")
}
