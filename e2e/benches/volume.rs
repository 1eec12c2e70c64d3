//! What an encrypted volume costs: the same reads and writes on ours, on ext4 over plain `dm-crypt`, which notices no change, and on ext4 as it is; in one
//! virtual machine, in turns, and how long it takes to open one.
//!
//! `CONTRAST_VM_TESTS=1 cargo bench -p contrast-e2e --bench volume` prints tables for `docs/performance.md`; it needs `fio`, what `cargo xtask vm-test`
//! needs, and `cargo build --release --bins`. Nothing here fails because something is slow.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that meets the unexpected has to stop there, and its output is its purpose"
)]

use std::{process::Command, time::Duration};

use contrast_e2e::vm::{Disk, Machine, Options, why_not};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);
const DISK_MIB: u64 = 320;
/// Of which every sector is written by `cryptsetup`.
const LUKS_MIB: u64 = 64;
const ROUNDS: usize = 5;
const OPENINGS: usize = 9;
const SECONDS: u32 = 3;
/// Mount points, and what the first columns say of them.
const STACKS: [&str; 3] = ["ours", "crypt", "plain"];
/// Names, and options of fio.
const LOADS: [(&str, &str); 6] = [
    ("sequential read, 1 MiB", "--rw=read --bs=1M"),
    ("sequential write, 1 MiB", "--rw=write --bs=1M"),
    ("random read, 4 KiB", "--rw=randread --bs=4k"),
    ("random write, 4 KiB", "--rw=randwrite --bs=4k"),
    (
        "random read, 4 KiB, 16 at once",
        "--rw=randread --bs=4k --ioengine=libaio --iodepth=16",
    ),
    (
        "random write, 4 KiB, each synchronised",
        "--rw=randwrite --bs=4k --fdatasync=1",
    ),
];
/// Whoever waits for the log in a loop takes the one processor away from what is measured.
const OPEN: &str = "rm -f /tmp/until; { grep -m 1 -q 'volume is mounted'; cut -d ' ' -f 1 /proc/uptime > /tmp/until; cat > /dev/null; } < /tmp/log > /dev/null 2>&1 & \
    cut -d ' ' -f 1 /proc/uptime > /tmp/from; initializer cryptsetup -d /dev/vda -m /ours --secret-file /contrast/secret > /tmp/log 2>&1 & echo $! > /tmp/pid; sleep 2";
const IS_OPEN: &str = "test -s /tmp/until";
const IS_CLOSED: &str = "! kill -0 $(cat /tmp/pid) 2>/dev/null";
/// The same steps with the programs of Debian, on a header that `cryptsetup` made: the baseline of opening.
const LUKS_FORMAT: &str = "cryptsetup luksFormat -q --type luks2 --cipher aes-xts-plain64 --integrity hmac-sha256 --pbkdf pbkdf2 \
    --pbkdf-force-iterations 1000 --key-file /contrast/secret /dev/vdd && cryptsetup open --key-file /contrast/secret /dev/vdd luks && \
    mkfs.ext4 -q /dev/mapper/luks && cryptsetup close luks";
const LUKS_OPEN: &str = "cryptsetup open --key-file /contrast/secret /dev/vdd luks && e2fsck -p /dev/mapper/luks > /dev/null && mount -t ext4 /dev/mapper/luks /luks";
const LUKS_CLOSE: &str = "umount /luks && cryptsetup close luks";

fn main() {
    if let Some(reason) = why_not() {
        println!("SKIPPED volumes: {reason}");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let blank = |name, size| Disk::blank(directory.path(), name, size).expect("disk");
    let [ours, crypt, plain] = STACKS.map(|name| blank(name, DISK_MIB));
    let luks = blank("luks", LUKS_MIB);
    let tools = Disk::of_programs(directory.path(), "tools", &["fio"]).expect("fio");
    let disks = [&ours, &crypt, &plain, &luks, &tools];
    let mut machine =
        Machine::boot(directory.path(), "bench", &disks, Options::default()).expect("machine");
    prepare(&mut machine);
    openings(&mut machine);
    loads(&mut machine);
}

fn prepare(machine: &mut Machine) {
    let secret: String = "a5".repeat(64);
    let script = [
        "mkdir -p /ours /crypt /plain /luks /tools",
        "mount -t ext4 -o ro /dev/vde /tools",
        &format!("printf {secret} > /contrast/secret"),
        "printf %64s x > /contrast/key",
        "cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512 --sector-size 4096 --key-file /contrast/key /dev/vdb crypt",
        "mkfs.ext4 -q /dev/mapper/crypt && mount -t ext4 /dev/mapper/crypt /crypt",
        "mkfs.ext4 -q /dev/vdc && mount -t ext4 /dev/vdc /plain",
        LUKS_FORMAT,
        "mknod /tmp/log p",
        OPEN,
    ];
    for line in script {
        machine.succeed(line).expect("prepared");
    }
    machine.wait_until(IS_OPEN, DEADLINE).expect("made");
}

fn openings(machine: &mut Machine) {
    let mut taken = [Vec::new(), Vec::new()];
    let timed = format!("cut -d ' ' -f 1 /proc/uptime; {LUKS_OPEN}; cut -d ' ' -f 1 /proc/uptime");
    for _ in 0..OPENINGS {
        machine
            .succeed("kill -TERM $(cat /tmp/pid)")
            .expect("ended");
        machine.wait_until(IS_CLOSED, DEADLINE).expect("closed");
        machine.succeed(OPEN).expect("open");
        let ours = machine.succeed("cat /tmp/from /tmp/until").expect("opened");
        let luks = machine.succeed(&timed).expect("open");
        machine.succeed(LUKS_CLOSE).expect("closed");
        for (taken, said) in taken.iter_mut().zip([ours, luks]) {
            taken.push(passed(&said));
        }
    }
    let [ours, luks] = taken.map(median);
    println!("| opening | seconds | ratio |\n| --- | --- | --- |");
    println!(
        "| `initializer cryptsetup`, until it is mounted | {ours:.2} | {:.2} |",
        ours / luks
    );
    println!(
        "| `cryptsetup open`, `e2fsck`, `mount` of an empty LUKS2 volume with integrity | {luks:.2} | 1 |\n"
    );
    println!(
        "A program starts {:.0} times slower in the machine than outside of it.\n",
        slowness(machine)
    );
}

/// How much slower a program starts in the machine than outside of it.
fn slowness(machine: &mut Machine) -> f64 {
    let script = "cut -d ' ' -f 1 /proc/uptime; for i in $(seq 1 20); do cryptsetup --version > /dev/null; done; cut -d ' ' -f 1 /proc/uptime";
    let inside = passed(&machine.succeed(script).expect("started"));
    let outside = Command::new("sh")
        .args(["-c", script])
        .output()
        .expect("started");
    inside / passed(&String::from_utf8_lossy(&outside.stdout))
}

fn loads(machine: &mut Machine) {
    for stack in STACKS {
        fio(machine, stack, "--rw=write --bs=1M");
    }
    println!(
        "| load | ours, MiB/s | plain dm-crypt | ext4 alone | of dm-crypt | of ext4 |\n| --- | --- | --- | --- | --- | --- |"
    );
    for (name, options) in LOADS {
        let mut rates = STACKS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (stack, rates) in STACKS.iter().zip(&mut rates) {
                let options = format!("{options} --time_based --runtime={SECONDS}");
                rates.push(fio(machine, stack, &options));
            }
        }
        let [ours, crypt, plain] = rates.map(median);
        println!(
            "| {name} | {ours:.1} | {crypt:.1} | {plain:.1} | {:.2} | {:.2} |",
            ours / crypt,
            ours / plain
        );
    }
}

/// MiB per second.
fn fio(machine: &mut Machine, stack: &str, options: &str) -> f64 {
    let command = format!(
        "LD_LIBRARY_PATH=/tools/lib /tools/bin/fio --name=load --filename=/{stack}/file --size=128M --direct=1 --ioengine=psync --output-format=json {options}"
    );
    let said = machine.succeed(&command).expect("fio");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    let job = &report["jobs"][0];
    let rate = |way: &str| job[way]["bw_bytes"].as_f64().unwrap_or_default();
    (rate("read") + rate("write")) / 1024.0 / 1024.0
}

fn passed(said: &str) -> f64 {
    let times: Vec<f64> = said
        .split_ascii_whitespace()
        .map(|time| time.parse().expect("seconds"))
        .collect();
    times.last().expect("end") - times.first().expect("beginning")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    *values.get(values.len() / 2).expect("values")
}
