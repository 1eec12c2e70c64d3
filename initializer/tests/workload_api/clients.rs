use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    time::Duration,
};

use contrast_initializer::spiffe;
use contrast_proto::workload::{
    JwtsvidRequest, X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use tokio::{process::Command, sync::watch, time::timeout};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, metadata::MetadataValue, transport::Endpoint};

use crate::pod::{Pod, SPIFFE_ID};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn rust_client_gets_identity_and_bundle_and_sees_each_update() {
    let pod = Pod::start();
    let client = ::spiffe::WorkloadApiClient::connect_to(pod.endpoint())
        .await
        .expect("connects");
    let refused = client.fetch_x509_svid().await.expect_err("not enrolled");
    assert!(
        matches!(refused, ::spiffe::WorkloadApiError::NoIdentityIssued),
        "{refused:?}"
    );

    let first_ca = pod.new_ca();
    pod.install(&first_ca, Some(SPIFFE_ID), None);
    let stream = client.stream_x509_contexts().await.expect("stream");
    tokio::pin!(stream);
    let mut next = async || {
        let context = timeout(PATIENCE, stream.next()).await.expect("in time");
        context.expect("goes on").expect("context")
    };
    let context = next().await;
    let first = context.default_svid().expect("SVID").clone();
    assert_eq!(first.spiffe_id().to_string(), SPIFFE_ID);
    assert_eq!(first.cert_chain().len(), 2);
    assert_eq!(first.private_key().as_bytes(), pod.private_key());
    let trusted = |context: &::spiffe::X509Context| {
        let domain = ::spiffe::TrustDomain::new("shop.example").expect("name");
        let bundle = context.bundle_set().get(&domain).expect("bundle");
        bundle.authorities().len()
    };
    assert_eq!(trusted(&context), 1);

    // A renewal.
    pod.install(&first_ca, Some(SPIFFE_ID), None);
    let renewed = next().await.default_svid().expect("SVID").clone();
    assert_ne!(renewed.leaf().as_bytes(), first.leaf().as_bytes());
    // Another manifest.
    let second_ca = pod.new_ca();
    pod.install(&second_ca, Some(SPIFFE_ID), Some(&first_ca));
    assert_eq!(trusted(&next().await), 2);
    let bundles = client.fetch_x509_bundles().await.expect("bundles");
    assert_eq!(bundles.len(), 1);
    // One that gives the pod no identity: the stream ends with the reason.
    pod.install(&second_ca, None, None);
    let end = timeout(PATIENCE, stream.next()).await.expect("in time");
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn header_is_demanded_and_there_are_no_jwts() {
    let pod = Pod::start();
    pod.install(&pod.new_ca(), Some(SPIFFE_ID), None);
    let channel = Endpoint::from_shared(pod.endpoint()).expect("endpoint");
    let mut client = SpiffeWorkloadApiClient::new(channel.connect().await.expect("connects"));
    let answer = client.fetch_x509svid(X509svidRequest {}).await;
    assert_eq!(answer.expect_err("no header").code(), Code::InvalidArgument);
    let mut request = Request::new(JwtsvidRequest::default());
    let header = MetadataValue::from_static("true");
    request.metadata_mut().insert("workload.spiffe.io", header);
    let answer = client.fetch_jwtsvid(request).await;
    assert_eq!(answer.expect_err("no JWT").code(), Code::Unimplemented);
}

#[tokio::test]
async fn stale_socket_is_replaced_and_anything_else_is_not() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("workload.sock");
    drop(UnixListener::bind(&path).expect("binds"));
    let updates = watch::Sender::new(None);
    let serving = spiffe::serve(&path, updates.subscribe()).expect("replaces the socket");
    let mode = fs::metadata(&path).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    drop(serving);
    fs::remove_file(&path).expect("removes");
    fs::write(&path, "a file").expect("writes");
    let error = spiffe::serve(&path, updates.subscribe()).expect_err("not a socket");
    assert!(error.to_string().contains("workload.sock"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("stays"), "a file");
}

/// Python, with PyPI's `spiffe` as `cargo xtask tools` installs it.
fn python() -> Option<Command> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/spiffe-python");
    if packages.is_dir() {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", packages);
        return Some(python);
    }
    eprintln!(
        "SKIPPED: no Python package `spiffe` at {}; run `cargo xtask tools` to install it",
        packages.display()
    );
    None
}

const PROGRAM: &str = "
import sys
from spiffe import WorkloadApiClient, TrustDomain
with WorkloadApiClient(socket_path=sys.argv[1]) as client:
    svid = client.fetch_x509_svid()
    bundle = client.fetch_x509_bundles().get_bundle_for_trust_domain(TrustDomain('shop.example'))
    print(svid.spiffe_id, len(svid.cert_chain), len(bundle.x509_authorities), '%x' % svid.leaf.serial_number)
";

#[tokio::test]
async fn python_client_gets_identity_and_bundle_and_the_next_certificate() {
    if python().is_none() {
        return;
    }
    let pod = Pod::start();
    let ca = pod.new_ca();
    let ask = async || {
        let mut command = python().expect("it was there");
        command
            .args(["-c", PROGRAM, &pod.endpoint()])
            .kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.expect("in time");
        let output = output.expect("runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    pod.install(&ca, Some(SPIFFE_ID), None);
    let first = ask().await;
    assert!(first.starts_with(&format!("{SPIFFE_ID} 2 1 ")), "{first}");
    let next = pod.new_ca();
    pod.install(&next, Some(SPIFFE_ID), Some(&ca));
    let second = ask().await;
    assert!(second.starts_with(&format!("{SPIFFE_ID} 2 2 ")), "{second}");
    assert_ne!(first, second);
}
