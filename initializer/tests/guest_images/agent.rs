//! The real `initializer serve-images`, and what an agent sends it: bytes as ttrpc's documentation has them, made here.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use contrast_proto::{
    image_pull::{ImagePullRequest, ImagePullResponse},
    ttrpc::{Request, Response},
};
use prost::Message as _;

const PATIENCE: Duration = Duration::from_secs(60);

/// The guest's puller.
pub(crate) struct Puller {
    directory: PathBuf,
    child: Child,
}

impl Drop for Puller {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else {
            return;
        };
        let ours = self.directory.to_string_lossy().into_owned();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for target in targets.filter(|target| target.starts_with(&ours)) {
            let _ = Command::new("umount").arg(target).output();
        }
    }
}

impl Puller {
    /// Starts it, and waits until it says that it is ready. `address` is a registry without TLS.
    pub(crate) fn start(directory: &Path, address: &str) -> Self {
        let conf = directory.join("registries.conf");
        let text = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
        fs::write(&conf, text).expect("writes");
        let notified = directory.join("notify");
        let listener = UnixDatagram::bind(&notified).expect("binds");
        let log = fs::File::create(directory.join("log")).expect("log");
        let child = Self::command(directory)
            .arg("--registries-conf")
            .arg(&conf)
            .env("NOTIFY_SOCKET", &notified)
            .stderr(log.try_clone().expect("log"))
            .stdout(log)
            .spawn()
            .expect("starts");
        let puller = Self {
            directory: directory.to_owned(),
            child,
        };
        listener.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut said = [0; 100];
        let count = listener.recv(&mut said);
        let count = count.unwrap_or_else(|error| panic!("{error}: {}", puller.log()));
        assert_eq!(&said[..count], b"READY=1");
        puller
    }

    /// What is run, with directories of the test.
    pub(crate) fn command(directory: &Path) -> Command {
        let at = |name: &str| directory.join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_initializer"));
        command
            .env_clear()
            .arg("serve-images")
            .arg("--socket")
            .arg(at("run/made/cdh.sock"))
            .arg("--store")
            .arg(at("store"))
            .arg("--bundle-root")
            .arg(at("bundles"))
            .env("CONTRAST_PULL_CREDENTIALS_DIR", at("credentials"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("run/made/cdh.sock")
    }

    pub(crate) fn bundle(&self, name: &str) -> PathBuf {
        self.directory.join("bundles").join(name)
    }

    pub(crate) fn connect(&self) -> Agent {
        let stream = UnixStream::connect(self.socket()).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Agent { stream, next: 1 }
    }

    /// Pulls into the bundle `name` over a connection of its own.
    pub(crate) fn pull(&self, image: &str, name: &str) -> Result<String, Refusal> {
        let bundle = self.bundle(name);
        self.connect().pull(image, &bundle.to_string_lossy())
    }

    pub(crate) fn layers(&self) -> usize {
        let layers = fs::read_dir(self.directory.join("store/layers"));
        layers.expect("layers").count()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).expect("log")
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        let begun = Instant::now();
        while !self.log().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{text}: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether something is mounted at the bundle's root file system.
    pub(crate) fn is_mounted(&self, name: &str) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let rootfs = self.bundle(name).join("rootfs");
        let rootfs = rootfs.to_string_lossy();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(&*rootfs))
    }

    /// Sends SIGTERM, and returns the exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status();
        assert!(killed.expect("kill").success());
        self.child.wait().expect("ends").code()
    }
}

/// `google.rpc.Code`, and the message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) i32, pub(crate) String);

/// One connection, as an agent has.
pub(crate) struct Agent {
    pub(crate) stream: UnixStream,
    next: u32,
}

impl Agent {
    /// Sends a request and returns its number.
    pub(crate) fn send(
        &mut self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        wait: Duration,
    ) -> u32 {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: payload.into(),
            timeout_nano: i64::try_from(wait.as_nanos()).expect("nanoseconds"),
            metadata: Vec::new(),
        };
        let body = request.encode_to_vec();
        let number = self.next;
        self.next += 2;
        self.stream
            .write_all(&message(number, &body))
            .expect("writes");
        number
    }

    pub(crate) fn ask(&mut self, image: &str, bundle: &str, wait: Duration) -> u32 {
        let request = ImagePullRequest {
            image_url: image.to_owned(),
            bundle_path: bundle.to_owned(),
        };
        let payload = request.encode_to_vec();
        self.send("api.ImagePullService", "PullImage", payload, wait)
    }

    pub(crate) fn pull(&mut self, image: &str, bundle: &str) -> Result<String, Refusal> {
        let number = self.ask(image, bundle, Duration::from_secs(1200));
        let (answered, outcome) = self.answer().expect("an answer");
        assert_eq!(answered, number);
        outcome
    }

    /// The next answer: its number, and digest or refusal.
    pub(crate) fn answer(&mut self) -> io::Result<(u32, Result<String, Refusal>)> {
        let mut header = [0; 10];
        self.stream.read_exact(&mut header)?;
        let number = |at: usize| {
            let bytes = header[at..at + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes)
        };
        assert_eq!(header[8..], [2, 0]);
        let mut body = vec![0; usize::try_from(number(0)).expect("length")];
        self.stream.read_exact(&mut body)?;
        let response = Response::decode(&*body).expect("a response");
        let outcome = match response.status.filter(|status| status.code != 0) {
            Some(status) => Err(Refusal(status.code, status.message)),
            None => {
                let pulled = ImagePullResponse::decode(response.payload);
                Ok(pulled.expect("a result").manifest_digest)
            }
        };
        Ok((number(4), outcome))
    }

    /// Waits until the other side ends the connection, which it does without another byte.
    pub(crate) fn end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // It had not read all of ours.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        assert_eq!(rest, b"");
    }
}

/// A request with its header.
pub(crate) fn message(number: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("length");
    let mut bytes = [length.to_be_bytes(), number.to_be_bytes()].concat();
    bytes.extend([1, 0]);
    bytes.extend(body);
    bytes
}
