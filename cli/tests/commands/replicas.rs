//! `set`, `verify` and `recover` against several Coordinators, and one that has no quorum for a while.

use std::net::TcpListener;

use contrast_manifest::ManifestDocument;
use contrast_proto::user::{GetManifestsResponse, Transition};

use crate::fake::{Fake, Script, coordinator, workspace};

const DEPLOYMENT: &str = include_str!("../data/deployment.yml");

fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").to_string()
}

/// Fails with UNAVAILABLE twice.
fn electing() -> Script {
    Script {
        unavailable: Some((2, "NO_QUORUM")),
        ..Script::default()
    }
}

#[test]
fn set_repeats_the_very_same_request_until_there_is_a_quorum() {
    let (context, tee, manifest) = workspace();
    context.file("resources/deployment.yml", DEPLOYMENT);
    let fake = Fake::start(&tee, coordinator(&manifest), electing());
    let output = context.output(&["set", "-c", &fake.address(), "resources", "--atomic"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let asked = fake.asked();
    assert_eq!(asked.set.len(), 3, "{:?}", asked.calls);
    assert!(asked.set.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn set_without_a_quorum_gives_up_at_the_timeout_and_says_why() {
    let (context, tee, manifest) = workspace();
    context.file("resources/deployment.yml", DEPLOYMENT);
    let script = Script {
        unavailable: Some((u32::MAX, "NO_QUORUM")),
        ..Script::default()
    };
    let fake = Fake::start(&tee, coordinator(&manifest), script);
    let address = fake.address();
    let shown = context.run(&["set", "-c", &address, "resources", "--timeout", "1"]);
    insta::assert_snapshot!(fake.hide_address(&shown));
}

#[test]
fn next_address_is_asked_when_one_is_down_repeated_or_after_a_comma() {
    let (context, tee, manifest) = workspace();
    context.file("resources/deployment.yml", DEPLOYMENT);
    let fake = Fake::start(&tee, coordinator(&manifest), Script::default());
    let (down, up) = (closed_address(), fake.address());
    let both = format!("{down},{up}");
    for arguments in [
        vec!["set", "-c", &both, "resources"],
        vec!["set", "-c", &down, "-c", &up, "resources"],
    ] {
        let output = context.output(&arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(stdout.contains(&up) && !stdout.contains(&down), "{stdout}");
    }
}

#[test]
fn coordinator_that_waits_to_be_admitted_is_passed_over_and_asked_once() {
    let (context, tee, manifest) = workspace();
    context.file("resources/deployment.yml", DEPLOYMENT);
    let waiting = || Script {
        waiting: true,
        ..Script::default()
    };
    let waits = Fake::start(&tee, coordinator(&manifest), waiting());
    let serves = Fake::start(&tee, coordinator(&manifest), Script::default());
    let both = [waits.address(), serves.address()].join(",");
    let output = context.output(&["set", "-c", &both, "resources"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(waits.asked().calls, ["GetManifests"]);
    assert_eq!(serves.asked().set.len(), 1);

    let alone = context.output(&["set", "-c", &waits.address(), "resources"]);
    assert_eq!(alone.status.code(), Some(4), "{alone:?}");
    assert_eq!(waits.asked().calls, ["GetManifests"], "waiting cannot help");
}

#[test]
fn impostor_at_the_first_address_is_reported_and_nobody_else_is_asked() {
    let (context, tee, manifest) = workspace();
    let wrong = contrast_attestation::PolicyHash([9; 32]);
    let impostor = Fake::start(&tee, wrong, Script::default());
    let genuine = Fake::start(&tee, coordinator(&manifest), Script::default());
    let addresses = [impostor.address(), genuine.address()];
    for command in ["verify", "status"] {
        let output = context.output(&[command, "-c", &addresses.join(",")]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    assert!(genuine.asked().calls.is_empty());
}

/// A workspace of a seed share owner whose share opens.
fn owner_workspace() -> (
    crate::context::Context,
    contrast_attestation::software::SoftwareTee,
    contrast_attestation::PolicyHash,
) {
    use contrast_clock::SystemEntropy;
    use contrast_pki::{Salt, Seed, shares};
    let (context, tee, manifest) = workspace();
    let key = shares::generate_owner_key_pem().expect("key");
    context.file("seedshare-owner.pem", &key);
    let owner = shares::SeedShareOwnerKey::from_pem(&key).expect("public key");
    let seed = Seed::generate(&SystemEntropy).expect("seed");
    let salt = Salt::generate(&SystemEntropy).expect("salt");
    let document =
        shares::encrypt_seed(&seed, &salt, &[owner], 1, &SystemEntropy).expect("encrypts");
    context.file("seed-shares.json", &document.to_json().expect("JSON"));
    let policy = coordinator(&manifest);
    (context, tee, policy)
}

#[test]
fn recover_names_the_transition_that_the_workspace_saw_last_as_its_guard() {
    let (context, tee, policy) = owner_workspace();
    let fake = Fake::start(&tee, policy, electing());
    let address = fake.address();
    context.file("latest-transition", &format!("{}\n", "3c".repeat(32)));
    let output = context.output(&["recover", "-c", &address]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let asked = fake.asked().recover;
    assert_eq!(asked.len(), 3, "UNAVAILABLE was not tried again");
    assert_eq!(asked[0].known_transition[..], [0x3c; 32]);

    let given = "5a".repeat(32);
    context.output(&["recover", "-c", &address, "--latest-transition", &given]);
    assert_eq!(fake.asked().recover[0].known_transition[..], [0x5a; 32]);
}

#[test]
fn refused_recovery_says_what_to_do() {
    let (context, tee, policy) = owner_workspace();
    context.file("latest-transition", &format!("{}\n", "3c".repeat(32)));
    for reason in [
        "HISTORY_ROLLED_BACK",
        "SURVIVOR_ANSWERS",
        "ALREADY_RECOVERED",
    ] {
        let script = Script {
            refuses_recovery: Some(reason),
            ..Script::default()
        };
        let fake = Fake::start(&tee, policy, script);
        let shown = context.run(&["recover", "-c", &fake.address()]);
        insta::assert_snapshot!(reason, fake.hide_address(&shown));
        assert_eq!(fake.asked().recover.len(), 1, "a refusal was tried again");
    }
}

/// A history whose only transition names a manifest with these initdata documents.
fn history(policies: &[&str]) -> GetManifestsResponse {
    GetManifestsResponse {
        transitions: vec![Transition {
            manifest_hash: vec![1; 32].into(),
            previous: vec![0; 32].into(),
            mesh_ca_public_key: vec![2; 120].into(),
            signature: vec![3; 100].into(),
            signing_public_key: vec![4; 120].into(),
            seed_shares_digest: vec![5; 32].into(),
        }],
        policies: policies
            .iter()
            .map(|text| (*text).to_owned().into())
            .collect(),
        ..Default::default()
    }
}

#[test]
fn set_takes_the_document_of_the_earlier_coordinator_from_the_history() {
    let (context, tee, manifest) = workspace();
    context.file("resources/deployment.yml", DEPLOYMENT);
    let key = contrast_pki::WorkloadOwnerKey::generate(&contrast_clock::SystemEntropy);
    let pem = key.expect("key").to_pem().expect("PEM");
    context.file("workload-owner.pem", &pem);
    let earlier =
        "version = \"0.1.0\"\nalgorithm = \"sha256\"\n# the Coordinator before this one\n";
    let hash = contrast_cli::transition::sha256(earlier.as_bytes());
    let mut document = ManifestDocument::from_json(manifest.bytes()).expect("document");
    let entry = document.policies[&coordinator(&manifest).to_string()].clone();
    document.policies.insert(hex::encode(hash), entry);
    context.file("manifest.json", &document.to_json());

    let without = Script {
        history: history(&[]),
        ..Script::default()
    };
    let fake = Fake::start(&tee, contrast_attestation::PolicyHash(hash), without);
    let output = context.output(&["set", "-c", &fake.address(), "resources"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains(&hex::encode(hash)), "{stderr}");
    assert!(fake.asked().set.is_empty());

    let with = Script {
        history: history(&["something else", earlier]),
        ..Script::default()
    };
    let fake = Fake::start(&tee, contrast_attestation::PolicyHash(hash), with);
    let output = context.output(&["set", "-c", &fake.address(), "resources"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let set = fake.asked().set;
    assert_eq!(set[0].policies.len(), 3);
    assert!(
        set[0]
            .policies
            .iter()
            .any(|one| one[..] == *earlier.as_bytes())
    );
}
