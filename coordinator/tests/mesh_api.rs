//! The mesh API over real connections: who gets which certificate, and who gets none.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use contrast_atls::Identity;
use contrast_clock::{Entropy, EntropyError, SystemEntropy};
use contrast_coordinator::state::Observer;
use contrast_manifest::{CertificateKeyDigest, Manifest};
use contrast_proto::mesh::{NewMeshCertRequest, mesh_api_client::MeshApiClient};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use support::{Deployment, WEB_INITDATA, channel_as, get, mesh_client, now, user_client};
use tonic::Code;
use tonic_types::StatusExt as _;

#[tokio::test]
async fn pod_gets_a_certificate_for_its_attested_key_and_its_secret() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets")
        .into_inner();

    let identity = Arc::new(Identity::generate(now()).expect("identity"));
    let verifier = Arc::new(manifest.coordinator_verifier());
    let guest = deployment.guest(WEB_INITDATA);
    let channel = channel_as(
        coordinator.addresses.mesh_api,
        Arc::clone(&identity),
        Some(guest),
        verifier,
    );
    let mut mesh = MeshApiClient::new(channel.await.expect("connects"));
    let answer = mesh
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues")
        .into_inner();
    assert_eq!(
        (&answer.mesh_ca, &answer.root_ca),
        (&set.mesh_ca, &set.root_ca)
    );
    assert_eq!(answer.transition, set.transition);
    assert_eq!(answer.workload_secret.len(), 64);

    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(answer.certificate_chain.as_bytes())
            .collect::<Result<_, _>>()
            .expect("PEM");
    assert_eq!(chain.len(), 2);
    // Path validation by an independent implementation, for both trust anchors that workloads use.
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).expect("leaf");
    for (anchor, intermediates) in [(&answer.root_ca, &chain[1..]), (&answer.mesh_ca, &[][..])] {
        let anchor = CertificateDer::from_pem_slice(anchor.as_bytes()).expect("PEM");
        let anchor = webpki::anchor_from_trusted_cert(&anchor).expect("anchor");
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor],
            intermediates,
            UnixTime::since_unix_epoch(
                now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .expect("after 1970"),
            ),
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )
        .expect("chains to the anchor");
    }
    for name in ["web", "127.0.0.1"] {
        let name = ServerName::try_from(name).expect("name");
        leaf.verify_is_valid_for_subject_name(&name)
            .expect("has the name");
    }
    let spki = identity.spki();
    assert!(
        chain[0].windows(spki.len()).any(|window| window == spki),
        "the certificate is for another key"
    );

    let again = mesh
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues")
        .into_inner();
    assert_eq!(again.workload_secret, answer.workload_secret);
    assert_ne!(again.certificate_chain, answer.certificate_chain);
    let metrics = get(coordinator.addresses.ops, "/metrics").1;
    assert!(
        metrics.contains("contrast_meshapi_insecure_evidence_total 2\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn pod_without_a_secret_id_gets_no_secret() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    user.set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets");
    let guest = deployment.guest(support::COORDINATOR_INITDATA);
    let mesh = mesh_client(coordinator.addresses.mesh_api, &manifest, guest).await;
    let answer = mesh
        .expect("connects")
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues");
    assert!(answer.into_inner().workload_secret.is_empty());
}

#[tokio::test]
async fn nobody_connects_before_a_manifest_is_set_or_with_an_unknown_policy() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let address = coordinator.addresses.mesh_api;
    let error = mesh_client(address, &manifest, deployment.guest(WEB_INITDATA)).await;
    let error = error.expect_err("no manifest");
    assert!(error.contains("no manifest set yet"), "{error}");

    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    user.set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets");
    let error = mesh_client(address, &manifest, deployment.guest(b"changed policy")).await;
    let error = error.expect_err("unknown policy");
    assert!(error.contains("HOSTDATA"), "{error}");
    // The server counts a failure after it told the client, so the client may be first.
    let mut metrics = String::new();
    for _ in 0..200 {
        metrics = get(coordinator.addresses.ops, "/metrics").1;
        if metrics.contains("contrast_meshapi_attestation_failures_total 2\n") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(
        metrics.contains("contrast_meshapi_attestation_failures_total 2\n"),
        "{metrics}"
    );
    mesh_client(address, &manifest, deployment.guest(WEB_INITDATA))
        .await
        .expect("the right one");
}

#[tokio::test]
async fn wrong_measurement_is_named() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    user.set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets");
    let mut guest = deployment
        .tee()
        .snp_guest(support::policy_hash(WEB_INITDATA));
    guest.measurement = [0xee; 48];
    let error = mesh_client(coordinator.addresses.mesh_api, &manifest, Arc::new(guest)).await;
    let error = error.expect_err("wrong measurement");
    assert!(
        error.contains("MEASUREMENT") && error.contains(&"ee".repeat(48)),
        "{error}"
    );
}

#[tokio::test]
async fn measurement_for_another_number_of_vcpus_is_refused_with_both_numbers() {
    let deployment = Deployment::new();
    let mut document = deployment.document("web");
    let web = support::policy_hash(WEB_INITDATA);
    for (policy, entry) in &mut document.policies {
        let is_web = *policy == web.to_string();
        entry.vcpus = Some(if is_web { 3 } else { 1 });
    }
    let snp = document.reference_values.insecure[0]
        .snp
        .as_mut()
        .expect("a software TEE for SNP");
    let of_one = snp.trusted_measurement.take().expect("a measurement");
    snp.trusted_measurements = [
        ("1".to_owned(), of_one.clone()),
        ("3".to_owned(), "33".repeat(48)),
    ]
    .into();
    let manifest = Manifest::parse(document.to_json().as_bytes()).expect("valid");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    user.set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets, since the Coordinator itself has 1 vCPU");

    let address = coordinator.addresses.mesh_api;
    let error = mesh_client(address, &manifest, deployment.guest(WEB_INITDATA)).await;
    let error = error.expect_err("the measurement for 1 vCPU");
    let line = format!(
        "MEASUREMENT: expected {} (for the 3 vCPUs of this policy), found {of_one} (for 1 vCPU)",
        "33".repeat(48)
    );
    assert!(error.contains(&line), "{error}");

    let mut guest = deployment.tee().snp_guest(web);
    guest.measurement = [0x33; 48];
    let mut mesh = mesh_client(address, &manifest, Arc::new(guest))
        .await
        .expect("the measurement for 3 vCPUs");
    mesh.new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("a certificate");
}

#[tokio::test]
async fn client_without_evidence_never_reaches_a_handler() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    user.set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets");
    let verifier = Arc::new(manifest.coordinator_verifier());
    support::channel(coordinator.addresses.mesh_api, None, verifier)
        .await
        .expect_err("no evidence");
    let metrics = get(coordinator.addresses.ops, "/metrics").1;
    assert!(!metrics.contains(r#"method="NewMeshCert""#), "{metrics}");
}

#[tokio::test]
async fn open_connection_is_judged_by_the_manifest_of_the_request() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets")
        .into_inner();
    let guest = deployment.guest(WEB_INITDATA);
    let mut mesh = mesh_client(coordinator.addresses.mesh_api, &manifest, guest)
        .await
        .expect("connects");
    mesh.new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues");

    let mut next = deployment.document("web");
    next.policies
        .remove(&support::policy_hash(WEB_INITDATA).to_string())
        .expect("there");
    let next = Manifest::parse(next.to_json().as_bytes()).expect("valid");
    let mut request = deployment.request(&next, &set.transition);
    request.policies.retain(|document| document != WEB_INITDATA);
    user.set_manifest(request).await.expect("updates");

    let status = mesh
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect_err("policy is gone");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("HOSTDATA"), "{status}");
}

#[tokio::test]
async fn denied_key_gets_no_certificate_and_another_of_the_same_pod_does() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user.set_manifest(deployment.request(&manifest, &[])).await;
    let set = set.expect("sets").into_inner();
    let connect = async |identity: &Arc<Identity>, manifest: &Manifest| {
        let channel = channel_as(
            coordinator.addresses.mesh_api,
            Arc::clone(identity),
            Some(deployment.guest(WEB_INITDATA)),
            Arc::new(manifest.coordinator_verifier()),
        );
        MeshApiClient::new(channel.await.expect("connects"))
    };
    let [leaked, other] = [(); 2].map(|()| Arc::new(Identity::generate(now()).expect("identity")));
    let mut mesh = connect(&leaked, &manifest).await;
    let issued = mesh.new_mesh_cert(NewMeshCertRequest::default()).await;
    issued.expect("issues");

    let mut next = deployment.document("web");
    let denied = CertificateKeyDigest::of(leaked.spki()).to_string();
    next.denied_certificate_keys = vec![denied.clone()];
    let next = Manifest::parse(next.to_json().as_bytes()).expect("valid");
    let update = deployment.request(&next, &set.transition);
    user.set_manifest(update).await.expect("updates");

    // The open connection and a new one.
    for mut mesh in [mesh, connect(&leaked, &next).await] {
        let answer = mesh.new_mesh_cert(NewMeshCertRequest::default()).await;
        let status = answer.expect_err("denied");
        assert_eq!(status.code(), Code::PermissionDenied);
        let expected = format!("denies certificates to the key {denied} (DeniedCertificateKeys)");
        assert!(status.message().contains(&expected), "{status}");
        assert_eq!(
            status
                .get_error_details()
                .error_info()
                .expect("a reason")
                .reason,
            "KEY_DENIED"
        );
    }
    let mut mesh = connect(&other, &next).await;
    let issued = mesh.new_mesh_cert(NewMeshCertRequest::default()).await;
    issued.expect("issues");
}

/// Panics whenever it is told to.
#[derive(Debug, Default)]
struct Fuse(AtomicBool);

impl Entropy for Fuse {
    fn fill(&self, destination: &mut [u8]) -> Result<(), EntropyError> {
        assert!(!self.0.load(Ordering::SeqCst), "the fuse blew");
        SystemEntropy.fill(destination)
    }
}

#[tokio::test]
async fn panic_in_a_handler_harms_no_other_request() {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let fuse = Arc::new(Fuse::default());
    let coordinator = deployment.start_with(Observer::default(), fuse.clone());
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let set = user
        .set_manifest(deployment.request(&manifest, &[]))
        .await
        .expect("sets")
        .into_inner();
    let guest = deployment.guest(WEB_INITDATA);
    let mut mesh = mesh_client(coordinator.addresses.mesh_api, &manifest, guest)
        .await
        .expect("connects");

    fuse.0.store(true, Ordering::SeqCst);
    let status = mesh
        .new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect_err("panics");
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.message(),
        "internal error of the Coordinator; its log says more"
    );
    let next = deployment.manifest("web2");
    let status = user
        .set_manifest(deployment.request(&next, &set.transition))
        .await;
    assert_eq!(status.expect_err("panics").code(), Code::Internal);

    fuse.0.store(false, Ordering::SeqCst);
    mesh.new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("same connection still works");
    user.set_manifest(deployment.request(&next, &set.transition))
        .await
        .expect("still writable");
    coordinator
        .stop()
        .await
        .expect("stops although the clients are still connected");
}
