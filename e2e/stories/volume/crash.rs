//! The power goes at any moment.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::support::{Bench, SMALL, check_ledger};

/// How often the power goes.
const CUTS: u64 = 6;

/// A writer appends numbered lines and synchronises each; on standard output, which is outside of the disk, it says which are safe.
const WRITER: &str = "i=$(wc -l < /state/lines 2>/dev/null || echo 0); while :; do i=$((i+1)); echo \"line $i of the ledger\" >> /state/lines; \
    sync /state/lines && echo $i > /tmp/safe.new && mv /tmp/safe.new /tmp/safe; done";

#[test]
fn what_was_synchronised_survives_and_nothing_is_torn() {
    let Some(bench) = Bench::set_up("power cuts") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut safe = 0;
    for cut in 0..=CUTS {
        let mut guest = bench.boot(&format!("boot-{cut}"), &[&disk]);
        guest.open();
        let lines = guest.succeed("cat /state/lines 2>/dev/null || true");
        check_ledger(&lines, safe, &format!("cut {cut}"));
        if cut == CUTS {
            guest.close();
            break;
        }
        guest.succeed(&format!("({WRITER}) > /dev/null 2>&1 &"));
        let begun = Instant::now();
        // Somewhere else in the writer's loop each time.
        let pause = Duration::from_millis(700 + 137 * cut);
        while begun.elapsed() < pause {
            sleep(Duration::from_millis(20));
        }
        let said = guest.succeed("cat /tmp/safe 2>/dev/null || echo 0");
        safe = said.trim().parse().expect("number");
        guest.0.cut_power().expect("cut");
    }
    assert!(safe > 10, "only {safe} lines were written");
}

#[test]
fn interrupted_formatting_is_finished_by_the_next_pod() {
    let Some(bench) = Bench::set_up("power cuts while formatting") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    for cut in 0..5 {
        let mut guest = bench.boot(&format!("boot-{cut}"), &[&disk]);
        guest.succeed("initializer cryptsetup -d /dev/vda -m /state --secret-file /contrast/secret > /tmp/log 2>&1 &");
        sleep(Duration::from_millis(150 + 450 * cut));
        guest.0.cut_power().expect("cut");
    }
    let mut guest = bench.boot("last", &[&disk]);
    guest.open();
    guest.succeed(
        "echo 1 > /state/file; cat $(ls /dev/mapper/contrast-* | grep -v _dif) > /dev/null",
    );
    guest.close();
}
