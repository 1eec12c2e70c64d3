//! A volume's life: made, written, closed, opened by the next pod, grown.

use crate::support::{Bench, SMALL};

#[test]
fn next_pod_finds_what_the_one_before_wrote() {
    let Some(bench) = Bench::set_up("life of a volume") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut guest = bench.boot("first", &[&disk]);
    guest.succeed("chown 26:2000 /state; chmod 2770 /state");
    guest.open_with("--mount-options noatime,noexec");
    assert_eq!(guest.succeed("stat -c '%u:%g %a' /state"), "26:2000 2770\n");
    let mounts = guest.succeed("grep ' /state ' /proc/mounts");
    assert!(mounts.contains("nosuid,nodev,noexec,noatime"), "{mounts}");
    guest.succeed("echo 'the secret recipe' > /state/recipe && sync");
    // The container of the Initializer ends without a word, and the next one finds the volume mounted.
    guest.succeed("kill -KILL $(cat /tmp/pid)");
    guest.open();
    let log = guest.succeed("cat /tmp/log");
    assert!(log.contains("mounted already"), "{log}");
    guest.close();
    drop(guest);

    let mut guest = bench.boot("second", &[&disk]);
    guest.open();
    assert_eq!(guest.succeed("cat /state/recipe"), "the secret recipe\n");
    guest.succeed("dd if=/dev/zero of=/state/full bs=1M; sync");
    let said = guest
        .0
        .run("echo x > /state/more && sync")
        .expect("command");
    assert!(
        said.status != 0 || said.stderr.is_empty(),
        "{}",
        said.stderr
    );
    assert_eq!(guest.succeed("cat /state/recipe"), "the secret recipe\n");
    guest.close();
    let raw = std::fs::read(disk.path()).expect("disk");
    let found = raw.windows(17).any(|bytes| bytes == b"the secret recipe");
    assert!(!found, "the host can read it");
}

#[test]
fn volumes_grow_with_their_disks() {
    let Some(bench) = Bench::set_up("growth") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut guest = bench.boot("small", &[&disk]);
    guest.open();
    let before = size(&guest.succeed("df -k /state"));
    guest.succeed("seq 1 1000 > /state/file");
    guest.close();
    drop(guest);

    let cut_off = disk.copy("cut-off-disk").expect("copy");
    cut_off.resize(SMALL - 8).expect("resize");
    let mut guest = bench.boot("cut-off", &[&cut_off]);
    let said = guest.refused();
    assert!(said.contains("it was cut off"), "{said}");
    drop(guest);

    disk.resize(SMALL * 2).expect("resize");
    let mut guest = bench.boot("large", &[&disk]);
    guest.open();
    let after = size(&guest.succeed("df -k /state"));
    assert!(after > before + 40_000, "{before} KiB became {after} KiB");
    guest.succeed("cat $(ls /dev/mapper/contrast-* | grep -v _dif) > /dev/null");
    assert_eq!(guest.succeed("tail -n 1 /state/file"), "1000\n");
    guest.close();
    guest.open();
    guest.close();
}

#[test]
fn xfs_takes_the_place_of_ext4() {
    let Some(bench) = Bench::set_up("XFS") else {
        return;
    };
    let disk = bench.disk("disk", 384);
    let mut guest = bench.boot("first", &[&disk]);
    guest.open_with("--filesystem xfs");
    let mounts = guest.succeed("grep ' /state ' /proc/mounts");
    assert!(mounts.contains(" xfs "), "{mounts}");
    guest.succeed("seq 1 1000 > /state/file; sync");
    guest.0.cut_power().expect("cut");
    disk.resize(448).expect("resize");
    let mut guest = bench.boot("second", &[&disk]);
    guest.open();
    assert_eq!(guest.succeed("tail -n 1 /state/file"), "1000\n");
    assert!(size(&guest.succeed("df -k /state")) > 400_000 - 64_000);
    guest.close();
}

#[test]
fn files_on_a_shared_file_system_are_volumes_too() {
    let Some(bench) = Bench::set_up("file volumes") else {
        return;
    };
    let disk = bench.disk("disk", 160);
    let mut guest = bench.boot("guest", &[&disk]);
    guest.succeed("mkfs.ext4 -q /dev/vda && mkdir /shared && mount -t ext4 /dev/vda /shared");
    let on_file = |bytes: u64| format!("-d /shared/volume --file-bytes {bytes}");
    guest.open_with(&on_file(64 << 20));
    guest.succeed("seq 1 1000 > /state/file");
    guest.close();
    assert_eq!(guest.succeed("losetup -a"), "");
    guest.open_with(&on_file(96 << 20));
    assert_eq!(guest.succeed("tail -n 1 /state/file"), "1000\n");
    assert!(size(&guest.succeed("df -k /state")) > 75_000);
    guest.close();
    let said = guest.refused_with(
        "-d /shared/nothing --file-bytes 67108864 --format never --secret-file /contrast/secret",
    );
    assert!(said.contains("was replaced, or never made"), "{said}");
}

#[test]
fn image_store_is_made_anew_for_each_guest() {
    let Some(bench) = Bench::set_up("image store") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    for boot in ["first", "second"] {
        let mut guest = bench.boot(boot, &[&disk]);
        // The shell has one of its own, which cannot do this.
        guest.succeed(&format!("/bin/setpriv --no-new-privs --bounding-set=-all{} initializer image-store --device /dev/vda --mount-point /state > /tmp/log 2>&1 & echo $! > /tmp/pid", capabilities()));
        let waited = guest.0.wait_until(
            "grep -q 'image store is mounted' /tmp/log",
            crate::support::OPEN_DEADLINE,
        );
        waited.unwrap_or_else(|error| panic!("{error}: {}", guest.succeed("cat /tmp/log")));
        assert_eq!(guest.succeed("ls /state"), "lost+found\n");
        guest.succeed("echo 'the secret layer' > /state/layer; seq 1 100000 > /state/more; sync; cmp /state/more /state/more");
        guest.succeed("kill -TERM $(cat /tmp/pid)");
        guest
            .0
            .wait_until(
                "! kill -0 $(cat /tmp/pid) 2>/dev/null",
                crate::support::OPEN_DEADLINE,
            )
            .expect("ended");
    }
    let raw = std::fs::read(disk.path()).expect("disk");
    assert!(!raw.windows(16).any(|bytes| bytes == b"the secret layer"));
}

/// What the unit of the guest lets the image store do, as setpriv(1) takes it.
fn capabilities() -> String {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/guest/contrast-image-store.service"
    );
    let unit = std::fs::read_to_string(unit).expect("reads");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet=CAP_"));
    let names = line.expect("capabilities").to_lowercase();
    let names = names.split(" cap_");
    names.map(|name| format!(",+{name}")).collect()
}

#[test]
fn disk_that_vanishes_is_an_error_and_not_a_hang() {
    let Some(bench) = Bench::set_up("removal") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut guest = bench.boot("guest", &[&disk]);
    guest.open();
    guest.succeed("seq 1 1000 > /state/file; sync");
    guest.succeed("echo 1 > $(readlink -f /sys/block/vda/device/..)/remove");
    guest
        .0
        .wait_until("! test -e /dev/vda", crate::support::OPEN_DEADLINE)
        .expect("removed");
    let said = guest
        .0
        .run("seq 1 100000 > /state/more && sync /state/more")
        .expect("command");
    assert_ne!(said.status, 0);
    guest.succeed("kill -TERM $(cat /tmp/pid)");
    guest
        .0
        .wait_until(
            "! kill -0 $(cat /tmp/pid) 2>/dev/null",
            crate::support::OPEN_DEADLINE,
        )
        .expect("ended");
}

/// Size of the file system in KiB, as `df -k` prints it.
fn size(df: &str) -> u64 {
    let fields: Vec<&str> = df
        .lines()
        .skip(1)
        .flat_map(str::split_ascii_whitespace)
        .collect();
    fields[1].parse().expect("size")
}
