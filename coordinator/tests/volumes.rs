//! Generations of encrypted volumes over the mesh API: who sees which, who is told no, and what outlives whom.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use contrast_atls::Identity;
use contrast_manifest::{Manifest, PolicyDocument};
use contrast_pki::{RootKey, VolumeAnswer};
use contrast_proto::{
    mesh::{AdvanceVolumeRequest, GetVolumeRequest, Volume, mesh_api_client::MeshApiClient},
    user::GetSeedSharesRequest,
};
use support::{
    COORDINATOR_INITDATA, Deployment, WEB_INITDATA, channel_as, now, policy_hash,
    trio::ReplicaProcess, user_client,
};
use tonic::{Code, Status, transport::Channel};

const OTHER_INITDATA: &[u8] = b"version = \"0.1.0\"\n# other\n";
const NONCE: [u8; 32] = [5; 32];
const ID: [u8; 16] = [9; 16];

/// The usual manifest and a workload with another secret id.
fn manifest(deployment: &Deployment) -> Manifest {
    let mut document = deployment.document("web");
    let web = document.policies[&policy_hash(WEB_INITDATA).to_string()].clone();
    let other = PolicyDocument {
        sans: vec!["other".to_owned()],
        workload_secret_id: "other".to_owned(),
        ..web
    };
    let name = policy_hash(OTHER_INITDATA).to_string();
    document.policies.insert(name, other);
    Manifest::parse(document.to_json().as_bytes()).expect("valid")
}

async fn set(deployment: &Deployment, manifest: &Manifest, address: SocketAddr) -> RootKey {
    let mut request = deployment.request(manifest, &[]);
    request.policies.push(Bytes::from_static(OTHER_INITDATA));
    let mut user = user_client(address, manifest).await;
    let set = user.set_manifest(request).await;
    let root_ca = set.expect("sets").into_inner().root_ca;
    RootKey::of_certificate(&root_ca).expect("a key")
}

/// A pod and its key.
struct Pod {
    identity: Arc<Identity>,
    client: MeshApiClient<Channel>,
}

impl Pod {
    async fn start(
        deployment: &Deployment,
        manifest: &Manifest,
        address: SocketAddr,
        initdata: &[u8],
    ) -> Self {
        let identity = Arc::new(Identity::generate(now()).expect("identity"));
        let (issuer, verifier) = (deployment.guest(initdata), manifest.coordinator_verifier());
        let channel = channel_as(
            address,
            Arc::clone(&identity),
            Some(issuer),
            Arc::new(verifier),
        );
        Self {
            identity,
            client: MeshApiClient::new(channel.await.expect("connects")),
        }
    }

    async fn get(&mut self) -> Result<Volume, Status> {
        let request = GetVolumeRequest {
            nonce: Bytes::copy_from_slice(&NONCE),
            volume_id: Bytes::copy_from_slice(&ID),
        };
        Ok(self.client.get_volume(request).await?.into_inner())
    }

    async fn advance(&mut self, generation: u64) -> Result<Volume, Status> {
        let request = AdvanceVolumeRequest {
            nonce: Bytes::copy_from_slice(&NONCE),
            volume_id: Bytes::copy_from_slice(&ID),
            generation,
        };
        Ok(self.client.advance_volume(request).await?.into_inner())
    }

    /// Whether the root CA signed `volume` as the answer to this pod.
    fn is_signed(&self, volume: &Volume, reported: u64, root: &RootKey) -> bool {
        let answer = VolumeAnswer {
            nonce: &NONCE,
            public_key_spki: self.identity.spki(),
            volume_id: &ID,
            reported,
            known: volume.known,
            generation: volume.generation,
            accepted: volume.accepted,
        };
        answer.message().verify(root, &volume.signature).is_ok()
    }
}

fn shown(volume: &Volume) -> (bool, u64, bool) {
    (volume.known, volume.generation, volume.accepted)
}

#[tokio::test]
async fn a_generation_counts_once_and_for_one_secret_id_only() {
    let deployment = Deployment::new();
    let manifest = manifest(&deployment);
    let coordinator = deployment.start();
    let root = set(&deployment, &manifest, coordinator.addresses.user_api).await;
    let pod = |initdata| {
        Pod::start(
            &deployment,
            &manifest,
            coordinator.addresses.mesh_api,
            initdata,
        )
    };
    let (mut first, mut twin) = (pod(WEB_INITDATA).await, pod(WEB_INITDATA).await);
    let mut other = pod(OTHER_INITDATA).await;

    let unknown = first.get().await.expect("answers");
    assert_eq!(shown(&unknown), (false, 0, false));
    assert!(first.is_signed(&unknown, 0, &root));
    assert!(!twin.is_signed(&unknown, 0, &root), "it is for another pod");
    let accepted = first.advance(3).await.expect("answers");
    assert_eq!(shown(&accepted), (true, 3, true));
    assert!(first.is_signed(&accepted, 3, &root));
    assert!(!first.is_signed(&accepted, 4, &root));

    // The same generation: of the pod that lost the answer, and of another one.
    assert_eq!(
        shown(&first.advance(3).await.expect("answers")),
        (true, 3, true)
    );
    assert_eq!(
        shown(&twin.advance(3).await.expect("answers")),
        (true, 3, false)
    );
    assert_eq!(
        shown(&twin.advance(2).await.expect("answers")),
        (true, 3, false)
    );
    assert_eq!(
        shown(&twin.advance(4).await.expect("answers")),
        (true, 4, true)
    );
    assert_eq!(
        shown(&first.get().await.expect("answers")),
        (true, 4, false)
    );

    assert_eq!(
        shown(&other.get().await.expect("answers")),
        (false, 0, false)
    );
    assert_eq!(
        shown(&other.advance(1).await.expect("answers")),
        (true, 1, true)
    );
    assert_eq!(
        shown(&first.get().await.expect("answers")),
        (true, 4, false)
    );

    // A workload without a secret id has no volumes.
    let mut without = pod(COORDINATOR_INITDATA).await;
    let refused = [without.get().await, without.advance(1).await];
    for refused in refused {
        assert_eq!(refused.expect_err("no id").code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn of_many_who_report_the_same_generation_one_is_accepted() {
    let deployment = Deployment::new();
    let manifest = manifest(&deployment);
    let coordinator = deployment.start();
    set(&deployment, &manifest, coordinator.addresses.user_api).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mesh_api = coordinator.addresses.mesh_api;
        let mut pod = Pod::start(&deployment, &manifest, mesh_api, WEB_INITDATA).await;
        tasks.spawn(async move { pod.advance(1).await.expect("answers").accepted });
    }
    let accepted = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|accepted| *accepted);
    assert_eq!(accepted.count(), 1);
}

#[tokio::test]
async fn malformed_questions_are_refused() {
    let deployment = Deployment::new();
    let manifest = manifest(&deployment);
    let coordinator = deployment.start();
    set(&deployment, &manifest, coordinator.addresses.user_api).await;
    let mesh_api = coordinator.addresses.mesh_api;
    let mut pod = Pod::start(&deployment, &manifest, mesh_api, WEB_INITDATA).await;
    for (nonce, volume) in [(0, 16), (31, 16), (33, 16), (32, 0), (32, 15), (32, 17)] {
        let request = GetVolumeRequest {
            nonce: vec![1; nonce].into(),
            volume_id: vec![1; volume].into(),
        };
        let refused = pod.client.get_volume(request).await.expect_err("malformed");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let refused = pod.advance(0).await.expect_err("malformed");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn generation_outlives_the_coordinator() {
    let deployment = Deployment::new();
    let manifest = manifest(&deployment);
    let coordinator = deployment.start();
    let root = set(&deployment, &manifest, coordinator.addresses.user_api).await;
    let mesh_api = coordinator.addresses.mesh_api;
    let mut pod = Pod::start(&deployment, &manifest, mesh_api, WEB_INITDATA).await;
    assert!(pod.advance(7).await.expect("answers").accepted);
    drop(pod);
    coordinator.stop().await.expect("stops");

    let coordinator = deployment.start();
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let shares = user.get_seed_shares(GetSeedSharesRequest {}).await;
    let request = deployment.recover_request(&shares.expect("answers").into_inner(), &[]);
    user.recover(request).await.expect("recovers");
    let mesh_api = coordinator.addresses.mesh_api;
    let mut pod = Pod::start(&deployment, &manifest, mesh_api, WEB_INITDATA).await;
    let found = pod.get().await.expect("answers");
    assert_eq!(shown(&found), (true, 7, false));
    assert!(pod.is_signed(&found, 0, &root), "the same root CA key");
    assert!(
        !pod.advance(7).await.expect("answers").accepted,
        "another pod reported it"
    );
}

#[tokio::test]
async fn every_replica_knows_what_one_was_told_and_so_do_the_survivors() {
    let mut replicas = ReplicaProcess::start_all(3);
    let deployment = Deployment::new();
    let manifest = manifest(&deployment);
    set(&deployment, &manifest, replicas[0].user_api).await;
    let mut leader = 0;
    for (index, replica) in replicas.iter().enumerate() {
        replica.serves(&manifest).await;
        if replica.status(&manifest).await.role == "leader" {
            leader = index;
        }
    }
    // Two of them pass it on to the leader.
    for (generation, replica) in (1..).zip(&replicas) {
        let mut pod = Pod::start(&deployment, &manifest, replica.mesh_api, WEB_INITDATA).await;
        let advanced = pod.advance(generation).await.expect("answers");
        assert_eq!(shown(&advanced), (true, generation, true));
        for replica in &replicas {
            let mut pod = Pod::start(&deployment, &manifest, replica.mesh_api, WEB_INITDATA).await;
            assert_eq!(
                shown(&pod.get().await.expect("answers")),
                (true, generation, false)
            );
        }
    }
    replicas[leader].kill();
    let other = &replicas[(leader + 1) % 3];
    let mut pod = Pod::start(&deployment, &manifest, other.mesh_api, WEB_INITDATA).await;
    let start = Instant::now();
    let advanced = loop {
        match pod.advance(4).await {
            Ok(advanced) => break advanced,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}"),
        }
    };
    assert_eq!(shown(&advanced), (true, 4, true));
    replicas[leader].start();
    replicas[leader].serves(&manifest).await;
    let mesh_api = replicas[leader].mesh_api;
    let mut pod = Pod::start(&deployment, &manifest, mesh_api, WEB_INITDATA).await;
    assert_eq!(shown(&pod.get().await.expect("answers")), (true, 4, false));
}
