//! Sealed secrets over the Coordinator's APIs: who gets which, what `set` refuses, and what outlives a transition and a recovery.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use contrast_atls::Identity;
use contrast_clock::SystemEntropy;
use contrast_manifest::{Manifest, ManifestDocument, PolicyDocument, SealedSecretDocument};
use contrast_pki::{MeshAnswer, ReleasedSecret, RootKey, SealingPublicKey};
use contrast_proto::{
    mesh::{NewMeshCertRequest, NewMeshCertResponse, mesh_api_client::MeshApiClient},
    user::{
        GetSealingKeyRequest, GetSeedSharesRequest, SetManifestResponse,
        user_api_client::UserApiClient,
    },
};
use support::{
    COORDINATOR_INITDATA, Coordinator, Deployment, WEB_INITDATA, channel_as, now, policy_hash,
    user_client,
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

const OTHER_INITDATA: &[u8] = b"version = \"0.1.0\"\n# other\n";
const NONCE: [u8; 32] = [5; 32];
const PASSWORD: &[u8] = b"password";
const TOKEN: &[u8] = b"token";

/// Kind, name and content, as a pod gets them.
type Got = Vec<(String, String, Vec<u8>)>;

fn sealed(key: &SealingPublicKey, kind: &str, name: &str, content: &[u8]) -> SealedSecretDocument {
    let ciphertext = key.seal(kind, name, content, &SystemEntropy);
    SealedSecretDocument {
        kind: kind.to_owned(),
        ciphertext: hex::encode(ciphertext.expect("seals")),
    }
}

/// The usual manifest, another workload, and which workload gets which of `secrets`.
fn document(
    deployment: &Deployment,
    secrets: &[(&str, &SealedSecretDocument)],
    of_web: &[&str],
    of_other: &[&str],
) -> ManifestDocument {
    let mut document = deployment.document("web");
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let web = document
        .policies
        .get_mut(&policy_hash(WEB_INITDATA).to_string());
    let web = web.expect("is there");
    web.sealed_secrets = owned(of_web);
    let other = PolicyDocument {
        sans: vec!["other".to_owned()],
        sealed_secrets: owned(of_other),
        ..web.clone()
    };
    document
        .policies
        .insert(policy_hash(OTHER_INITDATA).to_string(), other);
    for (name, secret) in secrets {
        document
            .sealed_secrets
            .insert((*name).to_owned(), (*secret).clone());
    }
    document
}

fn parsed(document: &ManifestDocument) -> Manifest {
    Manifest::parse(document.to_json().as_bytes()).expect("valid")
}

/// A deployment that is served, and what its owner and its pods know.
struct Served {
    deployment: Deployment,
    coordinator: Coordinator,
    first: Manifest,
    root: RootKey,
    latest: Bytes,
}

impl Served {
    async fn start() -> Self {
        let deployment = Deployment::new();
        let coordinator = deployment.start();
        let first = parsed(&document(&deployment, &[], &[], &[]));
        let mut user = user_client(coordinator.addresses.user_api, &first).await;
        let set = set(&mut user, &deployment, &first, &[]).await;
        let set = set.expect("sets");
        Self {
            root: RootKey::of_certificate(&set.root_ca).expect("a key"),
            latest: set.transition,
            deployment,
            coordinator,
            first,
        }
    }

    async fn user(&self) -> UserApiClient<Channel> {
        user_client(self.coordinator.addresses.user_api, &self.first).await
    }

    async fn set(&mut self, document: &ManifestDocument) -> Result<(), Status> {
        let mut user = self.user().await;
        let manifest = parsed(document);
        let set = set(&mut user, &self.deployment, &manifest, &self.latest).await?;
        self.latest = set.transition;
        Ok(())
    }

    async fn key(&self) -> SealingPublicKey {
        let mut user = self.user().await;
        let answer = user.get_sealing_key(GetSealingKeyRequest {}).await;
        let answer = answer.expect("answers").into_inner();
        SealingPublicKey::from_spki(&answer.public_key).expect("a sealing key")
    }

    /// Enrols a pod, and checks that the root CA signed what it gets.
    async fn enrol(&self, initdata: &[u8]) -> Got {
        let identity = Arc::new(Identity::generate(now()).expect("identity"));
        let channel = channel_as(
            self.coordinator.addresses.mesh_api,
            Arc::clone(&identity),
            Some(self.deployment.guest(initdata)),
            Arc::new(self.first.coordinator_verifier()),
        );
        let mut mesh = MeshApiClient::new(channel.await.expect("connects"));
        let request = NewMeshCertRequest {
            nonce: Bytes::copy_from_slice(&NONCE),
        };
        let answer = mesh.new_mesh_cert(request).await.expect("issues");
        let answer = answer.into_inner();
        assert!(
            answer
                .certificate_chain
                .starts_with("-----BEGIN CERTIFICATE-----")
        );
        self.check_signature(&answer, identity.spki());
        let secrets = answer.sealed_secrets.into_iter();
        secrets
            .map(|secret| (secret.kind, secret.name, secret.content.to_vec()))
            .collect()
    }

    fn check_signature(&self, answer: &NewMeshCertResponse, spki: &[u8]) {
        let released: Vec<_> = answer
            .sealed_secrets
            .iter()
            .map(|secret| ReleasedSecret {
                kind: &secret.kind,
                name: &secret.name,
                content: &secret.content,
            })
            .collect();
        let signed = MeshAnswer {
            nonce: &NONCE,
            public_key_spki: spki,
            mesh_ca: &answer.mesh_ca,
            certificate_chain: &answer.certificate_chain,
            root_ca: &answer.root_ca,
            workload_secret: &answer.workload_secret,
            transition: &answer.transition,
            previous_mesh_ca: &answer.previous_mesh_ca,
            previous_mesh_ca_trusted_ms: answer.previous_mesh_ca_trusted_ms,
            sealed_secrets: &released,
        };
        let verified = signed.message().verify(&self.root, &answer.signature);
        verified.expect("the root CA signed it");
        if let Some((_, without_last)) = released.split_last() {
            let less = MeshAnswer {
                sealed_secrets: without_last,
                ..signed
            };
            let verified = less.message().verify(&self.root, &answer.signature);
            assert!(verified.is_err());
        }
    }
}

async fn set(
    user: &mut UserApiClient<Channel>,
    deployment: &Deployment,
    manifest: &Manifest,
    base: &[u8],
) -> Result<SetManifestResponse, Status> {
    let mut request = deployment.request(manifest, base);
    request.policies.push(Bytes::from_static(OTHER_INITDATA));
    Ok(user.set_manifest(request).await?.into_inner())
}

fn got(kind: &str, name: &str, content: &[u8]) -> (String, String, Vec<u8>) {
    (kind.to_owned(), name.to_owned(), content.to_vec())
}

fn assert_unreadable(refused: &Status, name: &str) {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let info = refused.get_details_error_info().expect("a reason");
    assert_eq!(info.reason, "SEALED_SECRET_UNREADABLE");
    let expected = format!("the sealed secret `{name}` does not open in this deployment");
    assert!(refused.message().contains(&expected), "{refused}");
}

#[tokio::test]
async fn workload_gets_what_its_entry_lists_as_long_as_it_lists_it() {
    let mut served = Served::start().await;
    let key = served.key().await;
    assert_eq!(served.enrol(WEB_INITDATA).await, []);
    let db = sealed(&key, "Files", "db", PASSWORD);
    let registry = sealed(&key, "Registry", "registry.test:5000", TOKEN);
    let empty = sealed(&key, "Files", "empty", b"");
    let secrets = [
        ("db", &db),
        ("registry.test:5000", &registry),
        ("empty", &empty),
    ];
    let both = ["db", "registry.test:5000"];
    let of = |web: &[&str], other: &[&str], deployment: &Deployment| {
        document(deployment, &secrets, web, other)
    };

    let listed = of(&both, &["empty"], &served.deployment);
    served.set(&listed).await.expect("sets");
    let all = [
        got("Files", "db", PASSWORD),
        got("Registry", "registry.test:5000", TOKEN),
    ];
    assert_eq!(served.enrol(WEB_INITDATA).await, all);
    // Of the same workload secret id, and yet another entry.
    let other = served.enrol(OTHER_INITDATA).await;
    assert_eq!(other, [got("Files", "empty", b"")]);
    assert_eq!(served.enrol(COORDINATOR_INITDATA).await, []);

    // Still in the manifest, and listed elsewhere.
    let moved = of(&["registry.test:5000"], &["db"], &served.deployment);
    served.set(&moved).await.expect("sets");
    assert_eq!(served.enrol(WEB_INITDATA).await, all[1..]);
    assert_eq!(served.enrol(OTHER_INITDATA).await, all[..1]);

    let gone = document(&served.deployment, &[], &[], &[]);
    served.set(&gone).await.expect("sets");
    assert_eq!(served.enrol(WEB_INITDATA).await, []);
    assert_eq!(served.enrol(OTHER_INITDATA).await, []);
    assert!(
        served.key().await == key,
        "it is of the deployment, not of a transition"
    );
}

#[tokio::test]
async fn what_does_not_open_is_not_set_and_what_was_set_goes_on() {
    let mut served = Served::start().await;
    let key = served.key().await;
    let stranger = Served::start().await.key().await;
    let good = sealed(&key, "Files", "db", PASSWORD);
    let listed = document(&served.deployment, &[("db", &good)], &["db"], &[]);
    served.set(&listed).await.expect("sets");

    let longer = sealed(&key, "Files", "new", &[7; 64]);
    let with = |ciphertext: String| SealedSecretDocument {
        ciphertext,
        ..longer.clone()
    };
    let last_digit = longer.ciphertext.len() - 1;
    let (most, last) = longer.ciphertext.split_at(last_digit);
    let flipped = format!("{most}{}", if last == "0" { "1" } else { "0" });
    let bad = [
        ("of another deployment", {
            sealed(&stranger, "Files", "new", PASSWORD)
        }),
        ("truncated", with(longer.ciphertext[..192].to_owned())),
        ("with one bit more or less", with(flipped)),
        (
            "of another kind",
            SealedSecretDocument {
                kind: "Registry".to_owned(),
                ..longer.clone()
            },
        ),
        ("of another name", good.clone()),
    ];
    for (what, secret) in &bad {
        // Also where nobody gets it.
        for of_web in [&["db", "new"][..], &["db"]] {
            let secrets = [("db", &good), ("new", secret)];
            let refused = document(&served.deployment, &secrets, of_web, &[]);
            let refused = served.set(&refused).await;
            assert_unreadable(&refused.expect_err(what), "new");
        }
        let pod = served.enrol(WEB_INITDATA).await;
        assert_eq!(pod, [got("Files", "db", PASSWORD)], "{what}");
    }
    // None of the refusals came from anything else.
    let secrets = [("db", &good), ("new", &longer)];
    let accepted = document(&served.deployment, &secrets, &["db", "new"], &[]);
    served.set(&accepted).await.expect("sets");
    assert_eq!(served.enrol(WEB_INITDATA).await.len(), 2);
}

#[tokio::test]
async fn first_manifest_cannot_have_any() {
    let key = Served::start().await.key().await;
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let secret = sealed(&key, "Files", "db", PASSWORD);
    let manifest = parsed(&document(&deployment, &[("db", &secret)], &["db"], &[]));
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let refused = set(&mut user, &deployment, &manifest, &[]).await;
    let refused = refused.expect_err("it has no seed yet");
    assert_unreadable(&refused, "db");
    let expected = "a first manifest cannot have sealed secrets";
    assert!(refused.message().contains(expected), "{refused}");
}

#[tokio::test]
async fn what_was_sealed_opens_after_a_recovery() {
    let mut served = Served::start().await;
    let key = served.key().await;
    let db = sealed(&key, "Files", "db", PASSWORD);
    let listed = document(&served.deployment, &[("db", &db)], &["db"], &[]);
    served.set(&listed).await.expect("sets");
    let Served {
        deployment,
        coordinator,
        first,
        root,
        latest,
    } = served;
    coordinator.stop().await.expect("stops");

    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &first).await;
    let refused = user.get_sealing_key(GetSealingKeyRequest {}).await;
    let refused = refused.expect_err("nobody has the seed");
    let info = refused.get_details_error_info().expect("a reason");
    assert_eq!(info.reason, "RECOVERY_NEEDED");
    let shares = user.get_seed_shares(GetSeedSharesRequest {}).await;
    let request = deployment.recover_request(&shares.expect("answers").into_inner(), &latest);
    let recovered = user.recover(request).await.expect("recovers").into_inner();
    let mut served = Served {
        deployment,
        coordinator,
        first,
        root,
        latest: recovered.transition,
    };
    let pod = served.enrol(WEB_INITDATA).await;
    assert_eq!(pod, [got("Files", "db", PASSWORD)]);
    assert_eq!(served.enrol(OTHER_INITDATA).await, []);
    // The owner seals with the key from before.
    assert!(served.key().await == key, "it follows from the seed");
    let rotated = sealed(&key, "Files", "db", b"rotated");
    let listed = document(&served.deployment, &[("db", &rotated)], &["db"], &[]);
    served.set(&listed).await.expect("sets");
    let pod = served.enrol(WEB_INITDATA).await;
    assert_eq!(pod, [got("Files", "db", b"rotated")]);
}
