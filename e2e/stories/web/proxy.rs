//! Somebody between the page and the Coordinator, who may change what is said.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// How a body is changed; it gets the status as well.
pub(crate) type Change = Box<dyn FnMut(u16, Vec<u8>) -> (u16, Vec<u8>) + Send>;

/// Serves what the Coordinator at `upstream` answers, changed. The thread ends with the test.
pub(crate) fn start(upstream: SocketAddr, mut change: Change) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("accepts");
            let Some(target) = target(&mut client) else {
                continue;
            };
            let (status, body) = get(upstream, &target);
            let (status, body) = change(status, body);
            let head = format!(
                "HTTP/1.1 {status} Changed\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            // A page that gave up is its own affair.
            let _ = client.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

/// Asks for `target` and returns status and body.
pub(crate) fn get(address: SocketAddr, target: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("sets");
    let request = format!("GET {target} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("receives");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.expect("a head") + 4);
    let head = String::from_utf8(answer).expect("text");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), body)
}

/// The target of a GET request; none when the client only opened a connection.
fn target(client: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).ok()?;
    request.split(' ').nth(1).map(str::to_owned)
}
