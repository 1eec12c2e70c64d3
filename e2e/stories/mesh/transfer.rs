//! Bytes: what the application sends arrives, whatever the shape of the connection.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use contrast_e2e::harness::mesh::MeshPod;

use crate::scene::{PORT, Scene, alias};

const BLOCK: usize = 64 * 1024;
const GIBIBYTE: usize = 1 << 30;
/// Ports of servers that do one thing each.
const SINK: u16 = 8100;
const SOURCE: u16 = 8101;
const RESET: u16 = 8102;
const SPEAKS_FIRST: u16 = 8103;
const DEADLINE: Duration = Duration::from_secs(60);

/// The block number `number` of a stream that repeats nothing soon.
fn block(number: usize) -> Vec<u8> {
    let seed = u64::try_from(number).expect("fits");
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..BLOCK / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

fn deadline(stream: &TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).expect("option");
    stream.set_write_timeout(Some(DEADLINE)).expect("option");
}

/// Handles one connection to `port` of the server as `handle` does, in the background.
fn serve_once<T: Send + 'static>(
    scene: &Scene,
    port: u16,
    handle: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> std::thread::JoinHandle<anyhow::Result<T>> {
    let network = scene.bed.network();
    let listener = network.within(scene.server.node, move || TcpListener::bind(("::", port)));
    let listener = listener.expect("namespace").expect("port");
    // It bounds `accept` too.
    let timeout = socket2::SockRef::from(&listener).set_read_timeout(Some(DEADLINE));
    timeout.expect("option");
    let serving = network.spawn(scene.server.node, move || {
        let (stream, _) = listener.accept().expect("a connection");
        deadline(&stream);
        handle(stream)
    });
    serving.expect("namespace")
}

/// Connects from `member` to `port` and does what `work` does.
fn connected<T: Send + 'static>(
    scene: &Scene,
    member: &MeshPod,
    to: SocketAddr,
    work: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> T {
    let connect = move || {
        let stream = TcpStream::connect(to).expect("connects");
        deadline(&stream);
        work(stream)
    };
    scene
        .bed
        .network()
        .within(member.node, connect)
        .expect("namespace")
}

fn scene(story: &str, port: u16) -> Option<(Scene, MeshPod)> {
    let mut scene = Scene::begin(story, "")?;
    let egress = scene.egress(port, "");
    let member = scene.member("client", &egress);
    Some((scene, member))
}

#[test]
fn end_of_one_direction_leaves_the_other_open() {
    let Some((scene, member)) = scene("half-close", PORT) else {
        return;
    };
    for index in 0..member.addresses.len() {
        let answer = connected(&scene, &member, alias(index, PORT), |mut stream| {
            stream.write_all(b"last words").expect("sends");
            stream.shutdown(Shutdown::Write).expect("ends");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        assert_eq!(answer.expect("answer"), "last words");
    }
}

#[test]
fn server_that_speaks_first_is_heard() {
    let Some((scene, member)) = scene("server speaks first", SPEAKS_FIRST) else {
        return;
    };
    let serving = serve_once(&scene, SPEAKS_FIRST, |mut stream| {
        stream.write_all(b"220 ready").expect("sends");
        stream.read(&mut [0; 1]).map(drop)
    });
    let greeting = connected(&scene, &member, alias(0, SPEAKS_FIRST), |mut stream| {
        let mut greeting = [0; 9];
        stream.read_exact(&mut greeting).map(|()| greeting)
    });
    assert_eq!(&greeting.expect("greeting"), b"220 ready");
    serving
        .join()
        .expect("served")
        .expect("namespace")
        .expect("reads");
}

#[test]
fn reset_reaches_the_other_side() {
    let Some((scene, member)) = scene("reset", RESET) else {
        return;
    };
    // The server resets: it closes with unread bytes in its buffer.
    let serving = serve_once(&scene, RESET, |mut stream| {
        stream.read_exact(&mut [0; 1]).expect("reads");
    });
    let ended = connected(&scene, &member, alias(0, RESET), |mut stream| {
        stream.write_all(&[7; 4096]).expect("sends");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).map(|_| rest)
    });
    assert!(ended.map_or(true, |rest| rest.is_empty()));
    serving.join().expect("served").expect("namespace");

    // The client resets, once the server knows of it.
    let serving = serve_once(&scene, RESET, |mut stream| {
        stream.write_all(&[1]).expect("sends");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).map(|_| rest.len())
    });
    connected(&scene, &member, alias(0, RESET), |mut stream| {
        stream.read_exact(&mut [0; 1]).expect("reads");
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("option");
    });
    let ended = serving.join().expect("served").expect("namespace");
    assert!(ended.map_or(true, |length| length == 0));
}

#[test]
fn gibibyte_arrives_unchanged() {
    let Some((scene, member)) = scene("1 GiB", SINK) else {
        return;
    };
    let serving = serve_once(&scene, SINK, |mut stream| {
        let mut digest = Context::new(&SHA256);
        let mut buffer = vec![0; BLOCK];
        loop {
            match stream.read(&mut buffer).expect("reads") {
                0 => break,
                length => digest.update(&buffer[..length]),
            }
        }
        let digest = digest.finish();
        stream.write_all(digest.as_ref()).expect("answers");
    });
    let (sent, arrived) = connected(&scene, &member, alias(0, SINK), |mut stream| {
        let blocks: Vec<Vec<u8>> = (0..64).map(block).collect();
        let mut digest = Context::new(&SHA256);
        for number in 0..GIBIBYTE / BLOCK {
            let block = &blocks[number * 7 % blocks.len()];
            stream.write_all(block).expect("sends");
            digest.update(block);
        }
        stream.shutdown(Shutdown::Write).expect("ends");
        let mut arrived = [0; 32];
        stream.read_exact(&mut arrived).expect("digest");
        (digest.finish().as_ref().to_vec(), arrived)
    });
    assert_eq!(sent, arrived);
    serving.join().expect("served").expect("namespace");
}

#[test]
fn slow_reader_gets_everything_and_holds_the_sender_back() {
    const SENT: usize = 32 << 20;
    let Some((scene, member)) = scene("slow reader", SOURCE) else {
        return;
    };
    let serving = serve_once(&scene, SOURCE, |mut stream| {
        for number in 0..SENT / BLOCK {
            stream.write_all(&block(number)).expect("sends");
        }
        stream.shutdown(Shutdown::Write).expect("ends");
    });
    let (at_first, read) = connected(&scene, &member, alias(0, SOURCE), move |mut stream| {
        // Reads nothing for a while: the sender must not get rid of everything, or somebody between them holds it in memory.
        std::thread::sleep(Duration::from_secs(1));
        let mut first = vec![0; BLOCK];
        stream.read_exact(&mut first).expect("reads");
        let still_sending = !serving.is_finished();
        let mut number = 1;
        let mut buffer = vec![0; BLOCK];
        while number < SENT / BLOCK {
            stream.read_exact(&mut buffer).expect("reads");
            assert!(buffer == block(number), "block {number} is another");
            number += 1;
            if number % 64 == 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        assert!(first == block(0), "block 0 is another");
        serving.join().expect("served").expect("namespace");
        (still_sending, number * BLOCK)
    });
    assert!(
        at_first,
        "32 MiB were taken from the sender while nobody read"
    );
    assert_eq!(read, SENT);
}
