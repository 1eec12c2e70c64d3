//! Whether what an operator sees is what happened. Nothing happens any more, so that numbers that must be equal are.
//!
//! | claim | about |
//! | --- | --- |
//! | equal | the dashboard's counts, the metrics and the records in the stream of each process that runs; its records and the latest of that stream |
//! | equal | acknowledged sets and recoveries, and the history; refusals that strangers heard of, and records |
//! | at least | certificates that arrived: each is in one stream, but for the latest before a Coordinator was killed |
//! | at most | those, and one for each attempt of which nobody heard the outcome |

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use contrast_audit::{Kind, Outcome, Record};
use contrast_e2e::harness::get;
use serde_json::Value;

use crate::{
    board::{Counts, RECENT, Shown, counts, hashes, list},
    ledger::{Facts, Ledger, Refusal},
    logs,
    probe::PATIENCE_OF_USERS,
    scene::{Calm, REPLICAS, Scene},
    streams::{self, Chain, Sort, is_issued, is_other, is_refused},
};

/// Nobody must wait so long for a certificate, also when an owner has to recover.
const OUTAGE: Duration = Duration::from_secs(30);
/// Reason of records about peers that no manifest can judge, because the Coordinator has none yet.
const NO_MANIFEST_CHECK: [&str; 1] = ["manifest"];

/// Compares, and returns the figures.
pub(crate) fn judge(scene: &mut Scene, ledger: &Ledger, calm: &Calm) -> String {
    let facts = ledger.facts();
    let shown = scene.board.shown();
    let mut streams = Vec::new();
    for replica in 0..REPLICAS {
        match streams::read(&scene.replicas, replica) {
            Ok(chains) => streams.push(chains),
            Err(why) => {
                ledger.wrong(why);
                streams.push(Vec::new());
            }
        }
        verify(scene, replica, &calm.state, ledger);
    }
    let mut text = String::new();
    for (replica, chains) in streams.iter().enumerate() {
        let starts = usize::try_from(scene.replicas.starts(replica)).unwrap_or_default();
        ledger.require(chains.len() == starts, || {
            format!(
                "replica {replica}: {} chains of {starts} processes",
                chains.len()
            )
        });
        running(scene, replica, chains, &calm.state, ledger);
        seen(replica, chains, &shown, &facts, ledger);
    }
    let all: Vec<&Record> = records(&streams).collect();
    text += &certificates(&all, &facts, ledger);
    text += &refusals(&all, &facts, ledger);
    text += &manifests(&all, &calm.state, &facts, ledger);
    agreement(&calm.state, ledger);
    leaders(&all, ledger);
    let logs = logs::judge(scene, ledger, &calm.state);
    let _ = writeln!(
        text,
        "chaos: dashboard: {} looks, {} rows of a Coordinator that does not serve, {} processes seen; no secret and no panic in {logs} logs",
        shown.looks,
        shown.alarms,
        shown.boots.len()
    );
    ledger.require(shown.slow < 3, || {
        format!(
            "the dashboard answered late, or a Coordinator stopped serving because of another's failure, {} times",
            shown.slow
        )
    });
    ledger.require(calm.asked.longest_outage < OUTAGE, || {
        format!("no certificate for {:?}", calm.asked.longest_outage)
    });
    let _ = writeln!(
        text,
        "chaos: longest time without a certificate {:.1} s ({} asked and got, {} in vain)",
        calm.asked.longest_outage.as_secs_f32(),
        calm.asked.issued,
        calm.asked.failed
    );
    match &calm.used {
        Some(used) => {
            ledger.require(used.works, || {
                format!(
                    "the application does not answer through the mesh: {}",
                    used.why
                )
            });
            let _ = writeln!(
                text,
                "chaos: the application through the mesh: {} answers, {} failures, longest time without {:.1} s",
                used.answers,
                used.failures,
                used.longest_outage.as_secs_f32()
            );
        }
        None => text += "chaos: no Envoy here, so that nobody used the application\n",
    }
    text
}

fn records(streams: &[Vec<Chain>]) -> impl Iterator<Item = &Record> {
    let chains = streams.iter().flatten();
    chains.flat_map(|chain| chain.records.iter().map(|(record, _)| record))
}

/// As an auditor would: with the head that the attested Coordinator names.
fn verify(scene: &Scene, replica: usize, state: &Value, ledger: &Ledger) {
    let head = state["replicas"][replica]["status"]["audit"]["hash"].as_str();
    let file = scene
        .path()
        .join(format!("replica-{replica}/replica-{replica}.log"));
    let file = file.to_string_lossy();
    let arguments = ["audit", "verify", &file, "--head", head.unwrap_or("none")];
    let verified = scene
        .cluster
        .owner()
        .try_contrast(&arguments)
        .expect("runs");
    ledger.require(verified.code == 0, || {
        format!("replica {replica}: `contrast audit verify`: {verified:?}")
    });
}

/// The process that runs: dashboard, metrics and stream have the same numbers and records.
fn running(scene: &Scene, replica: usize, chains: &[Chain], state: &Value, ledger: &Ledger) {
    let Some(chain) = chains.last() else {
        return;
    };
    let row = &state["replicas"][replica];
    let written = chain.counts();
    let shown = counts(row);
    ledger.require(written == shown, || {
        format!("replica {replica}: the stream has {written:?}, the dashboard {shown:?}")
    });
    ledger.require(row["since_ms"] == chain.since_ms(), || {
        format!("replica {replica}: counts since {}", row["since_ms"])
    });
    let metrics = get(scene.replicas.ops(replica), "/metrics", PATIENCE_OF_USERS);
    let metrics = decisions(&metrics.unwrap_or_default());
    ledger.require(written == metrics, || {
        format!("replica {replica}: the stream has {written:?}, the metrics {metrics:?}")
    });
    let sorts: [(&str, Sort); 3] = [
        ("issued", is_issued),
        ("refused", is_refused),
        ("other", is_other),
    ];
    for (sort, is) in sorts {
        let (written, shown) = (chain.latest(RECENT, is), hashes(row, sort));
        ledger.require(shown.as_ref() == Ok(&written), || {
            format!("replica {replica}, records {sort}: stream {written:?}, dashboard {shown:?}")
        });
    }
}

/// `contrast_audit_decisions_total`.
fn decisions(metrics: &str) -> Counts {
    let lines = metrics.lines().filter_map(|line| {
        let line = line.strip_prefix("contrast_audit_decisions_total{kind=\"")?;
        let (kind, line) = line.split_once("\",outcome=\"")?;
        let (outcome, value) = line.split_once("\"} ")?;
        Some(((kind.to_owned(), outcome.to_owned()), value.parse().ok()?))
    });
    lines.collect()
}

/// Everything that was ever shown of a process is in its stream, but for its last moment if it was killed.
fn seen(replica: usize, chains: &[Chain], shown: &Shown, facts: &Facts, ledger: &Ledger) {
    let boots = shown.boots.iter().filter(|((one, _), _)| *one == replica);
    for ((_, since), boot) in boots {
        let chain = chains.iter().find(|chain| chain.since_ms() == *since);
        let Some(chain) = chain else {
            ledger.wrong(format!(
                "replica {replica}: no stream of the process of {since}"
            ));
            continue;
        };
        let written = chain.hashes();
        let mut missing = 0;
        for (hash, at_ms) in &boot.records {
            if !written.contains(hash.as_str()) {
                missing += 1;
                let killed = Ledger::unwritten(facts, Some(replica), *at_ms, 0);
                ledger.require(killed, || {
                    format!("replica {replica}: record {hash} was shown and is not written")
                });
            }
        }
        let counted = chain.counts();
        for (what, count) in &boot.counts {
            let written = counted.get(what).copied().unwrap_or_default();
            ledger.require(written + missing >= *count, || {
                format!("replica {replica}: {count} of {what:?} were shown, {written} are written")
            });
        }
    }
}

fn certificates(all: &[&Record], facts: &Facts, ledger: &Ledger) -> String {
    let mut issued: BTreeMap<String, u64> = BTreeMap::new();
    let mut serials: BTreeMap<String, String> = BTreeMap::new();
    for record in all.iter().filter(|record| is_issued(record)) {
        let policy = record.subject.policy.map(|hash| hash.to_string());
        let policy = policy.unwrap_or_default();
        *issued.entry(policy.clone()).or_default() += 1;
        let serial = record.subject.serial.clone().unwrap_or_default();
        let twice = serials.insert(serial.clone(), policy);
        ledger.require(twice.is_none(), || format!("serial number {serial} twice"));
    }
    let mut unwritten = 0;
    for (serial, received) in &facts.serials {
        match serials.get(serial) {
            Some(policy) => ledger.require(*policy == received.policy, || {
                format!(
                    "serial number {serial}: policy {policy}, expected {}",
                    received.policy
                )
            }),
            None if Ledger::unwritten(facts, None, received.at_ms, received.late_ms) => {
                unwritten += 1;
            }
            None => ledger.wrong(format!(
                "a certificate arrived at {} that no stream has: {serial} of {}",
                received.at_ms, received.policy
            )),
        }
    }
    let kills = u64::try_from(facts.kills.len()).unwrap_or(u64::MAX);
    let (mut arrived, mut may_have, mut recorded) = (0, 0, 0);
    for (policy, enrolled) in &facts.enrolled {
        let written = issued.remove(policy).unwrap_or_default();
        // A workload asks for one at a time, so a kill costs each at most one record.
        let least = enrolled.received.saturating_sub(kills);
        let most = enrolled.received + enrolled.unknown;
        ledger.require((least..=most).contains(&written), || {
            format!("policy {policy}: {written} certificates are recorded, {enrolled:?}")
        });
        ledger.require(enrolled.received > 0, || {
            format!("policy {policy} got nothing")
        });
        arrived += enrolled.received;
        may_have += most;
        recorded += written;
    }
    ledger.require(issued.is_empty(), || {
        format!("certificates for policies of nobody: {issued:?}")
    });
    let mut joins = facts.joins_ms.clone();
    joins.sort_unstable();
    let quantile = |percent: usize| {
        joins.get((joins.len() * percent / 100).min(joins.len().saturating_sub(1)))
    };
    format!(
        "chaos: {} workloads killed, {} joins, p50 {:?} ms, p99 {:?} ms; certificates of {} policies: {arrived} arrived, {recorded} recorded, at most \
         {may_have} expected; {} serial numbers seen, {unwritten} of them lost with a killed process\n",
        facts.workloads_killed,
        joins.len(),
        quantile(50).unwrap_or(&0),
        quantile(99).unwrap_or(&0),
        facts.enrolled.len(),
        facts.serials.len()
    )
}

fn refusals(all: &[&Record], facts: &Facts, ledger: &Ledger) -> String {
    let mut open = facts.refusals.clone();
    let (mut matched, mut nobody_s, mut failed) = (0, 0, 0);
    for record in all.iter().filter(|record| is_refused(record)) {
        let subject = &record.subject;
        let marker = match record.kind {
            Kind::Attestation if subject.checks == NO_MANIFEST_CHECK => None,
            Kind::Attestation => subject.policy,
            Kind::Manifest => subject.manifest,
            _ => None,
        };
        match marker.map(|marker| marker.to_string()) {
            Some(marker) => match open.remove(&marker) {
                Some(told) => {
                    matched += 1;
                    let same = told
                        .reason
                        .as_ref()
                        .is_none_or(|told| *told == record.reason);
                    ledger.require(same && told.kind == record.kind.name(), || {
                        format!("the stranger heard {told:?}, the record says {record:?}")
                    });
                }
                // The owner's own request, repeated or refused for want of a leader.
                None if facts.sets.iter().any(|set| set.manifest == marker) => failed += 1,
                None => ledger.wrong(format!("somebody was refused: {record:?}")),
            },
            // A replica without a manifest refuses everybody, and one without a quorum cannot issue.
            None if record.kind == Kind::Attestation => nobody_s += 1,
            None => {
                let expected = record.outcome == Outcome::Failed
                    || matches!(record.kind, Kind::Recovery | Kind::Certificate);
                ledger.require(expected, || format!("somebody was refused: {record:?}"));
                failed += 1;
            }
        }
    }
    for kind in [Kind::Attestation, Kind::Manifest] {
        let certain = |told: &&Refusal| told.kind == kind.name() && told.reason.is_some();
        let told = facts.refusals.values().filter(certain).count();
        ledger.require(told > 0, || {
            format!("no stranger heard of a refusal: {kind}")
        });
    }
    ledger.require(facts.unattested > 0, || "everybody had evidence".to_owned());
    let mut unwritten = 0;
    for (marker, told) in &open {
        let near = Ledger::unwritten(facts, None, told.at_ms, 0);
        match told.reason {
            None => {}
            Some(_) if near => unwritten += 1,
            Some(_) => ledger.wrong(format!("no record of the refusal {told:?} of {marker}")),
        }
    }
    format!(
        "chaos: strangers: {} refused, {} of them without an answer, {matched} recorded, {unwritten} lost with a killed process, {} without evidence got nothing; \
         {nobody_s} peers of a Coordinator without a manifest, {failed} requests that failed for want of a quorum\n",
        facts.refusals.len(),
        facts
            .refusals
            .values()
            .filter(|told| told.reason.is_none())
            .count(),
        facts.unattested
    )
}

fn manifests(all: &[&Record], state: &Value, facts: &Facts, ledger: &Ledger) -> String {
    let steps: Vec<(&str, &str)> = list(&state["history"]["steps"])
        .iter()
        .map(|step| {
            let text = |name: &str| step[name].as_str().unwrap_or_default();
            (text("transition"), text("manifest_sha256"))
        })
        .collect();
    let mut rest = steps.iter();
    for set in facts.sets.iter() {
        let Some(transition) = &set.transition else {
            continue;
        };
        let found = rest.find(|(found, _)| found == transition);
        ledger.require(
            found.is_some_and(|(_, manifest)| *manifest == set.manifest),
            || format!("manifest {} is not in its place in {steps:?}", set.manifest),
        );
    }
    let known: BTreeSet<&str> = facts
        .sets
        .iter()
        .filter_map(|set| set.transition.as_deref())
        .chain(facts.recoveries.iter().map(String::as_str))
        .collect();
    let unknown: BTreeSet<&str> = facts
        .sets
        .iter()
        .filter(|set| set.transition.is_none())
        .map(|set| set.manifest.as_str())
        .collect();
    for (transition, manifest) in &steps {
        ledger.require(
            known.contains(transition) || unknown.contains(manifest),
            || format!("nobody made transition {transition} with manifest {manifest}"),
        );
    }
    for recovery in &facts.recoveries {
        ledger.require(steps.iter().any(|(found, _)| found == recovery), || {
            format!("recovery {recovery} is not in the history")
        });
        let recorded = all.iter().filter(|record| {
            record.kind == Kind::Recovery
                && record.outcome == Outcome::Done
                && record
                    .subject
                    .transition
                    .is_some_and(|hash| hash.to_string() == *recovery)
        });
        ledger.require(recorded.count() == 1, || {
            format!("no record of recovery {recovery}")
        });
    }
    let mut seen = BTreeSet::new();
    for record in all.iter().filter(|record| record.kind == Kind::Transition) {
        let generation = record
            .subject
            .generation
            .and_then(|number| usize::try_from(number).ok());
        let generation = generation.unwrap_or_default();
        let step = generation.checked_sub(1).and_then(|index| steps.get(index));
        let transition = record.subject.transition.map(|hash| hash.to_string());
        seen.insert(generation);
        ledger.require(
            step.map(|(found, _)| (*found).to_owned()) == transition,
            || format!("{record:?} is not transition {generation} of {steps:?}"),
        );
    }
    ledger.require(seen.len() == steps.len(), || {
        format!(
            "{} transitions, {} of them recorded",
            steps.len(),
            seen.len()
        )
    });
    format!(
        "chaos: history: {} transitions, as the dashboard shows: {} sets acknowledged, {} of unknown outcome, {} recoveries\n",
        steps.len(),
        facts
            .sets
            .iter()
            .filter(|set| set.transition.is_some())
            .count(),
        unknown.len(),
        facts.recoveries.len()
    )
}

/// All replicas say the same about themselves and each other.
fn agreement(state: &Value, ledger: &Ledger) {
    let replicas = list(&state["replicas"]);
    let views: Vec<Value> = replicas
        .iter()
        .map(|replica| {
            let (active, cluster) = (&replica["status"]["active"], &replica["status"]["cluster"]);
            let members = list(&cluster["members"]).iter().map(|member| {
                ledger.require(member["voter"] == true, || {
                    format!("{member} does not vote")
                });
                format!(
                    "{} {} {}",
                    member["place"], member["node"], member["leader"]
                )
            });
            let members: BTreeSet<String> = members.collect();
            ledger.require(members.len() == REPLICAS, || format!("{members:?}"));
            serde_json::json!([
                active["transition"],
                active["manifest_sha256"],
                active["generation"],
                cluster["id"],
                cluster["term"],
                cluster["leader"],
                members,
            ])
        })
        .collect();
    ledger.require(views.windows(2).all(|pair| pair[0] == pair[1]), || {
        format!("the replicas do not agree: {views:#?}")
    });
    let leads = |replica: &&Value| replica["status"]["role"] == "leader";
    let leaders: Vec<&Value> = replicas.iter().filter(leads).collect();
    let one = leaders.len() == 1
        && leaders[0]["status"]["cluster"]["node"] == leaders[0]["status"]["cluster"]["leader"];
    ledger.require(one, || format!("not one leader: {}", leaders.len()));
}

/// No two replicas ever led in the same term of the same cluster.
fn leaders(all: &[&Record], ledger: &Ledger) {
    let mut led: BTreeMap<(String, u64), String> = BTreeMap::new();
    for record in all.iter().filter(|record| record.kind == Kind::Leader) {
        let subject = &record.subject;
        let (Some(cluster), Some(term), Some(leader)) =
            (subject.cluster, subject.term, subject.leader.clone())
        else {
            continue;
        };
        let key = (cluster.to_string(), term);
        let before = led.entry(key).or_insert_with(|| leader.clone());
        ledger.require(*before == leader, || {
            format!("term {term} of cluster {cluster} had the leaders {before} and {leader}")
        });
    }
}
