//! What one `NewMeshCert` costs, beside the bare cryptography that it cannot do without.
//!
//! `cargo bench -p contrast-coordinator`. Everything runs under the software TEE, whose evidence is verified by the same
//! code as hardware evidence.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use contrast_atls::Identity;
use contrast_attestation::{EvidenceVerifier, Issuer, ReportData};
use contrast_clock::SystemEntropy;
use contrast_manifest::Manifest;
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use contrast_proto::mesh::{NewMeshCertRequest, mesh_api_client::MeshApiClient};
use divan::Bencher;
use support::{Coordinator, Deployment, WEB_INITDATA, mesh_client, user_client};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    divan::main();
}

/// A serving Coordinator with one manifest, and a runtime for clients.
struct World {
    runtime: Runtime,
    coordinator: Coordinator,
    manifest: Manifest,
    guest: Arc<dyn Issuer>,
    _deployment: Deployment,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let deployment = Deployment::new();
    let manifest = deployment.manifest("web");
    let coordinator = deployment.start();
    let runtime = Runtime::new().expect("runtime");
    runtime.block_on(async {
        let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
        user.set_manifest(deployment.request(&manifest, &[]))
            .await
            .expect("sets");
    });
    let guest = deployment.guest(WEB_INITDATA);
    World {
        runtime,
        coordinator,
        manifest,
        guest,
        _deployment: deployment,
    }
});

impl World {
    async fn connect(&self) -> MeshApiClient<Channel> {
        let address = self.coordinator.addresses.mesh_api;
        mesh_client(address, &self.manifest, Arc::clone(&self.guest))
            .await
            .expect("connects")
    }
}

/// The part of every issuance that no implementation can leave out: verify the report's signature, sign the certificate.
#[divan::bench]
fn bare_crypto_verify_and_sign_p384(bencher: Bencher<'_, '_>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).expect("key");
    let random = SystemRandom::new();
    let message = [0x5a; 672];
    let signature = key.sign(&random, &message).expect("signs");
    let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, key.public_key());
    bencher.counter(1_u32).bench_local(|| {
        public
            .verify(&message, signature.as_ref())
            .expect("verifies");
        key.sign(&random, &message).expect("signs")
    });
}

/// What the handler adds up to, without a network: judge the evidence (warm chain), issue and check the certificate.
#[divan::bench]
fn judge_and_issue_without_network(bencher: Bencher<'_, '_>) {
    let world = &*WORLD;
    let verifier = world.manifest.verifier();
    let report_data = ReportData([7; 64]);
    let evidence = world.guest.issue(&report_data).expect("evidence");
    let root_key = SigningKey::generate(&SystemEntropy).expect("key");
    let root = RootCa::new(root_key, support::now()).expect("root");
    let mesh_ca = MeshCa::generate(&SystemEntropy, &root, support::now()).expect("mesh CA");
    let identity = Identity::generate(support::now()).expect("identity");
    let sans = ["web".to_owned(), "*".to_owned()];
    let request = LeafRequest {
        public_key_spki: identity.spki(),
        sans: &sans,
        peer_ip: None,
        workload_secret_id: Some("apps/v1/Deployment/default/web"),
        extensions: &[],
        spiffe_id: Some("spiffe://example.org/ns/default/deployment/web"),
        lifetime: Duration::from_hours(168),
    };
    bencher.counter(1_u32).bench_local(|| {
        let now = support::now();
        verifier
            .verify(&evidence, &report_data, now)
            .expect("accepted");
        mesh_ca
            .issue_leaf(&request, &SystemEntropy, now)
            .expect("issues")
    });
}

/// One request on a connection that is open: the evidence is judged again, a certificate is issued.
#[divan::bench(min_time = Duration::from_secs(3))]
fn request_on_an_open_connection(bencher: Bencher<'_, '_>) {
    let world = &*WORLD;
    let mut client = world.runtime.block_on(world.connect());
    bencher.counter(1_u32).bench_local(|| {
        world
            .runtime
            .block_on(client.new_mesh_cert(NewMeshCertRequest::default()))
            .expect("issues")
    });
}

/// What an Initializer does: connect, attest mutually, one request. Client and Coordinator share the processors.
#[divan::bench(min_time = Duration::from_secs(3))]
fn connection_and_request_end_to_end(bencher: Bencher<'_, '_>) {
    let world = &*WORLD;
    bencher.counter(1_u32).bench_local(|| {
        world.runtime.block_on(async {
            let mut client = world.connect().await;
            client
                .new_mesh_cert(NewMeshCertRequest::default())
                .await
                .expect("issues")
        })
    });
}

/// Sixteen requests at the same time on an open connection: throughput of all processors together.
#[divan::bench(min_time = Duration::from_secs(3))]
fn sixteen_requests_at_once(bencher: Bencher<'_, '_>) {
    let world = &*WORLD;
    let client = world.runtime.block_on(world.connect());
    bencher.counter(16_u32).bench_local(|| {
        let requests = (0..16).map(|_| {
            let mut client = client.clone();
            async move {
                client
                    .new_mesh_cert(NewMeshCertRequest::default())
                    .await
                    .expect("issues")
            }
        });
        world.runtime.block_on(futures::future::join_all(requests))
    });
}
