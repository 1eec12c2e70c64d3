//! A volume's life: made, written, closed, opened by the next pod.

use crate::support::{Bench, SMALL};

#[test]
fn next_pod_finds_what_the_one_before_wrote() {
    let Some(bench) = Bench::set_up("life of a volume") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut guest = bench.boot("first", &[&disk]);
    guest.open();
    guest.succeed("echo 'the secret recipe' > /state/recipe && sync");
    guest.close();
    drop(guest);

    let mut guest = bench.boot("second", &[&disk]);
    guest.open();
    assert_eq!(guest.succeed("cat /state/recipe"), "the secret recipe\n");
    eprintln!(
        "{}",
        guest.succeed("cat /tmp/log; df /state; dmsetup table")
    );
    guest.close();
    let raw = std::fs::read(disk.path()).expect("disk");
    let found = raw.windows(17).any(|bytes| bytes == b"the secret recipe");
    assert!(!found, "the host can read it");
}
