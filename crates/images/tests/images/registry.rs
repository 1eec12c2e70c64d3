//! A registry on loopback that does what a test wants of it, right or wrong.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use contrast_images::{ImageName, RegistriesConf, RegistryLimits, RegistryOptions};

use crate::fixture::Image;

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }
}

impl Request {
    /// Where the part begins that is asked for.
    pub(crate) fn from(&self) -> usize {
        let range = self.headers.get("range").map_or("bytes=0-", String::as_str);
        let from = range
            .strip_prefix("bytes=")
            .and_then(|range| range.strip_suffix('-'));
        from.expect("a range").parse().expect("a number")
    }
}

pub(crate) enum Reply {
    Whole(Vec<u8>),
    /// Says that all is coming, and closes in the middle.
    Half(Vec<u8>),
    /// A status, what is said to come, and how much of it does.
    Cut(u16, Vec<(String, String)>, Vec<u8>, usize),
    /// A byte now and then.
    Drops(Vec<u8>),
    /// Sends a little, and then nothing for a long time.
    Hang(Vec<u8>),
    Status(u16, Vec<(String, String)>, Vec<u8>),
}

pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Registry {
    pub(crate) fn serve(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::new(handler);
        let (log, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, log, stopped) =
                    (Arc::clone(&handler), Arc::clone(&log), Arc::clone(&stopped));
                thread::spawn(move || {
                    let connection = connection.expect("connection");
                    // The client may go away at any time.
                    let _ = answer(connection, &*handler, &log, &stopped);
                });
            }
        });
        Self {
            address,
            requests,
            stop,
        }
    }

    /// One that has `image` under any name, tag and path.
    pub(crate) fn of(image: &Image, top: Vec<u8>) -> Self {
        let blobs = image.blobs();
        Self::serve(move |request| content(&blobs, &top, &request.path))
    }

    pub(crate) fn name(&self, rest: &str) -> ImageName {
        ImageName::parse(&format!("{}/{rest}", self.address)).expect("image")
    }

    pub(crate) fn options(&self) -> RegistryOptions {
        RegistryOptions {
            conf: RegistriesConf::parse(&format!(
                "[[registry]]\nlocation = \"{}\"\ninsecure = true",
                self.address
            ))
            .expect("conf"),
            limits: RegistryLimits {
                silence: Duration::from_millis(300),
                pause: Duration::from_millis(10),
                ..RegistryLimits::default()
            },
            ..RegistryOptions::default()
        }
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        let requests = self.requests.lock().expect("requests");
        requests
            .iter()
            .map(|request| request.path.clone())
            .collect()
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.requests.lock().expect("requests").clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

/// What an honest registry answers.
pub(crate) fn content(blobs: &BTreeMap<String, Vec<u8>>, top: &[u8], path: &str) -> Reply {
    let wanted = path.rsplit('/').next().expect("a path");
    if path.contains("/manifests/")
        && (!wanted.contains(':') || wanted == contrast_images::Digest::of(top).to_string())
    {
        return Reply::Whole(top.to_vec());
    }
    match blobs.get(wanted) {
        Some(blob) => Reply::Whole(blob.clone()),
        None => Reply::Status(
            404,
            vec![],
            br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#.to_vec(),
        ),
    }
}

/// What a registry that knows parts answers, of which each answer breaks off after `sent` bytes.
pub(crate) fn part(blob: &[u8], request: &Request, sent: usize) -> Reply {
    match request.from() {
        0 => Reply::Cut(200, vec![], blob.to_vec(), sent.min(blob.len())),
        from => {
            let rest = blob[from..].to_vec();
            let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
            let sent = sent.min(rest.len());
            Reply::Cut(206, vec![("Content-Range".into(), range)], rest, sent)
        }
    }
}

fn answer(
    mut connection: TcpStream,
    handler: &dyn Fn(&Request) -> Reply,
    log: &Mutex<Vec<Request>>,
    stopped: &AtomicBool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        // Not HTTP: what servers say to somebody who speaks TLS.
        return connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(());
    };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = Request {
        method,
        path,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    log.lock().expect("requests").push(request.clone());
    let (status, headers, body, sent) = match handler(&request) {
        Reply::Whole(body) => (200, vec![], body.clone(), body.len()),
        Reply::Half(body) => (200, vec![], body.clone(), body.len() / 2),
        Reply::Cut(status, headers, body, sent) => (status, headers, body, sent),
        Reply::Drops(body) => {
            write!(
                connection,
                "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )?;
            for byte in body {
                connection.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(50));
            }
            return Ok(());
        }
        Reply::Hang(body) => (200, vec![], body, 10),
        Reply::Status(status, headers, body) => (status, headers, body.clone(), body.len()),
    };
    let hangs = sent == 10 && body.len() > 10;
    write!(
        connection,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    )?;
    for (name, value) in headers {
        write!(connection, "{name}: {value}\r\n")?;
    }
    write!(connection, "\r\n")?;
    connection.write_all(&body[..sent])?;
    connection.flush()?;
    // Bounded, so that no test leaves a thread behind.
    for _ in 0..50 {
        if !hangs || stopped.load(Ordering::SeqCst) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
