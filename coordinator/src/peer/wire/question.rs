//! Questions that are not Raft's.

use bytes::Bytes;
use contrast_proto::{peer as proto, user};

use super::{
    KEY_BYTES_MAX, Malformed, Parsed, at_most, cluster, hash, place, present, put_cluster,
    put_transition, secret, transition,
};
use crate::{
    api::update_request,
    cluster::{ClusterId, NodeId},
    replica::message::{BootId, MeshCaKey, Place, Request},
    state::{
        Advance, Generation, TransitionHash, UpdateRequest, VOLUME_SECRET_ID_BYTES_MAX, VolumeId,
    },
};

pub(crate) fn hello(message: proto::HelloRequest) -> Parsed<Request> {
    let head = match message.head.is_empty() {
        true => None,
        false => Some(transition("head", &message.head)?),
    };
    Ok(Request::Hello {
        boot: BootId(message.boot),
        head,
    })
}

pub(crate) fn put_hello(boot: BootId, head: Option<TransitionHash>) -> proto::HelloRequest {
    proto::HelloRequest {
        boot: boot.0,
        head: head.map(put_transition).unwrap_or_default(),
    }
}

pub(crate) fn fetch_secrets(_: proto::FetchSecretsRequest) -> Parsed<Request> {
    Ok(Request::FetchSecrets)
}

pub(crate) fn join(message: proto::JoinRequest) -> Parsed<Request> {
    Ok(Request::Join {
        cluster: cluster(&message.cluster)?,
        node: message.node,
        place: place("place", &message.place)?,
    })
}

pub(crate) fn put_join(cluster: ClusterId, node: NodeId, place: &Place) -> proto::JoinRequest {
    proto::JoinRequest {
        cluster: put_cluster(cluster),
        node,
        place: place.to_string(),
    }
}

pub(crate) fn confirm(message: proto::ConfirmRequest) -> Parsed<Request> {
    Ok(Request::Confirm {
        cluster: cluster(&message.cluster)?,
        node: message.node,
    })
}

pub(crate) fn put_confirm(cluster: ClusterId, node: NodeId) -> proto::ConfirmRequest {
    proto::ConfirmRequest {
        cluster: put_cluster(cluster),
        node,
    }
}

pub(crate) fn offer_key(message: proto::OfferKeyRequest) -> Parsed<Request> {
    Ok(Request::OfferKey {
        cluster: cluster(&message.cluster)?,
        key: secret::key("key", message.key)?,
    })
}

pub(crate) fn put_offer_key(cluster: ClusterId, key: &MeshCaKey) -> proto::OfferKeyRequest {
    proto::OfferKeyRequest {
        cluster: put_cluster(cluster),
        key: secret::put_key(key),
    }
}

pub(crate) fn fetch_key(message: proto::FetchKeyRequest) -> Parsed<Request> {
    let public_key = message.public_key;
    at_most("public_key", public_key.len(), KEY_BYTES_MAX, "bytes")?;
    Ok(Request::FetchKey {
        cluster: cluster(&message.cluster)?,
        public_key: Bytes::copy_from_slice(&public_key),
    })
}

pub(crate) fn put_fetch_key(cluster: ClusterId, public_key: Bytes) -> proto::FetchKeyRequest {
    proto::FetchKeyRequest {
        cluster: put_cluster(cluster),
        public_key,
    }
}

pub(crate) fn propose(message: proto::ProposeRequest) -> Parsed<Request> {
    let cluster = match message.cluster.is_empty() {
        true => None,
        false => Some(cluster(&message.cluster)?),
    };
    let update = update_request(present("update", message.update)?);
    Ok(Request::Propose {
        cluster,
        update: update.map_err(|error| {
            Malformed::new("update", "what SetManifest takes", error.to_string())
        })?,
    })
}

pub(crate) fn put_propose(
    cluster: Option<ClusterId>,
    update: UpdateRequest,
) -> proto::ProposeRequest {
    let signatures = update.approvals.into_iter();
    proto::ProposeRequest {
        cluster: cluster.map(put_cluster).unwrap_or_default(),
        update: Some(user::SetManifestRequest {
            manifest: update.manifest,
            policies: update.policies,
            base_transition: put_transition(update.base),
            signatures: signatures
                .map(|approval| user::OwnerSignature {
                    public_key: approval.public_key,
                    signature: approval.signature,
                })
                .collect(),
        }),
    }
}

pub(crate) fn advance(message: proto::AdvanceVolumeRequest) -> Parsed<Request> {
    let id = message.secret_id;
    at_most("secret_id", id.len(), VOLUME_SECRET_ID_BYTES_MAX, "bytes")?;
    let volume = message.volume.as_ref().try_into();
    let volume = volume.map_err(|_| {
        let found = format!("{} bytes", message.volume.len());
        Malformed::new("volume", "16 bytes", found)
    })?;
    Ok(Request::AdvanceVolume {
        cluster: cluster(&message.cluster)?,
        advance: Advance {
            secret_id: id.into(),
            volume: VolumeId(volume),
            generation: Generation {
                number: message.generation,
                reporter: hash("reporter", &message.reporter)?,
            },
        },
    })
}

pub(crate) fn put_advance(cluster: ClusterId, advance: &Advance) -> proto::AdvanceVolumeRequest {
    proto::AdvanceVolumeRequest {
        cluster: put_cluster(cluster),
        secret_id: advance.secret_id.to_string(),
        volume: Bytes::copy_from_slice(&advance.volume.0),
        generation: advance.generation.number,
        reporter: Bytes::copy_from_slice(&advance.generation.reporter),
    }
}

pub(crate) fn leave(message: proto::LeaveRequest) -> Parsed<Request> {
    Ok(Request::Leave {
        cluster: cluster(&message.cluster)?,
        node: message.node,
    })
}

pub(crate) fn put_leave(cluster: ClusterId, node: NodeId) -> proto::LeaveRequest {
    proto::LeaveRequest {
        cluster: put_cluster(cluster),
        node,
    }
}
