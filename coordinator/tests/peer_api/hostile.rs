//! Peers that prove themselves and then do not keep to the protocol, and those that prove nothing.

use std::sync::Arc;

use bytes::Bytes;
use contrast_proto::peer::{
    HelloRequest, JoinRequest, Membership, NodeVote as WireVote, Route, SnapshotHeader,
    SnapshotPart, discovery_client::DiscoveryClient, peer_api_client::PeerApiClient,
    snapshot_part::Part,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    replicas::{Replica, coordinator, trusting},
    support::{COORDINATOR_INITDATA, Deployment, channel},
};

async fn as_coordinator(server: &Replica) -> PeerApiClient<tonic::transport::Channel> {
    let deployment = Deployment::new();
    let guest = deployment.guest(COORDINATOR_INITDATA);
    let verifier = Arc::new(trusting(&[coordinator()]).verifier.clone());
    let channel = channel(server.address, Some(guest), verifier).await;
    PeerApiClient::new(channel.expect("connects"))
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("{status:?}")).reason
}

#[tokio::test]
async fn snapshot_that_is_not_what_its_header_says_never_reaches_the_handler() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let mut client = as_coordinator(&server).await;
    let part = |part| SnapshotPart { part: Some(part) };
    let header = |length| {
        part(Part::Header(SnapshotHeader {
            route: Some(Route {
                cluster: Bytes::from_static(&[3; 32]),
                from: 1,
                to: 2,
            }),
            vote: Some(WireVote::default()),
            last: None,
            members: Some(Membership::default()),
            length,
        }))
    };
    let chunk = |bytes: usize| part(Part::Chunk(vec![1; bytes].into()));
    for parts in [
        vec![],
        vec![chunk(5)],
        vec![header(5)],
        vec![header(5), chunk(4)],
        vec![header(5), chunk(3), chunk(3)],
        vec![header(5), header(5), chunk(5)],
        vec![header(2 << 30)],
        vec![header(2 << 20), chunk(2 << 20)],
    ] {
        let stream = futures::stream::iter(parts);
        let status = client.install_snapshot(stream).await.expect_err("refused");
        assert_eq!(reason(&status), "MALFORMED", "{status:?}");
    }
    assert!(server.fake.asked().is_empty());
    let stream = futures::stream::iter([header(5), chunk(2), chunk(3)]);
    let _ = client.install_snapshot(stream).await;
    assert_eq!(server.fake.asked(), ["Raft"]);
}

#[tokio::test]
async fn oversized_hello_is_not_read() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), None).await;
    let deployment = Deployment::new();
    let guest = deployment.guest(COORDINATOR_INITDATA);
    let verifier = Arc::new(trusted.verifier.clone());
    let channel = channel(server.address, Some(guest), verifier).await;
    let mut client = DiscoveryClient::new(channel.expect("connects"));
    let hello = |bytes| HelloRequest {
        boot: 1,
        head: vec![1; bytes].into(),
    };
    let status = client.hello(hello(5000)).await.expect_err("refused");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let status = client.hello(hello(31)).await.expect_err("refused");
    assert_eq!(reason(&status), "MALFORMED");
    client.hello(hello(32)).await.expect("answered");
    assert_eq!(server.fake.asked(), ["Hello"]);
}

#[tokio::test]
async fn large_question_of_a_peer_without_evidence_is_refused_unread() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), None).await;
    // It proves itself, but a server without a manifest did not ask for that.
    let guest = Deployment::new().guest(COORDINATOR_INITDATA);
    let verifier = Arc::new(trusted.verifier.clone());
    let channel = channel(server.address, Some(guest), verifier).await;
    let mut client = PeerApiClient::new(channel.expect("connects"));
    // Reading this would give OUT_OF_RANGE.
    let join = JoinRequest {
        place: "a".repeat(49 << 20),
        ..JoinRequest::default()
    };
    let status = client.join(join).await.expect_err("refused");
    assert_eq!(reason(&status), "NOT_COORDINATOR");
    assert!(server.fake.asked().is_empty());
}
