//! Secret discovery, asked by a client that can do what no Envoy does on demand: refuse, repeat, and ask too much.

use std::time::Duration;

use contrast_proto::{
    secret::{
        DiscoveryRequest, DiscoveryResponse, Secret, Status as Refusal, data_source::Specifier,
        secret::Type, secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
    workload::{X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient},
};
use prost::Message as _;
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use crate::pod::{Pod, SPIFFE_ID};

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for an answer that should not come.
const QUIET: Duration = Duration::from_millis(500);
const CONNECTIONS: usize = 128;
const STREAMS: usize = 512;
const STREAMS_PER_CONNECTION: usize = 64;

type Client = SecretDiscoveryServiceClient<Channel>;

fn enrolled() -> Pod {
    let pod = Pod::start();
    renew(&pod);
    pod
}

fn renew(pod: &Pod) {
    pod.install(&pod.new_ca(), Some(SPIFFE_ID), None);
}

async fn connect(pod: &Pod) -> Channel {
    let endpoint = Endpoint::from_shared(pod.endpoint()).expect("endpoint");
    endpoint.connect().await.expect("connects")
}

fn asking(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DiscoveryRequest::default()
    }
}

/// A stream and both its ends.
struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
}

impl Stream {
    async fn open(client: &mut Client) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(4);
        let answers = client.stream_secrets(ReceiverStream::new(receiver)).await?;
        Ok(Self {
            requests,
            answers: answers.into_inner(),
        })
    }

    async fn send(&self, request: DiscoveryRequest) {
        self.requests.send(request).await.expect("the stream lasts");
    }

    async fn answer(&mut self) -> Result<DiscoveryResponse, Status> {
        let answer = timeout(PATIENCE, self.answers.message())
            .await
            .expect("in time");
        answer.map(|answer| answer.expect("the stream lasts"))
    }

    async fn expect_quiet(&mut self, when: &str) {
        let answer = timeout(QUIET, self.answers.message()).await;
        assert!(answer.is_err(), "{when}: {answer:?}");
    }

    /// Refuses the latest answer, as Envoy does: with the version before, and the nonce of what is refused.
    async fn refuse(&self, refused: &DiscoveryResponse, version: &str, names: &[&str]) {
        self.send(DiscoveryRequest {
            version_info: version.to_owned(),
            response_nonce: refused.nonce.clone(),
            error_detail: Some(Refusal {
                message: "Failed to load certificate chain".to_owned(),
                ..Refusal::default()
            }),
            ..asking(names)
        })
        .await;
    }
}

fn chain(answer: &DiscoveryResponse) -> Vec<u8> {
    let secrets = answer.resources.iter();
    let mut secrets = secrets.map(|any| Secret::decode(&*any.value).expect("a secret"));
    let chain = secrets.find_map(|secret| match secret.r#type? {
        Type::TlsCertificate(certificate) => certificate.certificate_chain?.specifier,
        Type::ValidationContext(_) => None,
    });
    match chain.expect("a certificate") {
        Specifier::InlineBytes(bytes) => bytes.to_vec(),
    }
}

#[tokio::test]
async fn refused_version_is_not_sent_again_and_the_next_one_is() {
    let names = ["default", "ROOTCA"];
    let pod = enrolled();
    let mut client = Client::new(connect(&pod).await);
    let mut stream = Stream::open(&mut client).await.expect("opens");
    stream.send(asking(&names)).await;
    let first = stream.answer().await.expect("answers");
    assert_eq!(first.resources.len(), 2);

    stream.refuse(&first, "", &names).await;
    stream.expect_quiet("refused").await;
    stream.refuse(&first, "", &names).await;
    stream.expect_quiet("refused twice").await;

    // Who refuses gets the next version all the same, and others get theirs meanwhile.
    let mut previous = first.clone();
    for round in 0..3 {
        renew(&pod);
        let next = stream.answer().await.expect("answers");
        assert_ne!(next.nonce, previous.nonce);
        assert_ne!(chain(&next), chain(&previous), "round {round}");
        stream.refuse(&next, "", &names).await;
        stream.expect_quiet("refused the next one").await;
        let other = client.fetch_secrets(asking(&names)).await;
        let other = other.expect("another client is answered").into_inner();
        assert_eq!(chain(&other), chain(&next));
        previous = next;
    }

    // A word on an answer before the latest one changes nothing, whatever it asks for.
    stream.refuse(&first, "", &["default"]).await;
    stream.expect_quiet("a stale word").await;
    // Other names are another question, even with a refusal.
    stream.refuse(&previous, "", &["default"]).await;
    assert_eq!(stream.answer().await.expect("answers").resources.len(), 1);
}

#[tokio::test]
async fn accepted_version_is_not_sent_again() {
    let pod = enrolled();
    let mut client = Client::new(connect(&pod).await);
    let mut stream = Stream::open(&mut client).await.expect("opens");
    stream.send(asking(&["default"])).await;
    let first = stream.answer().await.expect("answers");
    stream
        .send(DiscoveryRequest {
            version_info: first.version_info.clone(),
            response_nonce: first.nonce.clone(),
            ..asking(&["default"])
        })
        .await;
    stream.expect_quiet("accepted").await;
    renew(&pod);
    let next = stream.answer().await.expect("answers");
    assert_ne!(chain(&next), chain(&first));
}

#[tokio::test]
async fn stream_with_a_wrong_or_too_long_question_ends_and_others_go_on() {
    let pod = enrolled();
    let mut client = Client::new(connect(&pod).await);
    let mut bystander = Stream::open(&mut client).await.expect("opens");
    bystander.send(asking(&["default"])).await;
    bystander.answer().await.expect("answers");

    let mut stream = Stream::open(&mut client).await.expect("opens");
    let listeners = "type.googleapis.com/envoy.config.listener.v3.Listener";
    stream
        .send(DiscoveryRequest {
            type_url: listeners.to_owned(),
            ..asking(&["default"])
        })
        .await;
    let end = stream
        .answer()
        .await
        .expect_err("a type that is not served");
    assert_eq!(end.code(), Code::InvalidArgument, "{end:?}");
    assert!(end.message().contains(listeners), "{end:?}");

    let mut stream = Stream::open(&mut client).await.expect("opens");
    stream.send(asking(&[&"x".repeat(300 * 1024)])).await;
    let end = timeout(PATIENCE, stream.answers.message()).await;
    let end = end.expect("in time");
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");

    renew(&pod);
    bystander.answer().await.expect("the other stream goes on");
}

#[tokio::test]
async fn streams_beyond_those_of_a_connection_wait_for_one_to_end() {
    let pod = enrolled();
    let mut client = Client::new(connect(&pod).await);
    let mut streams = Vec::new();
    for _ in 0..STREAMS_PER_CONNECTION {
        let stream = timeout(PATIENCE, Stream::open(&mut client)).await;
        streams.push(stream.expect("in time").expect("opens"));
    }
    let waiting = timeout(QUIET, Stream::open(&mut client)).await;
    assert!(waiting.is_err(), "a stream too many");
    // Another connection has streams of its own.
    let mut other = Client::new(connect(&pod).await);
    let stream = timeout(PATIENCE, Stream::open(&mut other)).await;
    stream.expect("in time").expect("opens");

    streams.pop();
    let stream = timeout(PATIENCE, Stream::open(&mut client)).await;
    let mut stream = stream.expect("in time").expect("opens");
    stream.send(asking(&["default"])).await;
    stream.answer().await.expect("answers");
}

#[tokio::test]
async fn streams_beyond_those_of_all_connections_are_refused_until_one_ends() {
    let pod = enrolled();
    let mut streams = Vec::new();
    for _ in 0..STREAMS / STREAMS_PER_CONNECTION {
        let mut client = Client::new(connect(&pod).await);
        for _ in 0..STREAMS_PER_CONNECTION {
            streams.push(Stream::open(&mut client).await.expect("opens"));
        }
    }
    let channel = connect(&pod).await;
    let mut client = Client::new(channel.clone());
    let refused = Stream::open(&mut client).await.map(drop);
    let refused = refused.expect_err("a stream too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    // Both APIs count together.
    let mut workload = SpiffeWorkloadApiClient::new(channel);
    let mut request = Request::new(X509svidRequest {});
    let header = MetadataValue::from_static("true");
    request.metadata_mut().insert("workload.spiffe.io", header);
    let refused = workload.fetch_x509svid(request).await.map(drop);
    let refused = refused.expect_err("a stream too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    // One question with one answer is no stream.
    let answer = client.fetch_secrets(asking(&["default"])).await;
    answer.expect("answers");

    streams.pop();
    let freed = timeout(PATIENCE, async {
        loop {
            match Stream::open(&mut client).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let mut stream = freed.await.expect("in time");
    stream.send(asking(&["default"])).await;
    stream.answer().await.expect("answers");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let pod = enrolled();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(UnixStream::connect(pod.socket()).await.expect("connects"));
    }
    let mut client = Client::new(connect(&pod).await);
    let waiting = timeout(QUIET, client.fetch_secrets(asking(&["default"]))).await;
    assert!(waiting.is_err(), "{waiting:?}");
    idle.pop();
    let answer = timeout(PATIENCE, client.fetch_secrets(asking(&["default"]))).await;
    answer.expect("in time").expect("answers");
}
