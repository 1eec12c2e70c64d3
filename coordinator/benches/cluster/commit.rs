//! `set` on three replicas, beside one flush and one round trip of the same moment, and what it is made of.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contrast_clock::SystemEntropy;
use contrast_coordinator::{
    cluster::{
        Change, ClusterId, EntryId, Leader, LogEntry, LogFile, LogStore, RecordKey, TypeConfig,
    },
    state::{Directory, History, Observer, Store, Transition, TransitionHash},
};
use contrast_manifest::{Manifest, ManifestHash};
use contrast_pki::{
    Derivation, MeshCa, RootCa, Salt, Seed, SigningKey,
    shares::{SeedShareOwnerKey, encrypt_seed},
    verify_update_approval,
};
use futures::FutureExt;
use openraft::{
    EntryPayload,
    storage::{IOFlushed, RaftLogStorage},
    vote::RaftLeaderId,
};
use tempfile::TempDir;

use crate::{
    baseline::{Echo, Flush},
    support::{COORDINATOR_INITDATA, Deployment, WEB_INITDATA, now, policy_hash},
    table::{self, Samples, ratio},
    world::{Cluster, status},
};

const SETS: usize = 200;
/// Replicas believe each other anew under each manifest, with the first message after it. Owners do not set manifests so fast that they
/// wait for that, so heartbeats get the time to do it.
const PAUSE: Duration = Duration::from_millis(250);

pub(crate) async fn run() {
    let mut one = Cluster::start(1).await;
    let mut three = Cluster::start(3).await;
    let (leader, _) = three.leader().await;
    let (mut flush, mut echo) = (Flush::new(), Echo::new());
    let [mut flushes, mut echoes, mut floor, mut asks] = [const { Vec::new() }; 4];
    let [mut alone, mut led, mut followed, mut hurried] = [const { Vec::new() }; 4];
    let mut asked = three.replicas[leader].client(&three.manifest).await;
    for _ in 0..SETS {
        let (flushed, echoed) = (flush.once(), echo.once());
        flushes.push(flushed);
        echoes.push(echoed);
        floor.push(flushed + echoed);
        let start = Instant::now();
        status(&mut asked).await;
        asks.push(start.elapsed());
        alone.push(set(&mut one, 0).await);
        led.push(set(&mut three, leader).await);
        hurried.push(set(&mut three, leader).await);
        tokio::time::sleep(PAUSE).await;
        followed.push(set(&mut three, (leader + 1) % 3).await);
        tokio::time::sleep(PAUSE).await;
    }
    let pieces = Pieces::measure();
    let samples = Samples::from_iter;
    let (floor, led) = (samples(floor), samples(led));
    table::header();
    table::row("4 KiB appended and flushed", &samples(flushes));
    table::row("1 KiB to and fro over loopback TCP", &samples(echoes));
    table::row("both", &floor);
    table::row("`set`, one replica", &samples(alone));
    table::row("`set` at the leader of three", &led);
    table::row("... right after another", &samples(hurried));
    table::row("`set` at a follower of three", &samples(followed));
    table::row(
        "piece: question over attested gRPC (`GetStatus`)",
        &samples(asks),
    );
    table::row(
        "piece: check the approval, make mesh CA and transition",
        &pieces.propose,
    );
    table::row(
        "piece: entry appended to the Raft log, flushed",
        &pieces.log,
    );
    table::row(
        "piece: change added to the history file, flushed",
        &pieces.history,
    );
    table::row(
        "piece: check the transition, parse its manifest",
        &pieces.apply,
    );
    println!(
        "\n`set` at the leader is {:.1} times one flush and one round trip",
        ratio(led.median(), floor.median())
    );
}

/// On a connection that is open already.
async fn set(cluster: &mut Cluster, at: usize) -> Duration {
    let mut client = cluster.replicas[at].client(&cluster.manifest).await;
    let (manifest, request) = cluster.next();
    let start = Instant::now();
    let set = client.set_manifest(request).await.expect("sets");
    let took = start.elapsed();
    cluster.took(manifest, set.into_inner().transition.to_vec());
    took
}

/// The steps of a change, measured in this process with the library's own code.
#[derive(Default)]
struct Pieces {
    propose: Samples,
    log: Samples,
    history: Samples,
    apply: Samples,
}

impl Pieces {
    fn measure() -> Self {
        let mut pieces = Self::default();
        let owner = Deployment::new();
        let seed = Seed::generate(&SystemEntropy).expect("seed");
        let salt = Salt::generate(&SystemEntropy).expect("salt");
        let derivation = Derivation::new(&seed, &salt);
        let key = derivation.transition_signing_key().expect("derives");
        let root = RootCa::new(derivation.root_ca_key().expect("derives"), now()).expect("root");
        let (mut log, _in_use) = log(&derivation);
        let directory = TempDir::new().expect("directory");
        let claimed = Directory::claim(directory.path()).expect("claims");
        let (mut store, _) = Store::open(Box::new(claimed)).expect("opens");
        let policies: BTreeMap<_, _> = [COORDINATOR_INITDATA, WEB_INITDATA]
            .map(|document| (policy_hash(document), Bytes::from_static(document)))
            .into();
        let mut head = TransitionHash::NONE;
        let mut history: Option<History> = None;
        for index in 0..SETS {
            let json = owner.document(&format!("web-{index}")).to_json();
            let hash = ManifestHash::of(json.as_bytes());
            let approval = owner.owner.approve_update(&hash.0, &head.0).expect("signs");

            let start = Instant::now();
            let spki = owner.owner.public_key_spki();
            verify_update_approval(spki, &hash.0, &head.0, &approval).expect("right");
            Manifest::parse(json.as_bytes()).expect("valid");
            let transition = propose(&key, &root, hash, head);
            pieces.propose.push(start.elapsed());

            let start = Instant::now();
            transition.verify(key.public_key_spki()).expect("right");
            let manifest = Manifest::parse(json.as_bytes()).expect("valid");
            let _verifier = manifest.verifier();
            pieces.apply.push(start.elapsed());

            let start = Instant::now();
            append(
                &mut log,
                index as u64,
                &transition,
                json.as_bytes(),
                &policies,
            );
            pieces.log.push(start.elapsed());

            head = transition.hash();
            match &mut history {
                Some(history) => history.extend(transition, json.as_bytes(), &policies),
                None => {
                    let owners = manifest.seedshare_owners().iter();
                    let owners: Vec<_> = owners
                        .map(|key| SeedShareOwnerKey::from_der(key).expect("key"))
                        .collect();
                    let shares =
                        encrypt_seed(&seed, &salt, &owners, 1, &SystemEntropy).expect("encrypts");
                    let root = root.certificate_der();
                    let documents = policies.clone();
                    let first =
                        History::found(transition, json.as_bytes(), documents, shares, root);
                    history = Some(first);
                }
            }
            let start = Instant::now();
            let history = history.as_ref().expect("not empty");
            store
                .follow(history, &[], &Observer::default())
                .expect("writes");
            pieces.history.push(start.elapsed());
        }
        pieces
    }
}

fn propose(
    key: &SigningKey,
    root: &RootCa,
    manifest: ManifestHash,
    previous: TransitionHash,
) -> Transition {
    let mesh_ca = MeshCa::generate(&SystemEntropy, root, now()).expect("mesh CA");
    mesh_ca.private_key_pkcs8().expect("exports");
    // Nothing looks at shares here.
    Transition::sign(manifest, previous, mesh_ca.public_key_spki(), [0; 32], key).expect("signs")
}

fn log(derivation: &Derivation) -> (LogStore, (TempDir, Directory)) {
    let directory = TempDir::new().expect("directory");
    let claimed = Directory::claim(directory.path()).expect("claims");
    let key = derivation.store_record_key().expect("derives");
    let key = RecordKey::new(&key, ClusterId([3; 32]), 4);
    let log = LogStore::create(&LogFile::new(&claimed), key).expect("creates");
    (log, (directory, claimed))
}

fn append(
    log: &mut LogStore,
    index: u64,
    transition: &Transition,
    manifest: &[u8],
    policies: &BTreeMap<contrast_attestation::PolicyHash, Bytes>,
) {
    let change = Change {
        transition: transition.clone(),
        manifest: Bytes::copy_from_slice(manifest),
        policies: policies.values().cloned().collect(),
        founding: None,
    };
    let entry = LogEntry {
        log_id: EntryId::new(Leader::new(1, 4), index),
        payload: EntryPayload::Normal(change.into()),
    };
    let append = RaftLogStorage::<TypeConfig>::append(log, [entry], IOFlushed::noop());
    let appended = append
        .now_or_never()
        .expect("appending waits for no other task");
    appended.expect("appends");
}
