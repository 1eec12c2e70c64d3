//! A server on a real socket, and clients that keep to the protocol, or do not.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use contrast_proto::ttrpc::{Request, Response};
use contrast_ttrpc::{
    Call, Code, HEADER_BYTES, Handler, Header, Kind, Limits, MESSAGE_MAX, Status, frame, serve,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const LIMITS: Limits = Limits {
    request_bytes: 200,
    message_time: Duration::from_millis(300),
    connections: 2,
    calls: 2,
};
/// For what should happen at once.
const SOON: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Echo {
    release: Notify,
    dropped: AtomicUsize,
}

struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Echo {
    async fn call(&self, call: Call) -> Result<Bytes, Status> {
        let _dropped = Dropped(&self.dropped);
        match &*call.method {
            "Echo" => Ok(call.payload),
            "Wait" => {
                self.release.notified().await;
                Ok(call.payload)
            }
            #[expect(clippy::panic, reason = "what a bug does")]
            "Panic" => panic!("as asked for"),
            other => Err(Status::new(Code::Unimplemented, other)),
        }
    }
}

struct Served {
    directory: tempfile::TempDir,
    echo: Arc<Echo>,
    _tasks: JoinSet<()>,
}

impl Served {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(directory.path().join("s")).expect("binds");
        let echo = Arc::new(Echo::default());
        let mut tasks = JoinSet::new();
        let handler = Arc::clone(&echo);
        tasks.spawn(async move { match serve(&listener, handler, limits).await {} });
        Self {
            directory,
            echo,
            _tasks: tasks,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    async fn client(&self) -> Client {
        Client(UnixStream::connect(self.path()).await.expect("connects"))
    }
}

struct Client(UnixStream);

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("writes");
    }

    async fn call(&mut self, stream: u32, method: &str, payload: &[u8], wait: Duration) {
        self.send(&request(stream, method, payload, wait)).await;
    }

    async fn answer(&mut self) -> (u32, Response) {
        timeout(SOON, async {
            let mut header = [0; HEADER_BYTES];
            self.0.read_exact(&mut header).await.expect("header");
            let header = Header::parse(&header);
            assert_eq!((header.kind, header.flags), (Kind::Response as u8, 0));
            let mut body = vec![0; header.length as usize];
            self.0.read_exact(&mut body).await.expect("body");
            (header.stream, Response::decode(&*body).expect("response"))
        })
        .await
        .expect("an answer")
    }

    async fn refusal(&mut self) -> (u32, i32, String) {
        let (stream, response) = self.answer().await;
        let status = response.status.expect("status");
        (stream, status.code, status.message)
    }

    async fn end(&mut self) {
        let mut rest = Vec::new();
        let read = timeout(SOON, self.0.read_to_end(&mut rest)).await;
        // Where bytes of ours are left over, the kernel says so.
        let _ = read.expect("ends");
        assert_eq!(rest, b"");
    }

    async fn still_works(&mut self) {
        self.call(99, "Echo", b"still", Duration::ZERO).await;
        let (stream, response) = self.answer().await;
        assert_eq!((stream, &*response.payload), (99, b"still".as_slice()));
    }
}

fn request(stream: u32, method: &str, payload: &[u8], wait: Duration) -> Bytes {
    let request = Request {
        service: "a.Service".to_owned(),
        method: method.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        timeout_nano: i64::try_from(wait.as_nanos()).expect("nanoseconds"),
        metadata: Vec::new(),
    };
    frame(Kind::Request, stream, &request.encode_to_vec())
}

fn header(length: u32, stream: u32, kind: u8, flags: u8) -> Vec<u8> {
    let mut bytes = [length.to_be_bytes(), stream.to_be_bytes()].concat();
    bytes.extend([kind, flags]);
    bytes
}

#[tokio::test]
async fn calls_are_answered_when_they_are_done() {
    let served = Served::new();
    let mut client = served.client().await;
    client.call(1, "Wait", b"slow", Duration::ZERO).await;
    client.call(3, "Echo", b"fast", Duration::ZERO).await;
    let (stream, response) = client.answer().await;
    assert_eq!((stream, &*response.payload), (3, b"fast".as_slice()));
    assert_eq!(response.status, None);
    served.echo.release.notify_one();
    let (stream, response) = client.answer().await;
    assert_eq!((stream, &*response.payload), (1, b"slow".as_slice()));
}

#[tokio::test]
async fn refusals_leave_the_connection_as_it_is() {
    let served = Served::new();
    let mut client = served.client().await;
    client.call(1, "Other", b"", Duration::ZERO).await;
    assert_eq!(client.refusal().await, (1, 12, "Other".to_owned()));
    client.call(3, "Panic", b"", Duration::ZERO).await;
    let (stream, code, _) = client.refusal().await;
    assert_eq!((stream, code), (3, 13));
    client.call(5, "Echo", &[0; 200], Duration::ZERO).await;
    let (stream, code, message) = client.refusal().await;
    assert_eq!((stream, code), (5, 8), "{message}");
    assert!(message.contains("expected at most 200"), "{message}");
    client.call(6, "Echo", b"", Duration::ZERO).await;
    let (stream, code, message) = client.refusal().await;
    assert_eq!((stream, code), (6, 3), "{message}");
    client.send(&header(3, 7, 1, 2)).await;
    client.send(&[1, 2, 3]).await;
    let (stream, code, message) = client.refusal().await;
    assert_eq!((stream, code), (7, 12), "{message}");
    client.send(&frame(Kind::Request, 9, &[0xff; 50])).await;
    let (stream, code, message) = client.refusal().await;
    assert_eq!((stream, code), (9, 3), "{message}");
    client.still_works().await;
}

#[tokio::test]
async fn what_is_not_ttrpc_is_answered_once_and_ends() {
    let served = Served::new();
    let mut client = served.client().await;
    client.send(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n").await;
    let (_, code, message) = client.refusal().await;
    assert_eq!(code, 3);
    assert!(message.contains("another protocol"), "{message}");
    client.end().await;
    let mut client = served.client().await;
    client.send(&header(MESSAGE_MAX + 1, 1, 1, 0)).await;
    assert_eq!(client.refusal().await.1, 3);
    client.end().await;
}

#[tokio::test]
async fn silence_is_for_the_time_between_messages() {
    let served = Served::new();
    let mut patient = served.client().await;
    patient.still_works().await;
    let whole = request(1, "Echo", b"", Duration::ZERO);
    for length in [1, HEADER_BYTES, whole.len() - 1] {
        let begun = Instant::now();
        let mut client = served.client().await;
        client.send(&whole[..length]).await;
        client.end().await;
        assert!(begun.elapsed() >= LIMITS.message_time, "{length}");
    }
    // A byte now and then is no message either.
    let mut client = served.client().await;
    let begun = Instant::now();
    for byte in &whole {
        if client.0.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    client.end().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    patient.still_works().await;
}

#[tokio::test]
async fn message_that_is_skipped_leaves_the_next_one_its_time() {
    // Twice the pause is more than a message may take, once is far from it.
    let limits = Limits {
        message_time: Duration::from_secs(1),
        ..LIMITS
    };
    let pause = Duration::from_millis(550);
    let served = Served::with(limits);
    let whole = request(3, "Echo", b"next", Duration::ZERO);
    let (first, second) = whole.split_at(whole.len() / 2);
    let skip = async |kind: u8| {
        let mut client = served.client().await;
        client.send(&header(300, 1, kind, 0)).await;
        if kind == Kind::Request as u8 {
            assert_eq!(client.refusal().await.0, 1);
        }
        client.send(&[0; 150]).await;
        sleep(pause).await;
        client.send(&[0; 150]).await;
        sleep(pause * 2).await;
        client.send(first).await;
        sleep(pause).await;
        client.send(second).await;
        let (stream, response) = client.answer().await;
        assert_eq!((stream, &*response.payload), (3, b"next".as_slice()));
        // The next one begins in the same read in which the other one ends.
        client.send(&header(300, 5, 9, 0)).await;
        sleep(pause).await;
        client.send(&[&[0; 300], first].concat()).await;
        sleep(pause).await;
        client.send(second).await;
        assert_eq!(client.answer().await.0, 3, "kind {kind}");
    };
    // Too large, and of a kind that is ignored.
    tokio::join!(skip(Kind::Request as u8), skip(9));
}

#[tokio::test]
async fn body_that_is_skipped_has_to_end_too() {
    let served = Served::new();
    let mut client = served.client().await;
    client.send(&header(300, 1, Kind::Request as u8, 0)).await;
    assert_eq!(client.refusal().await.0, 1);
    let begun = Instant::now();
    client.end().await;
    assert!(begun.elapsed() >= LIMITS.message_time / 2);
}

#[tokio::test]
async fn time_of_the_caller_is_kept() {
    let served = Served::new();
    let mut client = served.client().await;
    client
        .call(1, "Wait", b"", Duration::from_millis(100))
        .await;
    let (stream, code, message) = client.refusal().await;
    assert_eq!((stream, code), (1, 4), "{message}");
    assert_eq!(served.echo.dropped.load(Ordering::SeqCst), 1);
    client.still_works().await;
}

#[tokio::test]
async fn calls_of_a_client_that_left_are_dropped() {
    let served = Served::new();
    let mut client = served.client().await;
    client.call(1, "Wait", b"", Duration::ZERO).await;
    client.still_works().await;
    assert_eq!(served.echo.dropped.load(Ordering::SeqCst), 1);
    drop(client);
    timeout(SOON, async {
        while served.echo.dropped.load(Ordering::SeqCst) < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("dropped");
}

#[tokio::test]
async fn calls_and_connections_are_bounded() {
    let served = Served::new();
    let mut client = served.client().await;
    for stream in [1, 3, 5] {
        client.call(stream, "Wait", b"", Duration::ZERO).await;
    }
    let (stream, code, message) = client.refusal().await;
    assert_eq!((stream, code), (5, 8), "{message}");
    let mut second = served.client().await;
    second.still_works().await;
    let mut third = served.client().await;
    third.call(1, "Echo", b"", Duration::ZERO).await;
    let early = timeout(Duration::from_millis(300), third.0.readable()).await;
    assert!(early.is_err(), "a third connection waits");
    drop(second);
    assert_eq!(third.answer().await.0, 1);
    served.echo.release.notify_waiters();
    assert_eq!(client.answer().await.0 % 2, 1);
}
