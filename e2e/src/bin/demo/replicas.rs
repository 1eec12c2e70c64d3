//! The same tour with several Coordinators, of which one is killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contrast_e2e::harness::{Cluster, ReplicaSet, no_network_because};
use serde_json::Value;

use crate::{
    steps::{Steps, only, say},
    tour::{enrol_again, impostor, pods},
};

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn tour(cluster: &Cluster, count: usize, steps: &mut Steps) -> Result<()> {
    if let Some(reason) = no_network_because() {
        bail!("several Coordinators need a network namespace each: {reason}");
    }
    let replicas = steps.run_with(
        &format!("start {count} Coordinators, each in a network of its own"),
        || {
            let mut replicas = ReplicaSet::create(cluster, count, &[])?;
            cluster.join(replicas.network())?;
            (0..count).try_for_each(|replica| replicas.start(replica))?;
            let facts =
                (0..count).map(|replica| format!("user API {}", replicas.user_api(replica)));
            let facts = facts.collect();
            Ok((replicas, facts))
        },
    )?;
    let all = replicas.user_apis(0..count);
    let owner = cluster.owner();
    steps.run("set: any Coordinator takes the manifest", || {
        let set = owner.contrast(&["set", "-c", &all, "resources"])?;
        Ok(only(
            &set.stdout,
            &["manifest SHA-256", "latest transition"],
        ))
    })?;
    steps.run("the others are attested and get seed and history", || {
        (0..count).try_for_each(|replica| replicas.await_ready(replica, DEADLINE))?;
        Ok(vec![format!("all {count} are ready")])
    })?;
    steps.run("verify: what a data owner runs", || {
        let verify = owner.contrast(&["verify", "-c", &all])?;
        Ok(only(&verify.stdout, &["ok ", "verified"]))
    })?;
    let leader = steps.run_with("contrast status", || {
        let leader = leader(cluster, &replicas)?;
        Ok((leader, status(cluster, &replicas, leader)?))
    })?;

    // The pods use one that stays.
    let other = (0..count)
        .find(|replica| *replica != leader)
        .context("there is only one Coordinator")?;
    let mesh_api = replicas.mesh_api(other);
    let pods = pods(cluster, mesh_api, steps).await?;
    impostor(cluster, &cluster.workloads()?["votes"], mesh_api, steps)?;

    say("");
    steps.run(
        &format!("kill -9 the leader, {}", replicas.user_api(leader)),
        || {
            let starts = replicas.starts(leader);
            let killed = Instant::now();
            replicas.crash(leader)?;
            let set = owner.contrast(&["set", "-c", &all, "resources"])?;
            let mut facts = vec![format!(
                "the next `contrast set` succeeded {:.2} s after the kill",
                killed.elapsed().as_secs_f32()
            )];
            facts.extend(only(&set.stdout, &["latest transition"]));
            while replicas.starts(leader) == starts {
                ensure!(
                    killed.elapsed() < DEADLINE,
                    "the leader was not started again"
                );
                std::thread::sleep(Duration::from_millis(20));
            }
            replicas.await_ready(leader, DEADLINE)?;
            while !all_vote(cluster, &replicas)? {
                ensure!(killed.elapsed() < DEADLINE, "the restarted one has no vote");
            }
            facts.push(format!(
                "the killed one, restarted with a fresh identity, was attested and votes again {:.2} s after the kill",
                killed.elapsed().as_secs_f32()
            ));
            Ok(facts)
        },
    )?;
    steps.run("contrast status", || {
        let leader = self::leader(cluster, &replicas)?;
        status(cluster, &replicas, leader)
    })?;
    steps.run("verify: the history has grown, nothing was lost", || {
        let verify = owner.contrast(&["verify", "-c", &all])?;
        Ok(only(&verify.stdout, &["verified", "latest transition"]))
    })?;
    steps.run(
        "a new pod enrols with the Coordinator that was killed",
        || enrol_again(cluster, &pods, replicas.mesh_api(leader)),
    )
}

/// The Coordinator that says that it leads.
fn leader(cluster: &Cluster, replicas: &ReplicaSet) -> Result<usize> {
    let start = Instant::now();
    loop {
        for replica in 0..replicas.count() {
            let address = replicas.user_api(replica).to_string();
            let arguments = ["status", "-c", &address, "--format", "json"];
            let status = cluster.owner().try_contrast(&arguments)?;
            let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
            if status["role"] == "leader" {
                return Ok(replica);
            }
        }
        ensure!(start.elapsed() < DEADLINE, "no Coordinator leads");
    }
}

/// Whether the leader names one identity for each place, each with a vote. Of an even number one is a spare.
fn all_vote(cluster: &Cluster, replicas: &ReplicaSet) -> Result<bool> {
    let address = replicas.user_api(leader(cluster, replicas)?).to_string();
    let arguments = ["status", "-c", &address, "--format", "json"];
    let status: Value = serde_json::from_str(&cluster.owner().try_contrast(&arguments)?.stdout)?;
    let members = status["cluster"]["members"].as_array();
    let members = members.context("no members in the status")?;
    let voters = members.iter().filter(|member| member["voter"] == true);
    let spares = (replicas.count() + 1) % 2;
    Ok(members.len() == replicas.count() && voters.count() + spares == members.len())
}

/// The table of members that one Coordinator shows.
fn status(cluster: &Cluster, replicas: &ReplicaSet, replica: usize) -> Result<Vec<String>> {
    let address = replicas.user_api(replica).to_string();
    let status = cluster.owner().contrast(&["status", "-c", &address])?;
    let lines = status.stdout.lines().map(str::to_owned);
    Ok(lines
        .filter(|line| !line.is_empty() && !line.starts_with("INSECURE"))
        .collect())
}
