//! What a host may do to a disk, and what comes of it.

use contrast_e2e::vm::Disk;

use crate::support::{Bench, Guest, SMALL};

/// LUKS2 header and keyslot, before the two seals.
const SEALS: u64 = 0x8_0000;
const DATA: u64 = 0x10_0000;

/// A disk with a volume that was closed.
fn closed_volume(bench: &Bench, name: &str, content: &str) -> Disk {
    let disk = bench.disk(name, SMALL);
    let mut guest = bench.boot(name, &[&disk]);
    guest.open();
    guest.succeed(&format!("echo '{content}' > /state/file"));
    guest.close();
    disk
}

/// A machine whose disk the test changes between two attempts; what the kernel remembers of it is forgotten.
fn attempt(guest: &mut Guest) -> String {
    guest.succeed("blockdev --flushbufs /dev/vda");
    guest.refused()
}

#[test]
fn changed_headers_are_refused_and_nothing_is_written() {
    let Some(bench) = Bench::set_up("changed headers") else {
        return;
    };
    let disk = closed_volume(&bench, "disk", "mine");
    let other = closed_volume(&bench, "other", "also mine");
    let whole = disk.copy("whole").expect("copy");
    let mut guest = bench.boot("victim", &[&disk]);

    // Crafted with right checksums: the unit tests show that each is refused by what it says; here nobody gets that far, because of the seal.
    let mut header = disk.read(0, DATA as usize).expect("header");
    let json = String::from_utf8_lossy(&header[4096..16384]).into_owned();
    let json = json.trim_end_matches('\0').replace(
        r#""encryption":"aes-xts-plain64","sector_size""#,
        r#""encryption":"cipher_null-ecb","sector_size""#,
    );
    for copy in [0, 16384] {
        header[copy + 4096..copy + 16384].fill(0);
        header[copy + 4096..copy + 4096 + json.len()].copy_from_slice(json.as_bytes());
        header[copy + 448..copy + 512].fill(0);
        let checksum =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &header[copy..copy + 16384]);
        header[copy + 448..copy + 480].copy_from_slice(checksum.as_ref());
    }
    disk.write(0, &header).expect("write");
    untouched(&disk, || {
        let said = attempt(&mut guest);
        assert!(said.contains("not the one that was sealed"), "{said}");
    });

    // Bits all over the header: each is in the header's digest or in a seal.
    for offset in (0..DATA)
        .step_by(0x1_0701)
        .chain([0, 4096, 16384, 32768, SEALS - 1, DATA - 1])
    {
        disk.restore(&whole).expect("restore");
        disk.flip(offset, 0x10).expect("flip");
        if (SEALS..SEALS + 0x2000).contains(&offset) {
            continue;
        }
        untouched(&disk, || {
            let said = attempt(&mut guest);
            assert!(
                said.contains("not the one that was sealed"),
                "{offset}: {said}"
            );
        });
    }

    // Both seals damaged, and the header of another volume of the same workload over the data of this one.
    disk.restore(&whole).expect("restore");
    for seal in [SEALS, SEALS + 0x1000] {
        disk.flip(seal + 60, 1).expect("flip");
    }
    untouched(&disk, || {
        let said = attempt(&mut guest);
        assert!(said.contains("was changed since"), "{said}");
    });
    disk.restore(&whole).expect("restore");
    disk.write(0, &other.read(0, DATA as usize).expect("header"))
        .expect("write");
    let said = attempt(&mut guest);
    assert!(said.contains("e2fsck") || said.contains("cannot"), "{said}");

    // Another workload's secret.
    disk.restore(&whole).expect("restore");
    untouched(&disk, || {
        guest.succeed("blockdev --flushbufs /dev/vda");
        let said = guest.refused_with("--secret-file /contrast/other-secret");
        assert!(
            said.contains("not made with this workload secret"),
            "{said}"
        );
    });

    guest.succeed("blockdev --flushbufs /dev/vda");
    guest.open();
    assert_eq!(guest.succeed("cat /state/file"), "mine\n");
    guest.close();
}

#[test]
fn foreign_disks_are_not_formatted() {
    let Some(bench) = Bench::set_up("foreign disks") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut guest = bench.boot("guest", &[&disk]);
    guest.succeed("mkfs.ext4 -q /dev/vda && sync");
    untouched(&disk, || {
        let said = attempt(&mut guest);
        assert!(said.contains("it holds ext4"), "{said}");
        assert!(said.contains("secure-pv-format"), "{said}");
    });
    // Something only in the middle.
    guest.succeed("dd if=/dev/zero of=/dev/vda bs=1M 2>/dev/null; sync");
    disk.write(SMALL * 1024 * 1024 / 64 * 40 + 5, b"x")
        .expect("write");
    untouched(&disk, || {
        let said = attempt(&mut guest);
        assert!(said.contains("not blank"), "{said}");
    });
    // A blank one where a volume must be.
    disk.write(SMALL * 1024 * 1024 / 64 * 40 + 5, &[0])
        .expect("write");
    untouched(&disk, || {
        guest.succeed("blockdev --flushbufs /dev/vda");
        let said = guest.refused_with("--secret-file /contrast/secret --format never");
        assert!(said.contains("was replaced, or never made"), "{said}");
    });
    guest.succeed("mkfs.ext4 -q /dev/vda && sync");
    guest.open_with("--format discard");
    guest.close();
}

#[test]
fn changed_and_exchanged_data_is_not_read() {
    let Some(bench) = Bench::set_up("changed data") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut guest = bench.boot("writer", &[&disk]);
    guest.open();
    guest.succeed(
        "seq 1 400000 > /state/file; sha256sum /state/file > /tmp/sum; sync; tail -c 1 /state/file",
    );
    let sum = guest.succeed("cat /tmp/sum");
    guest.close();
    drop(guest);
    let whole = disk.copy("whole").expect("copy");

    // One byte in each 64 KiB of the data, and pairs of sectors in each other's place.
    let mut noticed = 0;
    for change in ["flipped", "exchanged"] {
        disk.restore(&whole).expect("restore");
        let end = SMALL * 1024 * 1024;
        let mut offset = DATA + 0x10_0000;
        while offset + 0x2_0000 < end {
            match change {
                "flipped" => disk.flip(offset + 77, 1).expect("flip"),
                _ => {
                    let [one, other] = [offset, offset + 0x1_0000];
                    let [first, second] = [one, other].map(|at| disk.read(at, 4096).expect("read"));
                    disk.write(one, &second).expect("write");
                    disk.write(other, &first).expect("write");
                }
            }
            offset += 0x2_0000;
        }
        let mut guest = bench.boot(change, &[&disk]);
        let script = "initializer cryptsetup -d /dev/vda -m /state --secret-file /contrast/secret > /tmp/log 2>&1 & \
            for i in $(seq 100); do grep -q 'is mounted' /tmp/log && break; kill -0 $! 2>/dev/null || exit 3; sleep 0.1; done; \
            cat /state/file > /tmp/copy || exit 4; sha256sum /tmp/copy";
        let said = guest.0.run(script).expect("command");
        // Whatever was read is what was written; everything else is an error.
        match said.status {
            0 => {
                let expected = sum.split_whitespace().next().unwrap_or_default();
                assert!(
                    said.stdout.starts_with(expected),
                    "{change}: {}",
                    said.stdout
                );
            }
            status => {
                assert!(
                    [3, 4].contains(&status),
                    "{change}: {status} {}",
                    said.stderr
                );
                noticed += 1;
            }
        }
    }
    assert_eq!(noticed, 2, "changes were not noticed");
}

fn untouched(disk: &Disk, attempt: impl FnOnce()) {
    let before = disk.digest().expect("digest");
    attempt();
    assert_eq!(
        disk.digest().expect("digest"),
        before,
        "something was written"
    );
}
