//! A pod and a stranger: two network namespaces and a link between them, an application in the pod, and attempts to reach it.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{self, Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::geteuid,
};

pub(crate) const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 66, 0, 2));
pub(crate) const STRANGER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 66, 0, 1));
pub(crate) const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 2));
pub(crate) const STRANGER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1));

const GREETING: &[u8; 5] = b"hello";
/// For what must succeed.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what must not: what gets in does so within a fraction of a millisecond.
const IMPATIENCE: Duration = Duration::from_millis(250);

/// Whether namespaces can be made; says why not.
pub(crate) fn possible() -> bool {
    let missing = if !geteuid().is_root() {
        "namespaces need root"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "there is no program ip (package iproute2)"
    } else {
        return true;
    };
    eprintln!("SKIPPED: {missing}");
    false
}

/// The two namespaces; they go when this is dropped.
pub(crate) struct Pod {
    name: String,
}

impl Pod {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pod = Self {
            name: format!("contrast-fw-{}-{number}", process::id()),
        };
        let (inside, outside) = (pod.inside(), pod.outside());
        ip(&format!("netns add {inside}"));
        ip(&format!("netns add {outside}"));
        ip(&format!(
            "-n {inside} link add eth0 type veth peer name eth0 netns {outside}"
        ));
        for (namespace, addresses) in [
            (&inside, [POD_V4, POD_V6]),
            (&outside, [STRANGER_V4, STRANGER_V6]),
        ] {
            let [v4, v6] = addresses;
            ip(&format!("-n {namespace} address add {v4}/24 dev eth0"));
            ip(&format!(
                "-n {namespace} address add {v6}/64 dev eth0 nodad"
            ));
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
        pod
    }

    fn inside(&self) -> String {
        format!("{}-in", self.name)
    }

    fn outside(&self) -> String {
        format!("{}-out", self.name)
    }

    /// What `work` returns in the pod's namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.inside(), work)
    }

    /// What `work` returns in the stranger's namespace.
    pub(crate) fn without<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        enter(&self.outside(), work)
    }

    /// Runs `ip` in the stranger's namespace.
    pub(crate) fn stranger_ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.outside()));
    }

    /// Runs `ip` in the pod's namespace.
    pub(crate) fn pod_ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.inside()));
    }

    /// Whether a stranger's new TCP connection gets the application's greeting.
    pub(crate) fn tcp_gets_in(&self, ip: IpAddr, port: u16) -> bool {
        self.without(|| greets(SocketAddr::new(ip, port), IMPATIENCE))
    }

    /// Whether a stranger's datagram is echoed.
    pub(crate) fn udp_gets_in(&self, ip: IpAddr, port: u16) -> bool {
        self.without(|| echoes(SocketAddr::new(ip, port), IMPATIENCE))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for namespace in [self.inside(), self.outside()] {
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace])
                .output();
        }
    }
}

/// Runs `work` on a thread in `namespace`; the programs that it starts are there too.
fn enter<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).expect("namespace");
    let outcome = thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // Concerns this thread only.
            setns(file, CloneFlags::CLONE_NEWNET).expect("enters the namespace");
            work()
        });
        thread.join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

/// Runs `program`, which must succeed, in the namespace of this thread; returns what it printed.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    succeeded(&format!("{program} {arguments}"), &output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn succeeded(command: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A server that greets over TCP and echoes over UDP, and counts both.
pub(crate) struct Application {
    served: Arc<AtomicUsize>,
}

impl Application {
    /// Serves `port` on `ip` in the namespace of this thread, until the process ends.
    pub(crate) fn serve(ip: IpAddr, port: u16) -> Self {
        let listener = patiently(|| TcpListener::bind((ip, port)));
        let socket = patiently(|| UdpSocket::bind((ip, port)));
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(GREETING);
            }
        });
        let count = served.clone();
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(&buffer[..length], peer);
            }
        });
        Self { served }
    }

    /// How many connections and datagrams have arrived.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

/// What `bind` gives within a second: a program that another test starts just then holds the socket that had the address
/// before until it is executed.
pub(crate) fn patiently<T>(bind: impl Fn() -> io::Result<T>) -> T {
    let (pause, attempts) = (Duration::from_millis(25), 40);
    for _ in 1..attempts {
        if let Ok(bound) = bind() {
            return bound;
        }
        thread::sleep(pause);
    }
    bind().expect("address")
}

/// Whether a TCP connection from the namespace of this thread gets a greeting; it must not be slow.
pub(crate) fn tcp_is_served(ip: IpAddr, port: u16) -> bool {
    greets(SocketAddr::new(ip, port), PATIENCE)
}

/// As [`tcp_is_served`] with a datagram.
pub(crate) fn udp_is_served(ip: IpAddr, port: u16) -> bool {
    echoes(SocketAddr::new(ip, port), PATIENCE)
}

fn greets(address: SocketAddr, limit: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, limit) else {
        return false;
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).is_ok() && &greeting == GREETING
}

fn echoes(address: SocketAddr, limit: Duration) -> bool {
    let socket = UdpSocket::bind(match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    })
    .expect("UDP socket");
    socket.set_read_timeout(Some(limit)).expect("timeout");
    if socket.connect(address).is_err() || socket.send(GREETING).is_err() {
        return false;
    }
    let mut echo = [0; GREETING.len()];
    socket.recv(&mut echo).is_ok_and(|_| &echo == GREETING)
}
