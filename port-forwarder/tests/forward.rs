//! The program, from the outside: real processes and real connections.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test panics; this file is a test"
)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(10);

struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(target: &str, connections: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_port-forwarder"))
            .arg(format!("--forward=127.0.0.1:0={target}"))
            .arg(format!("--connections={connections}"))
            .args(["--log-format=json", "--drain-deadline=1"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        log.read_line(&mut line).expect("a line");
        let (_, rest) = line.split_once(r#""address":""#).expect("an address");
        let (address, _) = rest.split_once('"').expect("its end");
        // Nobody may be stopped by a full pipe.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            address: address.parse().expect("an address"),
            child,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream
    }

    fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        Command::new("kill").arg(&id).status().expect("kill");
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not stop");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers with all that it read, once the client has said everything.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            thread::spawn(move || {
                let mut all = Vec::new();
                let _ = client.read_to_end(&mut all);
                let _ = client.write_all(&all);
            });
        }
    });
    address
}

#[test]
fn every_byte_arrives_and_half_closed_connections_still_answer() {
    let program = Program::start(&echo().to_string(), 4);
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[usize::from(n % 7 == 0)])
        .collect();
    let mut stream = program.connect();
    let mut reader = stream.try_clone().expect("cloned");
    let received = thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    stream.write_all(&sent).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    let received = received.join().expect("read").expect("an answer");
    assert!(received == sent, "{} of {}", received.len(), sent.len());
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn connections_above_the_limit_wait_for_others_to_end() {
    let program = Program::start(&echo().to_string(), 1);
    let first = program.connect();
    let mut second = program.connect();
    second.write_all(b"later").expect("sent");
    second.shutdown(Shutdown::Write).expect("half closed");
    let pause = Some(Duration::from_millis(300));
    second.set_read_timeout(pause).expect("set");
    let mut answer = String::new();
    let early = second.read_to_string(&mut answer);
    assert!(
        early.is_err(),
        "answered while another one is open: {answer}"
    );
    drop(first);
    second.set_read_timeout(Some(DEADLINE)).expect("set");
    second.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "later");
}

#[test]
fn nobody_there_closes_the_connection() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("binds");
    let nobody = unused.local_addr().expect("bound");
    drop(unused);
    let program = Program::start(&nobody.to_string(), 4);
    let read = program.connect().read(&mut [0; 1]);
    assert!(!matches!(read, Ok(1..)), "{read:?}");
    // It goes on.
    let _ = program.connect();
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_connection_that_stays_open_does_not_hold_up_a_stop() {
    let program = Program::start(&echo().to_string(), 4);
    let mut stream = program.connect();
    stream.write_all(b"x").expect("sent");
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("bound");
    let output = Command::new(env!("CARGO_BIN_EXE_port-forwarder"))
        .arg(format!("--forward={address}=127.0.0.1:1"))
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {address}")),
        "{said}"
    );
}

/// The kernel shows which of its timers runs for a connection: 02 is that of keepalive (`Documentation/networking/proc_net_tcp.rst`).
#[test]
fn peers_that_vanish_are_noticed() {
    let target = echo();
    let program = Program::start(&target.to_string(), 1);
    let mut client = program.connect();
    client.write_all(b"x").expect("sends");
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let sides = [
        (
            port(program.address),
            port(client.local_addr().expect("bound")),
        ),
        (String::new(), port(target)),
    ];
    let end = Instant::now() + DEADLINE;
    let is_watched = |(own, peer): &(String, String)| {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
        table.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields[1].ends_with(own) && fields[2].ends_with(peer) && fields[5].starts_with("02:")
        })
    };
    while !sides.iter().all(is_watched) {
        assert!(Instant::now() < end, "no timer runs for {sides:?}");
        thread::sleep(Duration::from_millis(20));
    }
    drop(client);
    assert_eq!(program.stop(), Some(0));
}
