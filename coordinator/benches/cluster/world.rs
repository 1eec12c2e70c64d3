//! A cluster of processes with a manifest.

use contrast_manifest::Manifest;
use contrast_proto::user::{
    GetStatusRequest, SetManifestRequest, Status, user_api_client::UserApiClient,
};
use tonic::transport::Channel;

use crate::support::{Deployment, trio::ReplicaProcess};

/// Replicas that serve, and their owner.
pub(crate) struct Cluster {
    pub(crate) replicas: Vec<ReplicaProcess>,
    pub(crate) owner: Deployment,
    pub(crate) manifest: Manifest,
    /// The latest transition.
    pub(crate) transition: Vec<u8>,
    sets: usize,
}

impl Cluster {
    /// Starts as many replicas and waits until all serve.
    pub(crate) async fn start(count: usize) -> Self {
        let mut cluster = Self {
            replicas: ReplicaProcess::start_all(count),
            owner: Deployment::new(),
            manifest: Deployment::new().manifest("unset"),
            transition: Vec::new(),
            sets: 0,
        };
        let (manifest, request) = cluster.next();
        let mut client = cluster.replicas[0].client(&manifest).await;
        let set = client.set_manifest(request).await.expect("sets");
        cluster.took(manifest, set.into_inner().transition.to_vec());
        cluster.all_serve().await;
        cluster
    }

    /// A manifest that was not set yet, and the request that sets it.
    pub(crate) fn next(&self) -> (Manifest, SetManifestRequest) {
        let manifest = self.owner.manifest(&format!("web-{}", self.sets));
        let request = self.owner.request(&manifest, &self.transition);
        (manifest, request)
    }

    /// Notes that the manifest of [`next`](Self::next) was set.
    pub(crate) fn took(&mut self, manifest: Manifest, transition: Vec<u8>) {
        self.manifest = manifest;
        self.transition = transition;
        self.sets += 1;
    }

    /// Waits until every replica serves and votes.
    pub(crate) async fn all_serve(&self) {
        for replica in &self.replicas {
            replica.serves(&self.manifest).await;
        }
    }

    /// Place of the leader among the replicas, and its term.
    pub(crate) async fn leader(&self) -> (usize, u64) {
        for (index, replica) in self.replicas.iter().enumerate() {
            let status = replica.status(&self.manifest).await;
            if status.role == "leader" {
                return (index, term(&status));
            }
        }
        panic!("expected a leader among replicas that serve");
    }
}

/// The Raft term of a replica, 0 outside of a cluster.
pub(crate) fn term(status: &Status) -> u64 {
    status.cluster.as_ref().map_or(0, |cluster| cluster.term)
}

/// What a replica says about itself, over an open connection.
pub(crate) async fn status(client: &mut UserApiClient<Channel>) -> Status {
    let status = client.get_status(GetStatusRequest {}).await;
    status.expect("tells its status").into_inner()
}
