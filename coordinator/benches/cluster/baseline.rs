//! What no implementation can do without: one flush, one round trip.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const BLOCK: u64 = 4096;

/// A file that grows by 4 KiB and is then flushed.
pub(crate) struct Flush {
    _directory: TempDir,
    file: File,
    length: u64,
}

impl Flush {
    /// In the same place as the disks of replicas.
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("directory");
        let file = File::create(directory.path().join("file")).expect("creates");
        Self {
            _directory: directory,
            file,
            length: 0,
        }
    }

    pub(crate) fn once(&mut self) -> Duration {
        let start = Instant::now();
        let block = [1; BLOCK as usize];
        self.file.write_all_at(&block, self.length).expect("writes");
        self.file.sync_data().expect("syncs");
        self.length += BLOCK;
        start.elapsed()
    }
}

/// A connection over loopback to a thread that sends back what it gets.
pub(crate) struct Echo(TcpStream);

impl Echo {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        let (mut other, _) = listener.accept().expect("accepts");
        other.set_nodelay(true).expect("sets");
        stream.set_nodelay(true).expect("sets");
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while other.read_exact(&mut bytes).is_ok() {
                if other.write_all(&bytes).is_err() {
                    return;
                }
            }
        });
        Self(stream)
    }

    pub(crate) fn once(&mut self) -> Duration {
        let mut bytes = [7; 1024];
        let start = Instant::now();
        self.0.write_all(&bytes).expect("sends");
        self.0.read_exact(&mut bytes).expect("receives");
        start.elapsed()
    }
}
