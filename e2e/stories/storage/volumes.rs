use std::sync::Arc;

use contrast_atls::{ClientConfig, Identity, Limits};
use contrast_attestation::{IssuerConfig, Tee};
use contrast_clock::{SystemWallClock, WallClock};
use contrast_e2e::harness::{Cluster, PodSpec};
use contrast_initializer::{Advance, VolumeRecord, VolumeRecordError, enroll};
use contrast_pki::RootKey;

const VOLUME: [u8; 16] = [3; 16];

/// What a pod attests with.
fn config(cluster: &Cluster, directory: &std::path::Path, spec: &PodSpec) -> Arc<ClientConfig> {
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let initdata = directory.join(format!("{}.toml", spec.name));
    std::fs::write(&initdata, &spec.initdata).expect("writes");
    let issuer = IssuerConfig {
        software_tee: Some(cluster.tee()),
        software_kind: Tee::Snp,
        initdata: Some(initdata),
    };
    Arc::new(ClientConfig {
        identity: Arc::new(Identity::generate(clock.now()).expect("identity")),
        issuer: Some(issuer.issuer().expect("issues")),
        verifier: None,
        clock,
        limits: Limits::client(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_learns_the_generation_of_its_own_deployment_only() {
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 48).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    let address = coordinator.user_api();
    let set = ["set", "-c", &address, "resources"];
    cluster.owner().contrast(&set).expect("sets");
    let workloads = cluster.workloads().expect("workloads");
    let store = config(&cluster, directory.path(), &workloads["store"]);
    let mesh_api = coordinator.mesh_api.to_string();
    let enrolled = enroll(&mesh_api, &store, None).await.expect("enrols");
    let of = |config: &Arc<ClientConfig>, root: &RootKey| {
        VolumeRecord::new(mesh_api.clone(), Arc::clone(config), root.clone())
    };

    let record = of(&store, &enrolled.root_key);
    assert_eq!(record.get(VOLUME).await.expect("answers"), None);
    let advanced = record.advance(VOLUME, 2).await.expect("answers");
    assert_eq!(advanced, Advance::Accepted);
    // The answer was lost.
    let advanced = record.advance(VOLUME, 2).await.expect("answers");
    assert_eq!(advanced, Advance::Accepted);
    assert_eq!(record.get(VOLUME).await.expect("answers"), Some(2));

    // Another pod of the workload on a copy of the disk, and another workload.
    let twin = of(
        &config(&cluster, directory.path(), &workloads["store"]),
        &enrolled.root_key,
    );
    let refused = twin.advance(VOLUME, 2).await.expect("answers");
    assert_eq!(refused, Advance::Refused { recorded: 2 });
    let votes = of(
        &config(&cluster, directory.path(), &workloads["votes"]),
        &enrolled.root_key,
    );
    assert_eq!(votes.get(VOLUME).await.expect("answers"), None);

    // A pod of another deployment: this Coordinator is an impostor to it.
    let foreign = of(&store, &RootKey::from_spki(vec![1]));
    let error = foreign.get(VOLUME).await.expect_err("another root");
    assert!(
        matches!(error, VolumeRecordError::Signature { .. }),
        "{error}"
    );
    let error = record.advance(VOLUME, 0).await.expect_err("no generation");
    assert!(!error.may_pass(), "{error}");
}
