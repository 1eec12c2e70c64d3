//! The power goes, and the disk loses what it had not flushed: any part of it, sector by sector.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use contrast_e2e::vm::WriteLog;

use crate::support::{Bench, Guest, OPEN_DEADLINE, SMALL, check_ledger};

/// How long the writers write at least.
const LOAD: Duration = Duration::from_secs(8);
/// How many power cuts are played, and in how many machines.
const CUTS_PER_MACHINE: usize = 4;
const MACHINES: usize = 2;

/// Appends numbered lines and says which are synchronised, as the story of power cuts does.
const LEDGER: &str = "i=0; while :; do i=$((i+1)); echo \"line $i of the ledger\" >> /state/lines; sync /state/lines && echo $i > /tmp/lines.new && mv /tmp/lines.new /tmp/lines; done";
/// A database with a rollback journal. `extra` also synchronises the directory in which a commit removes the journal; with `full` the last answered
/// transaction may be rolled back.
const TABLE: &str =
    "sqlite3 /state/shop.db 'create table sale (id integer primary key, text text)'";
const DATABASE: &str = "i=0; while :; do i=$((i+1)); sqlite3 /state/shop.db \"pragma synchronous = extra; begin; insert into sale values ($i, hex(randomblob(900))); update sale set text = hex(randomblob(800)) where id = $i / 2; commit\" && echo $i > /tmp/sales.new && mv /tmp/sales.new /tmp/sales; done";

/// What was promised when the log had that many bytes.
struct Promise {
    length: u64,
    lines: u64,
    sales: u64,
}

#[test]
fn what_was_synchronised_survives_a_disk_that_loses_the_rest() {
    let Some(bench) = Bench::set_up("lost writes") else {
        return;
    };
    let mut disk = bench.disk("disk", SMALL);
    let mut guest = bench.boot("first", &[&disk]);
    guest.open();
    guest.succeed(TABLE);
    guest.close();
    drop(guest);

    let before = disk.copy("before").expect("copy");
    let log = disk.log_writes().expect("log");
    let mut guest = bench.boot("load", &[&disk]);
    guest.open();
    let promises = load(&mut guest, &log);
    guest.0.cut_power().expect("cut");
    let last = promises.last().expect("promises");
    let mut lost = 0;
    for machine in 0..MACHINES {
        let cuts: Vec<(usize, u64)> = (0..CUTS_PER_MACHINE)
            .map(|cut| (cut, random(promises[0].length, last.length)))
            .collect();
        let disks: Vec<_> = cuts
            .iter()
            .map(|(cut, length)| {
                let disk = before.copy(&format!("cut-{cut}")).expect("copy");
                let mut coins = Coins::default();
                lost += log.cut(&disk, *length, || coins.toss()).expect("cut");
                disk
            })
            .collect();
        let all: Vec<_> = disks.iter().collect();
        let mut guest = bench.boot(&format!("after-{machine}"), &all);
        for ((cut, length), letter) in cuts.iter().zip(["a", "b", "c", "d"]) {
            let promised = promises.iter().rfind(|promise| promise.length <= *length);
            let promised = promised.expect("not before the first");
            guest.open_with(&format!("-d /dev/vd{letter}"));
            check(
                &mut guest,
                promised,
                &format!("cut {cut} of machine {machine} at {length}"),
            );
            guest.close();
        }
    }
    assert!(lost > 0, "no disk lost anything");
}

#[test]
fn formatting_survives_a_disk_that_loses_writes() {
    let Some(bench) = Bench::set_up("lost writes while formatting") else {
        return;
    };
    let mut disk = bench.disk("disk", SMALL);
    let before = disk.copy("before").expect("copy");
    let log = disk.log_writes().expect("log");
    let mut guest = bench.boot("first", &[&disk]);
    guest.open();
    guest.close();
    drop(guest);
    let end = log.length().expect("length");
    let mut lost = 0;
    let disks: Vec<_> = (0..CUTS_PER_MACHINE)
        .map(|cut| {
            let disk = before.copy(&format!("cut-{cut}")).expect("copy");
            let mut coins = Coins::default();
            // Not before the first entry.
            let length = random(64 * 1024, end);
            lost += log.cut(&disk, length, || coins.toss()).expect("cut");
            disk
        })
        .collect();
    assert!(lost > 0, "no disk lost anything");
    let all: Vec<_> = disks.iter().collect();
    let mut guest = bench.boot("after", &all);
    for letter in ["a", "b", "c", "d"] {
        guest.open_with(&format!("-d /dev/vd{letter}"));
        guest.succeed(
            "echo 1 > /state/file; cat $(ls /dev/mapper/contrast-* | grep -v _dif) > /dev/null",
        );
        guest.close();
    }
}

fn load(guest: &mut Guest, log: &WriteLog) -> Vec<Promise> {
    for writer in [LEDGER, DATABASE] {
        guest.succeed(&format!("({writer}) > /dev/null 2>&1 &"));
    }
    let begun = Instant::now();
    let mut promises = Vec::new();
    let is_enough = |promises: &[Promise]| {
        let last = promises.last();
        last.is_some_and(|last| last.lines > 10 && last.sales > 5)
    };
    while begun.elapsed() < LOAD || !is_enough(&promises) {
        assert!(
            begun.elapsed() < OPEN_DEADLINE,
            "hardly anything is written"
        );
        sleep(Duration::from_millis(50));
        let said = guest.succeed("cat /tmp/lines /tmp/sales 2>/dev/null | tr '\\n' ' '");
        let numbers: Vec<u64> = said
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [lines, sales] = numbers[..] else {
            continue;
        };
        let length = log.length().expect("length");
        promises.push(Promise {
            length,
            lines,
            sales,
        });
    }
    promises
}

fn check(guest: &mut Guest, promised: &Promise, which: &str) {
    let lines = guest.succeed("cat /state/lines");
    check_ledger(&lines, promised.lines, which);
    let said = guest.succeed("sqlite3 /state/shop.db 'pragma integrity_check; select count(*) from sale; select max(id) from sale'");
    let said: Vec<&str> = said.lines().collect();
    let [verdict, count, greatest] = said[..] else {
        panic!("{which}: {said:?}");
    };
    assert_eq!((verdict, count), ("ok", greatest), "{which}");
    let count: u64 = count.parse().expect("number");
    assert!(
        count >= promised.sales,
        "{which}: {} sales were safe, {count} are there",
        promised.sales
    );
}

fn random(from: u64, to: u64) -> u64 {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).expect("randomness");
    from + u64::from_le_bytes(bytes) % (to - from).max(1)
}

/// Random bits.
#[derive(Default)]
struct Coins(Vec<bool>);

impl Coins {
    fn toss(&mut self) -> bool {
        if let Some(coin) = self.0.pop() {
            return coin;
        }
        let mut bytes = [0; 64];
        rand::fill(&mut bytes).expect("randomness");
        self.0.extend(
            bytes
                .iter()
                .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)),
        );
        self.0.pop().unwrap_or_default()
    }
}
