//! Replicas as real processes.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::time::{Duration, Instant};

use contrast_proto::{mesh::NewMeshCertRequest, user::GetManifestsRequest};
use support::{Deployment, WEB_INITDATA, mesh_client, trio::ReplicaProcess};

#[tokio::test]
async fn three_processes_become_one_cluster_and_survive_the_death_of_their_leader() {
    let mut replicas = ReplicaProcess::start_all(3);
    let deployment = Deployment::new();
    let (first, second) = (deployment.manifest("first"), deployment.manifest("second"));
    let set = replicas[0]
        .client(&first)
        .await
        .set_manifest(deployment.request(&first, &[]))
        .await;
    let set = set.expect("sets").into_inner();
    for replica in &replicas {
        replica.serves(&first).await;
        let guest = deployment.guest(WEB_INITDATA);
        let mut pod = mesh_client(replica.mesh_api, &first, guest)
            .await
            .expect("attests");
        let issued = pod
            .new_mesh_cert(NewMeshCertRequest::default())
            .await
            .expect("issues");
        assert_eq!(issued.into_inner().transition, set.transition);
    }
    let mut leader = None;
    for (index, replica) in replicas.iter().enumerate() {
        let status = replica.status(&first).await;
        let cluster = status.cluster.expect("a cluster");
        assert_eq!(cluster.members.len(), 3);
        if status.role == "leader" {
            leader = Some(index);
            assert!(
                cluster
                    .members
                    .iter()
                    .filter(|member| member.evidence.is_some())
                    .count()
                    >= 2
            );
        }
    }
    let leader = leader.expect("one leads");
    replicas[leader].kill();
    let start = Instant::now();
    let other = (leader + 1) % 3;
    let update = deployment.request(&second, &set.transition);
    let updated = loop {
        let mut client = replicas[other].client(&first).await;
        match client.set_manifest(update.clone()).await {
            Ok(updated) => break updated.into_inner(),
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}"),
        }
    };
    replicas[leader].start();
    replicas[leader].serves(&second).await;
    for replica in &replicas {
        let mut client = replica.client(&second).await;
        let history = client
            .get_manifests(GetManifestsRequest {})
            .await
            .expect("confirms");
        assert_eq!(history.into_inner().transitions.len(), 2);
        let status = replica.status(&second).await;
        assert_eq!(
            status.active.expect("active").transition,
            updated.transition
        );
    }
}
