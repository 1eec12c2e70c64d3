//! The audit stream from outside: real decisions over attested TLS, the stored stream, and what an attested Coordinator says of it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::{
    fs,
    io::Read,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contrast_atls::Identity;
use contrast_audit::{CheckError, Checked, Hash, Kind, Outcome, Record, check};
use contrast_clock::SystemEntropy;
use contrast_manifest::{CertificateKeyDigest, Manifest, ManifestHash, SealedSecretDocument};
use contrast_pki::SealingPublicKey;
use contrast_proto::{
    mesh::{AdvanceVolumeRequest, NewMeshCertRequest, mesh_api_client::MeshApiClient},
    user::{
        AuditHead, DecisionCount, GetRecentDecisionsRequest, GetSealingKeyRequest,
        GetSeedSharesRequest, GetStatusRequest, user_api_client::UserApiClient,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use support::{
    COORDINATOR_INITDATA, Deployment, Process, WEB_INITDATA, channel_as, get, mesh_client, now,
    policy_hash, user_client,
};
use tonic::transport::Channel;

/// What the manifests of these tests call the secrets of the workload; no record may.
const SECRET_ID: &str = "apps/v1/Deployment/default/web";

struct Stream {
    text: String,
    records: Vec<Record>,
}

impl Stream {
    /// Of the record of this kind, outcome and reason, which must be there.
    fn subject(&self, kind: Kind, outcome: Outcome, reason: &str) -> &contrast_audit::Subject {
        let mut found = self.records.iter().filter(|record| {
            (record.kind, record.outcome, record.reason.as_str()) == (kind, outcome, reason)
        });
        let found = found.next();
        let found = found.unwrap_or_else(|| panic!("no {kind} {outcome} {reason}: {}", self.text));
        &found.subject
    }
}

fn checked(text: &str, head: Option<Hash>) -> Result<Checked, CheckError> {
    check(text.as_bytes(), head, |_, _, _| {})
}

fn hash(head: &AuditHead) -> Hash {
    Hash(head.hash.as_ref().try_into().expect("32 bytes"))
}

/// The record that the attested status names.
async fn head(user: &mut UserApiClient<Channel>) -> AuditHead {
    let status = user.get_status(GetStatusRequest {}).await;
    status.expect("answers").into_inner().audit.expect("a head")
}

/// Reads `file` until it has the record that the Coordinator names: lines are written by a thread of their own.
async fn stored(file: &PathBuf, user: &mut UserApiClient<Channel>) -> (Stream, Hash) {
    let head = hash(&head(user).await);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(file).expect("reads");
        let mut records = Vec::new();
        let found = check(text.as_bytes(), Some(head), |_, record, _| {
            records.push(record.clone());
        });
        match found {
            Ok(_) => return (Stream { text, records }, head),
            // Half a line, too, is only on its way.
            Err(error) => assert!(Instant::now() < deadline, "{error}: {text}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A manifest with a sealed secret for the web workload, once the deployment has a key to seal to.
async fn with_secret(deployment: &Deployment, user: &mut UserApiClient<Channel>) -> Manifest {
    let key = user.get_sealing_key(GetSealingKeyRequest {}).await;
    let spki = key.expect("a key").into_inner().public_key;
    let key = SealingPublicKey::from_spki(&spki).expect("a key");
    let ciphertext = key.seal("Files", "db", b"the-password", &SystemEntropy);
    let mut document = deployment.document("web");
    let web = document
        .policies
        .get_mut(&policy_hash(WEB_INITDATA).to_string());
    web.expect("is there").sealed_secrets = vec!["db".to_owned()];
    let secret = SealedSecretDocument {
        kind: "Files".to_owned(),
        ciphertext: hex::encode(ciphertext.expect("seals")),
    };
    document.sealed_secrets.insert("db".to_owned(), secret);
    Manifest::parse(document.to_json().as_bytes()).expect("valid")
}

#[tokio::test]
async fn every_decision_is_in_the_stream_whose_end_the_attested_status_names() {
    let deployment = Deployment::new();
    let file = deployment.data.path().join("audit.jsonl");
    let coordinator = deployment.start_audited(file.clone());
    let addresses = coordinator.addresses;
    let first = deployment.manifest("web");
    let mut user = user_client(addresses.user_api, &first).await;

    // Refused: nobody set a manifest.
    let early = mesh_client(addresses.mesh_api, &first, deployment.guest(WEB_INITDATA)).await;
    early.expect_err("no manifest");
    let set = user.set_manifest(deployment.request(&first, &[])).await;
    let set = set.expect("sets").into_inner();
    // Refused: nobody approved it.
    let second = with_secret(&deployment, &mut user).await;
    let mut unsigned = deployment.request(&second, &set.transition);
    unsigned.signatures.clear();
    user.set_manifest(unsigned).await.expect_err("unsigned");
    let update = user
        .set_manifest(deployment.request(&second, &set.transition))
        .await;
    let update = update.expect("updates").into_inner();
    // Refused: a policy that the manifest does not have.
    let changed = deployment.guest(b"changed policy");
    mesh_client(addresses.mesh_api, &second, changed)
        .await
        .expect_err("unknown policy");

    let identity = Arc::new(Identity::generate(now()).expect("identity"));
    let channel = channel_as(
        addresses.mesh_api,
        Arc::clone(&identity),
        Some(deployment.guest(WEB_INITDATA)),
        Arc::new(second.coordinator_verifier()),
    );
    let mut mesh = MeshApiClient::new(channel.await.expect("connects"));
    let issued = mesh.new_mesh_cert(NewMeshCertRequest::default()).await;
    let issued = issued.expect("issues").into_inner();
    for generation in [5, 5, 4] {
        let request = AdvanceVolumeRequest {
            nonce: Bytes::from_static(&[5; 32]),
            volume_id: Bytes::from_static(&[9; 16]),
            generation,
        };
        mesh.advance_volume(request).await.expect("answers");
    }
    // Refused: an owner denied the key, on the connection that is open.
    let mut document: serde_json::Value =
        serde_json::from_slice(second.bytes()).expect("a manifest");
    let key = CertificateKeyDigest::of(identity.spki());
    document["DeniedCertificateKeys"] = serde_json::json!([key.to_string()]);
    let third = Manifest::parse(document.to_string().as_bytes()).expect("valid");
    let request = deployment.request(&third, &update.transition);
    user.set_manifest(request).await.expect("updates");
    mesh.new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect_err("denied");
    // A failed handshake is noted after the client was told, and a transition when it is seen.
    tokio::time::sleep(Duration::from_millis(700)).await;

    let (stream, named) = stored(&file, &mut user).await;
    let start = &stream.records[0];
    assert_eq!((start.kind, start.sequence), (Kind::Start, 0));
    assert!(start.subject.boot.is_some() && start.subject.key.is_some());
    assert_eq!(
        start.subject.version.as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );

    let refused = |kind, reason| stream.subject(kind, Outcome::Refused, reason);
    let done = |kind| stream.subject(kind, Outcome::Done, "");
    let evidence = stream
        .records
        .iter()
        .filter(|record| record.kind == Kind::Attestation)
        .collect::<Vec<_>>();
    let [early, unknown] = evidence.as_slice() else {
        panic!("two refused handshakes: {}", stream.text);
    };
    assert_eq!(early.subject.checks, ["manifest"]);
    assert_eq!(unknown.subject.checks, ["HOSTDATA"]);
    let policy = policy_hash(b"changed policy").0;
    assert_eq!(unknown.subject.policy, Some(Hash(policy)));

    let manifest = |bytes: &[u8]| Some(Hash(ManifestHash::of(bytes).0));
    let transition = |bytes: &[u8]| Some(Hash(bytes.try_into().expect("32 bytes")));
    assert_eq!(done(Kind::Manifest).manifest, manifest(first.bytes()));
    assert_eq!(done(Kind::Manifest).transition, transition(&set.transition));
    let unsigned = refused(Kind::Manifest, "OWNER_SIGNATURES");
    assert_eq!(
        (unsigned.manifest, unsigned.approvals),
        (manifest(second.bytes()), Some(0))
    );
    assert_eq!(
        done(Kind::Transition).transition,
        transition(&set.transition)
    );

    let certificate = done(Kind::Certificate);
    let chain = CertificateDer::from_pem_slice(issued.certificate_chain.as_bytes());
    let chain = chain.expect("PEM");
    let leaf = webpki::EndEntityCert::try_from(&chain).expect("leaf");
    assert_eq!(certificate.serial, Some(hex::encode(leaf.serial())));
    assert_eq!(certificate.names, ["web", "*", "spiffe://example/web"]);
    assert_eq!(certificate.policy, Some(Hash(policy_hash(WEB_INITDATA).0)));
    assert_eq!(certificate.key, Some(Hash(key.0)));
    assert!(certificate.insecure, "{certificate:?}");
    assert_eq!(certificate.tee.as_deref(), Some("SEV-SNP"));
    assert_eq!(done(Kind::SealedSecrets).secrets, ["db"]);
    let denied = refused(Kind::Certificate, "KEY_DENIED");
    assert_eq!(denied.key, Some(Hash(key.0)));

    let volume = done(Kind::Volume);
    let id = "09".repeat(16);
    assert_eq!(
        (volume.volume.as_ref(), volume.generation),
        (Some(&id), Some(5))
    );
    let behind = refused(Kind::Volume, "VOLUME_BEHIND");
    assert_eq!((behind.generation, behind.recorded), (Some(4), Some(5)));
    assert_eq!(done(Kind::Member).role.as_deref(), Some("voter"));
    let leads = |record: &Record| {
        record.kind == Kind::Leader && record.subject.role.as_deref() == Some("leader")
    };
    assert!(stream.records.iter().any(leads), "{}", stream.text);

    // Whoever stores it can drop the end, and an attested Coordinator tells.
    let lines: Vec<&str> = stream.text.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    checked(&cut, None).expect("the rest holds");
    let error = checked(&cut, Some(named)).expect_err("the end is missing");
    assert!(matches!(error, CheckError::Head { .. }), "{error}");

    // Nothing that is nobody's business.
    let secret = hex::encode(&issued.workload_secret);
    for private in [SECRET_ID, "127.0.0.1", "the-password", &secret] {
        assert!(!stream.text.contains(private), "{private}: {}", stream.text);
    }

    let recent = user
        .get_recent_decisions(GetRecentDecisionsRequest {})
        .await;
    let recent = recent.expect("answers").into_inner();
    assert_eq!(recent.issued.len(), 1);
    let count = |kind: &str, outcome: &str| {
        let of = |one: &&DecisionCount| one.kind == kind && one.outcome == outcome;
        recent.counts.iter().find(of).map(|one| one.count)
    };
    for (kind, outcome) in [
        (Kind::Certificate, Outcome::Done),
        (Kind::Certificate, Outcome::Refused),
        (Kind::Attestation, Outcome::Refused),
        (Kind::Volume, Outcome::Done),
        (Kind::Manifest, Outcome::Done),
    ] {
        let is = |record: &&Record| record.kind == kind && record.outcome == outcome;
        let recorded = u64::try_from(stream.records.iter().filter(is).count()).ok();
        let counted = count(kind.name(), outcome.name());
        assert_eq!(counted, recorded, "{kind} {outcome}");
    }
    assert_eq!(count("recovery", "done"), None);
    assert_eq!(recent.since_ms, stream.records[0].time_ms);
    for line in recent.issued.iter().chain(&recent.refused) {
        assert!(lines.contains(&line.as_str()), "{line}");
    }
    let reasons: Vec<_> = recent
        .refused
        .iter()
        .map(|line| Record::parse(line).expect("a record").0.reason)
        .collect();
    let expected = [
        "EVIDENCE_REFUSED",
        "OWNER_SIGNATURES",
        "EVIDENCE_REFUSED",
        "VOLUME_BEHIND",
        "KEY_DENIED",
    ];
    let mut sorted = reasons.clone();
    sorted.sort();
    let mut wanted = expected.map(str::to_owned);
    wanted.sort();
    assert_eq!(sorted, wanted, "{reasons:?}");
    let metrics = get(addresses.ops, "/metrics").1;
    let issued = r#"contrast_audit_decisions_total{kind="certificate",outcome="done"} 1"#;
    assert!(metrics.contains(issued), "{metrics}");
    assert!(
        metrics.contains("contrast_audit_lost_records_total 0\n"),
        "{metrics}"
    );
    coordinator.stop().await.expect("stops");
    let text = fs::read_to_string(&file).expect("reads");
    let whole = checked(&text, Some(named)).expect("holds");
    assert!(whole.segments[0].stopped, "{text}");
}

#[tokio::test]
async fn restarted_process_begins_a_chain_of_its_own_and_records_its_recovery() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let file = deployment.data.path().join("audit.jsonl");
    let coordinator = deployment.start_audited(file.clone());
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user.set_manifest(deployment.request(&manifest, &[])).await;
    let set = set.expect("sets").into_inner();
    coordinator.stop().await.expect("stops");

    let coordinator = deployment.start_audited(file.clone());
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let shares = user.get_seed_shares(GetSeedSharesRequest {}).await;
    let shares = shares.expect("shares").into_inner();
    let request = deployment.recover_request(&shares, &set.transition);
    let mut wrong = request.clone();
    wrong.seed_share = Bytes::from(vec![7; 64]);
    user.recover(wrong).await.expect_err("another seed");
    user.recover(request).await.expect("recovers");
    let (stream, _) = stored(&file, &mut user).await;
    stream.subject(Kind::Recovery, Outcome::Refused, "WRONG_SEED");
    let recovered = stream.subject(Kind::Recovery, Outcome::Done, "");
    assert!(recovered.transition.is_some());
    let whole = checked(&stream.text, None).expect("holds");
    let [before, now] = whole.segments.as_slice() else {
        panic!("two chains: {}", stream.text);
    };
    assert!(before.stopped && !now.stopped, "{}", stream.text);
    let starts = stream
        .records
        .iter()
        .filter(|record| record.kind == Kind::Start);
    let boots: Vec<_> = starts.map(|record| record.subject.boot.clone()).collect();
    assert!(boots.len() == 2 && boots[0] != boots[1], "{boots:?}");
}

/// More than any pipe holds: certificates must not wait for a reader who never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_goes_to_standard_output_and_nobody_waits_for_its_reader() {
    const CERTIFICATES: usize = 200;
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let mut command = deployment.command();
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process::spawn(command);
    let addresses = process.addresses(&deployment.address_file());
    let mut user = user_client(addresses["user_api"], &manifest).await;
    let request = deployment.request(&manifest, &[]);
    user.set_manifest(request).await.expect("sets");
    let guest = deployment.guest(COORDINATOR_INITDATA);
    let mesh = mesh_client(addresses["mesh_api"], &manifest, guest).await;
    let mut mesh = mesh.expect("connects");
    for _ in 0..CERTIFICATES {
        mesh.new_mesh_cert(NewMeshCertRequest::default())
            .await
            .expect("issues");
    }
    let head = hash(&head(&mut user).await);
    let mut stdout = process.0.stdout.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).expect("UTF-8");
        text
    });
    kill(Pid::from_raw(process.0.id().cast_signed()), Signal::SIGTERM).expect("signals");
    assert!(process.0.wait().expect("waits").success());
    let text = reading.join().expect("reads");
    assert!(text.len() > 64 << 10, "{} bytes fit a pipe", text.len());
    let whole = checked(&text, Some(head)).expect("holds");
    assert_eq!(whole.other_lines, 0);
    let [chain] = whole.segments.as_slice() else {
        panic!("one chain: {text}");
    };
    assert!(chain.stopped && chain.lost == 0 && chain.first == 0);
    let issued = text.matches(r#""kind":"certificate","outcome":"done""#);
    assert_eq!(issued.count(), CERTIFICATES);
}

#[tokio::test]
async fn disk_that_is_full_is_counted_and_stops_nobody() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start_audited(PathBuf::from("/dev/full"));
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let request = deployment.request(&manifest, &[]);
    user.set_manifest(request).await.expect("sets");
    let guest = deployment.guest(WEB_INITDATA);
    let mesh = mesh_client(coordinator.addresses.mesh_api, &manifest, guest).await;
    let mut mesh = mesh.expect("connects");
    mesh.new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues");
    let metrics = get(coordinator.addresses.ops, "/metrics").1;
    let failures = metrics
        .lines()
        .find_map(|line| line.strip_prefix("contrast_audit_write_failures_total "));
    let failures: u64 = failures.expect("counted").parse().expect("a number");
    assert!(failures > 0, "{metrics}");
    let recent = user
        .get_recent_decisions(GetRecentDecisionsRequest {})
        .await;
    assert_eq!(recent.expect("answers").into_inner().issued.len(), 1);
}

/// What a process logs at `exposure` while it issues, refuses a peer and refuses an update.
async fn logged(exposure: &str) -> Vec<serde_json::Value> {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let mut command = deployment.command();
    command
        .env("CONTRAST_LOG_EXPOSURE", exposure)
        .stdout(Stdio::null());
    let mut process = Process::spawn(command);
    let addresses = process.addresses(&deployment.address_file());
    let mut user = user_client(addresses["user_api"], &manifest).await;
    let request = deployment.request(&manifest, &[]);
    let set = user.set_manifest(request).await.expect("sets").into_inner();
    let changed = deployment.guest(b"changed policy");
    mesh_client(addresses["mesh_api"], &manifest, changed)
        .await
        .expect_err("unknown policy");
    let guest = deployment.guest(WEB_INITDATA);
    let mesh = mesh_client(addresses["mesh_api"], &manifest, guest).await;
    mesh.expect("connects")
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues");
    let mut unsigned = deployment.request(&deployment.manifest("other"), &set.transition);
    unsigned.signatures.clear();
    user.set_manifest(unsigned).await.expect_err("unsigned");
    let id = Pid::from_raw(process.0.id().cast_signed());
    kill(id, Signal::SIGTERM).expect("signals");
    process.0.wait().expect("waits");
    let log = process.log();
    let parsed = log.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().expect("lines of JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_may_leave_says_what_happened_and_neither_to_whom_nor_why() {
    const PRIVATE: [&str; 2] = ["attested TLS handshake failed", "request refused"];
    const PUBLIC: [&str; 3] = ["coordinator is serving", "issued a certificate", "stopped"];
    let count = |log: &[serde_json::Value], text: &str| {
        let messages = log.iter().filter_map(|line| line["message"].as_str());
        messages.filter(|message| message.contains(text)).count()
    };
    let all = logged("all").await;
    for text in PRIVATE.iter().chain(&PUBLIC) {
        assert!(count(&all, text) > 0, "{text}: {all:#?}");
    }
    let private = |line: &&serde_json::Value| line["exposure"] == "private";
    assert!(all.iter().any(|line| private(&line)));
    let public = logged("public").await;
    for text in PUBLIC {
        assert!(count(&public, text) > 0, "{text}: {public:#?}");
    }
    for text in PRIVATE {
        assert_eq!(count(&public, text), 0, "{public:#?}");
    }
    for line in &public {
        assert_eq!(line["exposure"], "public", "{line}");
        assert!(line.get("peer").is_none(), "{line}");
    }
}
