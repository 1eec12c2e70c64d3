//! The mesh API over real connections: what certificates say about identity, and how pods keep up with changes.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use contrast_manifest::{Manifest, ManifestDocument};
use contrast_proto::mesh::{
    NewMeshCertRequest, NewMeshCertResponse, WaitForTransitionRequest,
    mesh_api_client::MeshApiClient,
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use support::{Coordinator, Deployment, WEB_INITDATA, mesh_client, now, user_client};
use tokio::runtime::Handle;
use tonic::{Code, transport::Channel};

/// A deployment whose workload has a SPIFFE ID.
fn document(deployment: &Deployment, name: &str) -> ManifestDocument {
    let mut document = deployment.document(name);
    let web = support::policy_hash(WEB_INITDATA).to_string();
    let entry = document.policies.get_mut(&web).expect("there");
    entry.sans.retain(|san| !san.contains("://"));
    entry.spiffe_path = "ns/default/deployment/web".to_owned();
    document
}

fn parsed(document: &ManifestDocument) -> Manifest {
    Manifest::parse(document.to_json().as_bytes()).expect("valid")
}

/// Sets `document` after `base`; returns the transition.
async fn set(
    deployment: &Deployment,
    coordinator: &Coordinator,
    document: &ManifestDocument,
    base: &[u8],
) -> Vec<u8> {
    let manifest = parsed(document);
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user
        .set_manifest(deployment.request(&manifest, base))
        .await
        .expect("sets");
    set.into_inner().transition.to_vec()
}

async fn connect(
    deployment: &Deployment,
    coordinator: &Coordinator,
    document: &ManifestDocument,
) -> MeshApiClient<Channel> {
    let guest = deployment.guest(WEB_INITDATA);
    let connected = mesh_client(coordinator.addresses.mesh_api, &parsed(document), guest).await;
    connected.expect("connects")
}

async fn certificate(mesh: &mut MeshApiClient<Channel>) -> NewMeshCertResponse {
    let issued = mesh.new_mesh_cert(NewMeshCertRequest::default()).await;
    issued.expect("issues").into_inner()
}

/// URIs of the leaf, as another implementation reads them.
fn uris(issued: &NewMeshCertResponse) -> Vec<String> {
    let leaf = CertificateDer::from_pem_slice(issued.certificate_chain.as_bytes()).expect("PEM");
    let leaf = webpki::EndEntityCert::try_from(&leaf).expect("leaf");
    leaf.valid_uri_names().map(str::to_owned).collect()
}

/// Whether the leaf is valid at `time` under the mesh CA `anchor`.
fn is_valid(issued: &NewMeshCertResponse, anchor: &str, time: SystemTime) -> bool {
    let leaf = CertificateDer::from_pem_slice(issued.certificate_chain.as_bytes()).expect("PEM");
    let leaf = webpki::EndEntityCert::try_from(&leaf).expect("leaf");
    let anchor = CertificateDer::from_pem_slice(anchor.as_bytes()).expect("PEM");
    let anchors = [webpki::anchor_from_trusted_cert(&anchor).expect("anchor")];
    let verdict = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &[],
        UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).expect("after 1970")),
        webpki::KeyUsage::client_auth(),
        None,
        None,
    );
    verdict.is_ok()
}

/// SHA-256 of the certificate's SubjectPublicKeyInfo, in hex.
fn key_fingerprint(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let anchor = webpki::anchor_from_trusted_cert(&der).expect("anchor");
    let contents = anchor.subject_public_key_info.as_ref();
    // `SEQUENCE` of less than 128 bytes.
    let header = [0x30, u8::try_from(contents.len()).expect("a P-384 key")];
    hex::encode(digest(&SHA256, &[&header, contents].concat()))
}

#[tokio::test]
async fn certificate_says_who_the_workload_is_and_lasts_as_the_manifest_says() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let first = document(&deployment, "web");
    let transition = set(&deployment, &coordinator, &first, &[]).await;
    let mut mesh = connect(&deployment, &coordinator, &first).await;
    let issued = certificate(&mut mesh).await;
    let domain = key_fingerprint(&issued.root_ca);
    assert_eq!(
        uris(&issued),
        [format!("spiffe://{domain}/ns/default/deployment/web")]
    );
    let week = Duration::from_hours(168);
    let (slack, start) = (Duration::from_mins(5), now());
    assert!(is_valid(&issued, &issued.mesh_ca, start + week - slack));
    assert!(!is_valid(&issued, &issued.mesh_ca, start + week + slack));

    let mut second = document(&deployment, "web");
    second.trust_domain = Some("example.org".to_owned());
    second.mesh_cert_lifetime = Some("1h".to_owned());
    set(&deployment, &coordinator, &second, &transition).await;
    let issued = certificate(&mut mesh).await;
    assert_eq!(
        uris(&issued),
        ["spiffe://example.org/ns/default/deployment/web"]
    );
    let hour = Duration::from_hours(1);
    assert!(is_valid(&issued, &issued.mesh_ca, start + hour - slack));
    assert!(!is_valid(&issued, &issued.mesh_ca, start + hour + slack));
}

#[tokio::test]
async fn pod_trusts_the_mesh_ca_before_while_the_overlap_lasts() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let first = document(&deployment, "web");
    let transition = set(&deployment, &coordinator, &first, &[]).await;
    let mut mesh = connect(&deployment, &coordinator, &first).await;
    let old = certificate(&mut mesh).await;
    assert_eq!(
        (
            old.previous_mesh_ca.as_str(),
            old.previous_mesh_ca_trusted_ms
        ),
        ("", 0)
    );

    let mut second = document(&deployment, "web2");
    second.mesh_ca_overlap = Some("1h".to_owned());
    let transition = set(&deployment, &coordinator, &second, &transition).await;
    let new = certificate(&mut mesh).await;
    assert!(is_valid(&old, &new.previous_mesh_ca, now()));
    assert!(!is_valid(&old, &new.mesh_ca, now()));
    assert!(is_valid(&new, &new.mesh_ca, now()));
    let left = new.previous_mesh_ca_trusted_ms;
    assert!((1..=3_600_000).contains(&left), "{left}");

    let third = document(&deployment, "web3");
    set(&deployment, &coordinator, &third, &transition).await;
    let newest = certificate(&mut mesh).await;
    assert_eq!(
        (
            newest.previous_mesh_ca.as_str(),
            newest.previous_mesh_ca_trusted_ms
        ),
        ("", 0)
    );
}

#[tokio::test]
async fn whoever_waits_for_a_transition_keeps_nobody_from_a_certificate() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let first = document(&deployment, "web");
    let transition = set(&deployment, &coordinator, &first, &[]).await;
    let mut waiting = Vec::new();
    // More than certificates that are issued at the same time.
    for _ in 0..5 {
        let mesh = connect(&deployment, &coordinator, &first).await;
        for _ in 0..16 {
            let mut mesh = mesh.clone();
            let known = transition.clone().into();
            waiting.push(Handle::current().spawn(async move {
                mesh.wait_for_transition(WaitForTransitionRequest { known })
                    .await
            }));
        }
    }
    let mut mesh = connect(&deployment, &coordinator, &first).await;
    certificate(&mut mesh).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));

    let second = document(&deployment, "web2");
    let changed = set(&deployment, &coordinator, &second, &transition).await;
    for task in waiting {
        let answer = task.await.expect("does not panic").expect("answers");
        assert_eq!(answer.into_inner().transition, changed);
    }
    let unknown = WaitForTransitionRequest::default();
    let answer = mesh.wait_for_transition(unknown).await.expect("answers");
    assert_eq!(answer.into_inner().transition, changed);

    let known = vec![7; 31].into();
    let malformed = mesh.wait_for_transition(WaitForTransitionRequest { known });
    let status = malformed.await.expect_err("31 bytes");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("known"), "{status}");
}

#[tokio::test]
async fn a_coordinator_that_stops_lets_nobody_wait() {
    let deployment = Deployment::new();
    let coordinator = deployment.start();
    let first = document(&deployment, "web");
    let transition = set(&deployment, &coordinator, &first, &[]).await;
    let mut mesh = connect(&deployment, &coordinator, &first).await;
    let mut other = mesh.clone();
    let known = transition.into();
    let waiting = Handle::current().spawn(async move {
        mesh.wait_for_transition(WaitForTransitionRequest { known })
            .await
    });
    // The same connection: the request before is at the server.
    certificate(&mut other).await;
    coordinator.stop().await.expect("stops");
    let status = waiting
        .await
        .expect("does not panic")
        .expect_err("no answer");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("told to stop"), "{status}");
}
