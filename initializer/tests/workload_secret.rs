//! The workload secret at its socket.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::Path,
    sync::Arc,
};

use contrast_initializer::secret::{self, Secrets, Serving, WORKLOAD_SECRET, WorkloadSecret};
use tokio::sync::watch;
use zeroize::Zeroizing;

fn known(byte: u8) -> WorkloadSecret {
    WorkloadSecret::Known(Arc::new(Zeroizing::new(vec![byte; 64])))
}

/// Whole answer to a request, as text.
async fn ask(socket: &Path, request: &'static str) -> String {
    let socket = socket.to_owned();
    let exchange = move || {
        let mut stream = UnixStream::connect(socket).expect("connects");
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: contrast\r\nConnection: close\r\n\r\n"
        )
        .expect("sends");
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // After its answer, the server does not read the rest of what is no request.
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => String::from_utf8(answer).expect("UTF-8"),
        }
    };
    tokio::task::spawn_blocking(exchange)
        .await
        .expect("answers")
}

fn serve(socket: &Path, secrets: Secrets) -> Serving {
    secret::serve(socket, None, secrets).expect("serves")
}

#[tokio::test]
async fn secret_is_given_when_there_is_one_and_follows_the_manifest() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("workload-secret.sock");
    let secrets = watch::Sender::<WorkloadSecret>::default();
    let _serving = serve(&socket, secrets.subscribe());
    let request = "GET /v1/workload-secret";
    assert!(request.ends_with(WORKLOAD_SECRET));

    let early = ask(&socket, request).await;
    assert!(early.starts_with("HTTP/1.1 503 "), "{early}");
    assert!(early.contains("retry-after: 1\r\n"), "{early}");
    assert!(early.contains("the pod is not enrolled yet"), "{early}");

    for byte in [0xab, 0xcd] {
        secrets.send_replace(known(byte));
        let answer = ask(&socket, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: application/json\r\n"),
            "{answer}"
        );
        assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
        let secret = hex::encode([byte; 64]);
        assert!(
            answer.ends_with(&format!("\r\n\r\n{{\"secret\":\"{secret}\"}}\n")),
            "{answer}"
        );
    }

    secrets.send_replace(WorkloadSecret::Absent);
    let none = ask(&socket, request).await;
    assert!(none.starts_with("HTTP/1.1 404 "), "{none}");
    assert!(none.contains("WorkloadSecretID"), "{none}");
}

#[tokio::test]
async fn anything_else_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("workload-secret.sock");
    let secrets = watch::Sender::new(known(1));
    let _serving = serve(&socket, secrets.subscribe());
    for (request, status) in [
        ("PUT /v1/workload-secret", "405 "),
        ("DELETE /v1/workload-secret", "405 "),
        ("GET /", "404 "),
        ("GET /v2/workload-secret", "404 "),
        ("GET /v1/workload-secret/", "404 "),
        ("junk", "400 "),
    ] {
        let answer = ask(&socket, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
        assert!(!answer.contains(&"01".repeat(64)), "{request}: {answer}");
    }
}

#[tokio::test]
async fn socket_is_for_its_owner_and_replaces_only_a_socket() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("workload-secret.sock");
    let secrets = watch::Sender::new(known(1));
    drop(serve(&socket, secrets.subscribe()));
    let _serving = serve(&socket, secrets.subscribe());
    let mode = |path: &Path| fs::metadata(path).expect("exists").permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    let left: Vec<_> = fs::read_dir(directory.path()).expect("lists").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        ask(&socket, "GET /v1/workload-secret")
            .await
            .starts_with("HTTP/1.1 200 ")
    );

    let file = directory.path().join("file");
    fs::write(&file, "mine").expect("writes");
    let error = secret::serve(&file, None, secrets.subscribe()).expect_err("refused");
    assert!(
        error.to_string().contains("--workload-secret-socket"),
        "{error}"
    );
    assert_eq!(fs::read(&file).expect("still there"), b"mine");

    // Who is root can give it to the application's user; others cannot, and then there is none.
    let given = directory.path().join("given.sock");
    match secret::serve(&given, Some(1234), secrets.subscribe()) {
        Ok(_serving) => assert_eq!(fs::metadata(&given).expect("exists").uid(), 1234),
        Err(_) => assert!(!given.exists()),
    }
}
