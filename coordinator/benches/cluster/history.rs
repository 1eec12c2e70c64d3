//! A long history and a large manifest: how long a start and a recovery take, and whether issuing notices.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contrast_clock::SystemEntropy;
use contrast_coordinator::state::{
    Directory, History, Observer, Store, Transition, TransitionHash,
};
use contrast_manifest::{Manifest, ManifestHash, PolicyDocument};
use contrast_pki::{
    Derivation, RootCa, Salt, Seed, SigningKey,
    shares::{SeedShareOwnerKey, SeedSharesDocument, encrypt_seed},
};
use contrast_proto::{
    mesh::NewMeshCertRequest,
    user::{GetSeedSharesRequest, RecoverRequest},
};

use crate::{
    support::{
        COORDINATOR_INITDATA, Deployment, WEB_INITDATA, mesh_client, now, policy_hash,
        trio::ReplicaProcess,
    },
    table::{Samples, millis},
};

const LONG: usize = 10_000;
const MANY: usize = 10_000;
/// Like the smallest useful initdata.
const POLICY_BYTES: usize = 1 << 10;
const STARTS: usize = 5;
const CERTIFICATES: usize = 500;

/// A deployment whose replicas have a history on disk and do not run yet.
struct Sealed {
    owner: Deployment,
    manifest: Manifest,
    head: TransitionHash,
    replicas: Vec<ReplicaProcess>,
}

pub(crate) async fn run() {
    let mut small = sealed(1, 0, 1);
    let mut large = sealed(LONG, MANY, 1);
    println!(
        "manifest of {} bytes with {MANY} policies of {POLICY_BYTES} bytes; {LONG} transitions",
        large.manifest.bytes().len()
    );
    println!("\n| what | 1 transition, 2 policies | {LONG} transitions, {MANY} policies |");
    println!("| --- | --- | --- |");
    let [few, many] = [&mut small, &mut large].map(|sealed| millis(starts(sealed).median()));
    println!("| process started -> sealed, ports open | {few} | {many} |");
    let (few, many) = (recover(&small).await, recover(&large).await);
    println!(
        "| `Recover` answered | {} | {} |",
        millis(few),
        millis(many)
    );
    let few = certificates(&small).await;
    let many = certificates(&large).await;
    for percent in [50, 99] {
        let [few, many] = [&few, &many].map(|samples| millis(samples.percentile(percent)));
        println!("| `NewMeshCert`, p{percent} | {few} | {many} |");
    }
    let [few, many] = [&small, &large].map(|sealed| memory(&sealed.replicas[0]));
    println!("| VmRSS | {few} | {many} |");
    drop((small, large));

    let (few, many) = (
        together(sealed(1, 0, 3)).await,
        together(sealed(LONG, MANY, 3)).await,
    );
    println!(
        "| `Recover` answered -> all three serve | {} | {} |",
        millis(few),
        millis(many)
    );
}

/// A policy that no pod has.
fn policy(number: usize) -> Bytes {
    let mut document = format!("version = \"0.1.0\"\n# workload {number}\n").into_bytes();
    document.resize(POLICY_BYTES, b'#');
    document.into()
}

fn share(seed: &Seed, salt: &Salt, manifest: &Manifest) -> SeedSharesDocument {
    let owners = manifest.seedshare_owners().iter();
    let owners: Vec<_> = owners
        .map(|key| SeedShareOwnerKey::from_der(key).expect("key"))
        .collect();
    let threshold = manifest.seedshare_threshold();
    encrypt_seed(seed, salt, &owners, threshold, &SystemEntropy).expect("encrypts")
}

/// Writes a history of `transitions` with a manifest each, the last of which has `policies` more than the others, to the first of
/// `count` replicas.
fn sealed(transitions: usize, policies: usize, count: usize) -> Sealed {
    let owner = Deployment::new();
    let seed = Seed::generate(&SystemEntropy).expect("seed");
    let salt = Salt::generate(&SystemEntropy).expect("salt");
    let derivation = Derivation::new(&seed, &salt);
    let key = derivation.transition_signing_key().expect("derives");
    let mut documents: BTreeMap<_, _> = [COORDINATOR_INITDATA, WEB_INITDATA]
        .map(|document| (policy_hash(document), Bytes::from_static(document)))
        .into();
    let mut history: Option<History> = None;
    let mut shares: Option<SeedSharesDocument> = None;
    let mut head = TransitionHash::NONE;
    let mut latest = owner.manifest("web");
    for number in 1..=transitions {
        let mut document = owner.document(&format!("web-{number}"));
        if number == transitions {
            for number in 0..policies {
                let policy = policy(number);
                let entry = PolicyDocument {
                    sans: vec![format!("workload-{number}")],
                    workload_secret_id: format!("apps/v1/Deployment/default/workload-{number}"),
                    role: String::new(),
                    vcpus: None,
                    spiffe_path: String::new(),
                    sealed_secrets: Vec::new(),
                };
                document
                    .policies
                    .insert(policy_hash(&policy).to_string(), entry);
                documents.insert(policy_hash(&policy), policy);
            }
        }
        let json = document.to_json();
        let mesh_ca = SigningKey::generate(&SystemEntropy).expect("key");
        let manifest = ManifestHash::of(json.as_bytes());
        let shares = shares.get_or_insert_with(|| {
            let first = Manifest::parse(json.as_bytes()).expect("valid");
            share(&seed, &salt, &first)
        });
        let digest = shares.digest().expect("JSON");
        let transition = Transition::sign(manifest, head, mesh_ca.public_key_spki(), digest, &key);
        let transition = transition.expect("signs");
        head = transition.hash();
        match &mut history {
            Some(history) => history.extend(transition, json.as_bytes(), &documents),
            None => {
                let root = RootCa::new(derivation.root_ca_key().expect("derives"), now());
                let root = root.expect("root");
                let first = History::found(
                    transition,
                    json.as_bytes(),
                    documents.clone(),
                    shares.clone(),
                    root.certificate_der(),
                );
                history = Some(first);
            }
        }
        if number == transitions {
            latest = Manifest::parse(json.as_bytes()).expect("valid");
        }
    }
    let replicas = ReplicaProcess::place_all(count);
    let history = history.expect("at least one transition");
    write(&history, replicas[0].deployment.data.path());
    Sealed {
        owner,
        manifest: latest,
        head,
        replicas,
    }
}

fn write(history: &History, directory: &Path) {
    let directory = Directory::claim(directory).expect("own directory");
    let (mut store, _) = Store::open(Box::new(directory)).expect("opens");
    store
        .follow(history, &[], &Observer::default())
        .expect("writes");
}

/// How long a start takes. The last process goes on.
fn starts(sealed: &mut Sealed) -> Samples {
    let start = |_| {
        sealed.replicas[0].kill();
        let start = Instant::now();
        sealed.replicas[0].start();
        start.elapsed()
    };
    (0..STARTS).map(start).collect()
}

async fn recover(sealed: &Sealed) -> Duration {
    let mut client = sealed.replicas[0].client(&sealed.manifest).await;
    let shares = client.get_seed_shares(GetSeedSharesRequest {}).await;
    let shares = shares.expect("sealed, not empty").into_inner();
    let request: RecoverRequest = sealed.owner.recover_request(&shares, &sealed.head.0);
    let start = Instant::now();
    client.recover(request).await.expect("recovers");
    start.elapsed()
}

async fn certificates(sealed: &Sealed) -> Samples {
    let guest = sealed.owner.guest(WEB_INITDATA);
    let client = mesh_client(sealed.replicas[0].mesh_api, &sealed.manifest, guest).await;
    let mut client = client.expect("attests");
    let mut samples = Samples::default();
    for _ in 0..CERTIFICATES {
        let start = Instant::now();
        client
            .new_mesh_cert(NewMeshCertRequest::default())
            .await
            .expect("issues");
        samples.push(start.elapsed());
    }
    samples
}

fn memory(replica: &ReplicaProcess) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", replica.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.expect("Linux has this field").trim().to_owned()
}

/// How long empty replicas take to receive a recovered history from the first.
async fn together(mut sealed: Sealed) -> Duration {
    for replica in &mut sealed.replicas {
        replica.start();
    }
    recover(&sealed).await;
    let start = Instant::now();
    for replica in &sealed.replicas {
        replica.serves(&sealed.manifest).await;
    }
    start.elapsed()
}
