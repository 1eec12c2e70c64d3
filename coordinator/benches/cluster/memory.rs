//! Memory of a replica that has nothing to do.

use std::{fs, time::Duration};

use crate::world::Cluster;

const IDLE: Duration = Duration::from_secs(30);

pub(crate) async fn run() {
    println!("| replica | VmRSS | anonymous | threads |");
    println!("| --- | --- | --- | --- |");
    for count in [1, 3] {
        let cluster = Cluster::start(count).await;
        let (leader, _) = cluster.leader().await;
        tokio::time::sleep(IDLE).await;
        for (index, replica) in cluster.replicas.iter().enumerate() {
            let pid = replica.pid();
            let status = read(pid, "status");
            let rollup = read(pid, "smaps_rollup");
            let role = if index == leader {
                "leader"
            } else {
                "follower"
            };
            println!(
                "| {role} of {count} | {} | {} | {} |",
                mib(&field(&status, "VmRSS:")),
                mib(&field(&rollup, "Anonymous:")),
                field(&status, "Threads:"),
            );
        }
    }
}

fn read(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the replica runs")
}

/// First word after `name`.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.expect("Linux has this field").to_owned()
}

/// From KiB.
fn mib(kib: &str) -> String {
    let kib: f64 = kib.parse().expect("a number of KiB");
    format!("{:.1} MiB", kib / 1024.0)
}
