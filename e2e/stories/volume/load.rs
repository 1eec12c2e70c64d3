//! An application under load, in pods that come and go, and a volume that is filled.

use std::{thread::sleep, time::Duration};

use crate::support::{Bench, Guest, OPEN_DEADLINE, SMALL};

/// Pods one after the other.
const PODS: usize = 3;
const TABLE: &str = "sqlite3 /state/shop.db 'pragma journal_mode = wal; create table if not exists sale (id integer primary key, text text)'";
/// One of the application's writers: each answered transaction is counted outside of the volume.
const WRITER: &str = "until test -e /tmp/stop; do sqlite3 -cmd '.timeout 20000' /state/shop.db \
    \"pragma synchronous = full; insert into sale (text) values (hex(randomblob(700)))\" > /dev/null && echo x >> /tmp/sold; done";
const COUNT: &str = "sqlite3 /state/shop.db 'pragma integrity_check; select count(*) from sale'";

#[test]
fn database_under_load_survives_restarts_of_its_pod() {
    let Some(bench) = Bench::set_up("database under load") else {
        return;
    };
    let disk = bench.disk("disk", SMALL);
    let mut sold = 0;
    for pod in 0..PODS {
        let mut guest = bench.boot(&format!("pod-{pod}"), &[&disk]);
        guest.open_with("--mount-options noatime");
        guest.succeed(TABLE);
        assert_eq!(guest.succeed(COUNT), format!("ok\n{sold}\n"), "pod {pod}");
        for _ in 0..2 {
            guest.succeed(&format!(
                "({WRITER}) > /dev/null 2>&1 & echo $! >> /tmp/writers"
            ));
        }
        sleep(Duration::from_secs(4));
        // Kubernetes ends the application, and then the Initializer.
        guest.succeed("touch /tmp/stop");
        let ended =
            "for writer in $(cat /tmp/writers); do ! kill -0 $writer 2>/dev/null || exit 1; done";
        guest.0.wait_until(ended, OPEN_DEADLINE).expect("ended");
        let added: u64 = number(&guest.succeed("wc -l < /tmp/sold"));
        assert!(added > 5, "pod {pod} sold {added}");
        sold += added;
        guest.close();
    }
}

/// 8,380,000 bytes and a number, as often as makes a GiB.
const BLOCKS: &str = "for i in $(seq 1 129); do echo $i; cat /tmp/block; done | head -c 1073741824";

#[test]
fn gibibyte_is_filled_and_read_back() {
    let Some(bench) = Bench::set_up_long("a full GiB") else {
        return;
    };
    let disk = bench.disk("disk", 1200);
    let mut guest = bench.boot("guest", &[&disk]);
    guest.open();
    guest.succeed("head -c 8380000 /dev/urandom > /tmp/block");
    // Each block begins with its number and has another length, so that no sector is like another one.
    guest.succeed(&format!(
        "({BLOCKS} > /state/gibibyte; sync; touch /tmp/filled) > /dev/null 2>&1 &"
    ));
    wait_for(&mut guest, "/tmp/filled");
    assert_eq!(guest.succeed("stat -c %s /state/gibibyte"), "1073741824\n");
    let said = guest
        .0
        .run("dd if=/dev/zero of=/state/more bs=1M")
        .expect("command");
    assert!(said.stderr.contains("No space left"), "{}", said.stderr);
    guest.close();
    guest.open();
    guest.succeed(&format!(
        "({BLOCKS} | cmp - /state/gibibyte && touch /tmp/same) > /tmp/cmp 2>&1 &"
    ));
    wait_for(&mut guest, "/tmp/same");
    guest.close();
}

fn wait_for(guest: &mut Guest, file: &str) {
    let deadline = Duration::from_secs(300);
    let waited = guest.0.wait_until(
        &format!("test -e {file} || {{ cat /tmp/cmp; exit 1; }}"),
        deadline,
    );
    waited.expect("in time");
}

fn number(text: &str) -> u64 {
    text.trim().parse().expect("number")
}
