//! HTTP/1.1, HTTP/2 and gRPC pass, as mere bytes and as what the entries say they are.

use std::net::{Ipv6Addr, SocketAddr};

use axum::{Router, http::HeaderMap, routing::get};
use contrast_e2e::{application::http, harness::mesh::MeshPod};
use contrast_proto::mesh::{
    AdvanceVolumeRequest, GetVolumeRequest, NewMeshCertRequest, NewMeshCertResponse, Volume,
    WaitForTransitionRequest, WaitForTransitionResponse,
    mesh_api_client::MeshApiClient,
    mesh_api_server::{MeshApi, MeshApiServer},
};
use tokio::{net::TcpListener, runtime, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

use crate::scene::{Scene, alias};

/// One port for each way of being told about the same service.
const GRPC: [(u16, &str); 3] = [
    (8200, ""),
    (8201, "#protocol=http2"),
    (8202, "#protocol=grpc"),
];
const HTTP: [(u16, &str); 2] = [(8210, ""), (8211, "#protocol=http1")];
const CALLS: u8 = 50;

/// A gRPC service that answers with what it was asked, and refuses what is empty.
struct Service;

#[tonic::async_trait]
impl MeshApi for Service {
    async fn new_mesh_cert(
        &self,
        _: Request<NewMeshCertRequest>,
    ) -> Result<Response<NewMeshCertResponse>, Status> {
        Err(Status::permission_denied("nobody gets one here"))
    }

    async fn wait_for_transition(
        &self,
        request: Request<WaitForTransitionRequest>,
    ) -> Result<Response<WaitForTransitionResponse>, Status> {
        let transition = request.into_inner().known;
        Ok(Response::new(WaitForTransitionResponse { transition }))
    }

    async fn get_volume(&self, _: Request<GetVolumeRequest>) -> Result<Response<Volume>, Status> {
        Err(Status::unimplemented("nobody has a volume here"))
    }

    async fn advance_volume(
        &self,
        _: Request<AdvanceVolumeRequest>,
    ) -> Result<Response<Volume>, Status> {
        Err(Status::unimplemented("nobody has a volume here"))
    }
}

fn runtime() -> runtime::Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("runtime")
}

/// Runs `serve` with a listener on `port` of the server until the story's process ends.
fn listen<F: Future<Output = ()>>(
    scene: &Scene,
    port: u16,
    serve: impl FnOnce(TcpListener) -> F + Send + 'static,
) {
    let (listening, listens) = std::sync::mpsc::channel();
    let serving = scene.bed.network().spawn(scene.server.node, move || {
        runtime().block_on(async {
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let listener = TcpListener::bind(address).await.expect("port");
            let _ = listening.send(());
            serve(listener).await;
        });
    });
    drop(serving.expect("thread"));
    listens.recv().expect("the port is served");
}

/// Runs `work` on the member's node.
fn on<T: Send + 'static, F: Future<Output = T>>(
    scene: &Scene,
    member: &MeshPod,
    work: impl FnOnce() -> F + Send + 'static,
) -> T {
    let network = scene.bed.network();
    let outcome = network.within(member.node, move || runtime().block_on(work()));
    outcome.expect("namespace")
}

fn scene(story: &str, ports: &[(u16, &str)]) -> Option<(Scene, MeshPod)> {
    let entries = |entry: &dyn Fn(&u16, &str) -> Option<String>| {
        let entries = ports
            .iter()
            .filter_map(|(port, options)| entry(port, options));
        entries.collect::<Vec<_>>().join("##")
    };
    let ingress = entries(&|port, options| {
        (!options.is_empty()).then(|| format!("port{port}#{port}#false{options}#allow=client"))
    });
    let mut scene = Scene::begin(story, &ingress)?;
    let server = scene.server.addresses[0];
    let egress = entries(&|port, options| {
        Some(format!(
            "port{port}#{}#{server}:{port}{options}",
            alias(0, *port)
        ))
    });
    let member = scene.member("client", &egress);
    Some((scene, member))
}

#[test]
fn grpc_passes_as_bytes_as_http2_and_as_grpc() {
    let Some((scene, member)) = scene("gRPC", &GRPC) else {
        return;
    };
    for (port, options) in GRPC {
        listen(&scene, port, |listener| async {
            let router = Server::builder().add_service(MeshApiServer::new(Service));
            let incoming = TcpListenerStream::new(listener);
            router.serve_with_incoming(incoming).await.expect("serves");
        });
        let (answers, refusal) = on(&scene, &member, move || async move {
            let url = format!("http://{}", alias(0, port));
            let client = MeshApiClient::connect(url).await.expect("connects");
            // Many streams of one connection at once.
            let mut calls = JoinSet::new();
            for call in 0..CALLS {
                let mut client = client.clone();
                calls.spawn(async move {
                    let known = vec![call; 100 * 1024];
                    let request = WaitForTransitionRequest {
                        known: known.clone().into(),
                    };
                    let answer = client.wait_for_transition(request).await?;
                    Ok::<_, Status>(answer.into_inner().transition == known)
                });
            }
            let answers = calls.join_all().await;
            let refusal = client
                .clone()
                .new_mesh_cert(NewMeshCertRequest::default())
                .await;
            (answers, refusal)
        });
        for answer in answers {
            assert!(answer.expect("answer"), "{options}: another answer");
        }
        let refusal = refusal.expect_err("it was not refused");
        assert_eq!(
            refusal.code(),
            Code::PermissionDenied,
            "{options}: {refusal}"
        );
        assert_eq!(refusal.message(), "nobody gets one here");
    }
}

#[test]
fn http1_passes_as_bytes_and_as_http1_and_nobody_can_claim_to_be_another() {
    let Some((scene, member)) = scene("HTTP/1.1", &HTTP) else {
        return;
    };
    for (port, options) in HTTP {
        listen(&scene, port, |listener| async {
            let caller = |headers: HeaderMap| async move {
                let value = headers.get("x-forwarded-client-cert");
                let value = value.and_then(|value| value.to_str().ok());
                value.unwrap_or("nobody").to_owned()
            };
            let router = Router::new().route("/caller", get(caller));
            axum::serve(listener, router).await.expect("serves");
        });
        let url = format!("http://{}/caller", alias(0, port));
        let caller = on(&scene, &member, || async move {
            http::call(axum::http::Method::GET, &url).await
        });
        let caller = caller.expect("answer");
        match options {
            "" => assert_eq!(caller, "nobody"),
            _ => assert!(
                caller.contains("URI=spiffe://test/ns/test/deployment/client"),
                "{caller}"
            ),
        }
    }
}
