use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::{Builder, JoinHandle},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// Start of all names of namespaces. They end with the process id, so that what a killed run left is known.
const PREFIX: &str = "contrast-";
/// 100.64.0.0/10 (RFC 6598) is used by nobody here; each network takes 64 addresses of it.
const FIRST_ADDRESS: u32 = 0x6440_0000;
const ADDRESSES: u32 = 64;
const NETWORKS: u32 = 1 << 16;
/// fd64:4000:0:NETWORK::/64, unique local addresses (RFC 4193); the last part is the same as in the IPv4 address.
const PREFIX6: [u16; 3] = [0xfd64, 0x4000, 0];
/// Address of the machine in each network, after all nodes.
const GATEWAY: u32 = 62;
/// Most nodes of a network.
const NODES_MAX: usize = 60;

/// What lies in a directory here that has the name of a namespace is seen in `/etc` by the programs that `ip netns exec` starts in it.
const FILES: &str = "/etc/netns";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network of its own: every node is a network namespace with an IPv4 and an IPv6 address, all on one bridge, which lies in a further
/// namespace. The machine itself has addresses too. Whatever was made is removed when it is dropped.
#[derive(Debug)]
pub struct Network {
    number: u32,
    nodes: usize,
    cut: BTreeSet<(usize, usize)>,
    /// Ranges of the networks that it is joined with.
    joined: Vec<String>,
}

/// Why there can be no network namespaces here; `None` when there can.
pub fn no_network_because() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    if run("ip", &["-V"]).is_err() {
        return Some("there is no `ip` (Debian: iproute2)".to_owned());
    }
    if firewall().is_none() {
        return Some("there is neither `nft` nor `iptables` (Debian: nftables)".to_owned());
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let probe = format!("{PREFIX}probe-{number}-{}", std::process::id());
    let made = run("ip", &["netns", "add", &probe]);
    let _ = run("ip", &["netns", "del", &probe]);
    made.err()
        .map(|error| format!("network namespaces cannot be made: {error:#}"))
}

impl Network {
    /// A network of `nodes` nodes that all reach each other.
    ///
    /// # Errors
    /// When namespaces, addresses or links cannot be made, for example without root.
    pub fn create(nodes: usize) -> Result<Self> {
        ensure!(
            nodes <= NODES_MAX,
            "expected at most {NODES_MAX} nodes, found {nodes}"
        );
        remove_leftovers();
        // Dropping it removes what was made before something failed.
        let mut network = Self {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            nodes: 0,
            cut: BTreeSet::new(),
            joined: Vec::new(),
        };
        let bridge = network.name("bridge");
        run("ip", &["netns", "add", &bridge])?;
        run(
            "ip",
            &["-n", &bridge, "link", "add", "br0", "type", "bridge"],
        )?;
        run("ip", &["-n", &bridge, "link", "set", "br0", "up"])?;
        network.plug(None, "gateway", &network.gateway_link(), GATEWAY)?;
        for _ in 0..nodes {
            network.add()?;
        }
        Ok(network)
    }

    /// One more node, and its number.
    ///
    /// # Errors
    /// When there are too many, or namespace, addresses or links cannot be made.
    pub fn add(&mut self) -> Result<usize> {
        let node = self.nodes;
        ensure!(
            node < NODES_MAX,
            "expected at most {NODES_MAX} nodes, found one more"
        );
        self.nodes += 1;
        let name = self.node(node);
        run("ip", &["netns", "add", &name])?;
        run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        self.plug(Some(&name), &format!("port{node}"), "eth0", offset(node))?;
        self.route(node)?;
        Ok(node)
    }

    /// Lets the nodes of both networks reach each other by IPv4.
    ///
    /// # Errors
    /// When links or routes cannot be made.
    pub fn join(&mut self, other: &mut Self) -> Result<()> {
        let (here, there) = (self.name("bridge"), other.name("bridge"));
        let (near, far) = (
            format!("join{}", other.number),
            format!("join{}", self.number),
        );
        let link = [
            "-n", &here, "link", "add", &near, "type", "veth", "peer", "name", &far, "netns",
            &there,
        ];
        run("ip", &link)?;
        for (bridge, port) in [(&here, &near), (&there, &far)] {
            run(
                "ip",
                &["-n", bridge, "link", "set", port, "master", "br0", "up"],
            )?;
        }
        let ranges = [&*self, &*other].map(|network| format!("{}/26", network.host(0)));
        for (network, range) in [self, other].into_iter().zip(ranges.into_iter().rev()) {
            network.joined.push(range);
            (0..network.nodes).try_for_each(|node| network.route(node))?;
        }
        Ok(())
    }

    /// Leads a node to the joined networks.
    fn route(&self, node: usize) -> Result<()> {
        let name = self.node(node);
        self.joined.iter().try_for_each(|range| {
            run(
                "ip",
                &["-n", &name, "route", "replace", range, "dev", "eth0"],
            )
        })
    }

    /// Name of a node's namespace.
    pub fn node(&self, node: usize) -> String {
        self.name(&format!("node{node}"))
    }

    /// Address of a node.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        self.host(offset(node))
    }

    /// IPv6 address of a node.
    pub fn address6(&self, node: usize) -> Ipv6Addr {
        self.host6(offset(node))
    }

    /// Both addresses of a node, IPv4 first; only that one where the kernel has no IPv6.
    pub fn addresses(&self, node: usize) -> Vec<IpAddr> {
        let six = has_ipv6().then(|| self.address6(node).into());
        std::iter::once(self.address(node).into())
            .chain(six)
            .collect()
    }

    /// Address of the machine itself.
    pub fn gateway(&self) -> Ipv4Addr {
        self.host(GATEWAY)
    }

    /// Runs `work` on a thread that is in a node's namespace: its sockets, and those of threads that it starts, are the node's.
    /// Names are not looked up as the node's programs do: files are those of the machine.
    ///
    /// # Errors
    /// When the namespace is gone or cannot be entered; the latter when the thread is joined.
    pub fn spawn<T: Send + 'static>(
        &self,
        node: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        enter(self.node(node), work)
    }

    /// Runs `work` in a node's namespace, as [`Network::spawn`] does, and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered. A panic of `work` goes on in the caller.
    pub fn within<T: Send + 'static>(
        &self,
        node: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        match self.spawn(node, work)?.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Lets the programs on a node ask the DNS server at port 53 of `server`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn resolve_at(&self, node: usize, server: Ipv4Addr) -> Result<()> {
        let directory = Path::new(FILES).join(self.node(node));
        fs::create_dir_all(&directory)?;
        let file = directory.join("resolv.conf");
        Ok(fs::write(
            file,
            format!("nameserver {server}\noptions timeout:1 attempts:3\n"),
        )?)
    }

    /// A command that runs `program` on a node. It is the very process: signals reach it.
    pub fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.node(node)])
            .arg(program);
        command
    }

    /// Drops what `from` sends to `to` from now on; the other direction is untouched. The machine reaches both.
    ///
    /// # Errors
    /// When the firewall cannot be set.
    pub fn cut(&mut self, from: usize, to: usize) -> Result<()> {
        self.cut.insert((from, to));
        self.block(to)
    }

    /// Cuts a node off from all others, in both directions. The machine still reaches it.
    ///
    /// # Errors
    /// When the firewall cannot be set.
    pub fn isolate(&mut self, node: usize) -> Result<()> {
        for other in (0..self.nodes).filter(|other| *other != node) {
            self.cut.insert((node, other));
            self.cut.insert((other, node));
        }
        (0..self.nodes).try_for_each(|node| self.block(node))
    }

    /// Lets everybody reach everybody again.
    ///
    /// # Errors
    /// When the firewall cannot be set.
    pub fn heal(&mut self) -> Result<()> {
        self.cut.clear();
        (0..self.nodes).try_for_each(|node| self.block(node))
    }

    fn range(&self) -> u32 {
        std::process::id()
            .wrapping_add(self.number.wrapping_mul(0x1f_35))
            .wrapping_rem(NETWORKS)
    }

    fn host(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_ADDRESS + self.range() * ADDRESSES + offset)
    }

    fn host6(&self, offset: u32) -> Ipv6Addr {
        // Both are far below 2^16.
        let [network, host] =
            [self.range(), offset].map(|part| u16::try_from(part).unwrap_or_default());
        let [a, b, c] = PREFIX6;
        Ipv6Addr::new(a, b, c, network, 0, 0, 0, host)
    }

    fn name(&self, part: &str) -> String {
        format!("{PREFIX}{part}-{}-{}", self.number, std::process::id())
    }

    /// Interface names have at most 15 characters.
    fn gateway_link(&self) -> String {
        format!("ct{}-{}", self.number, std::process::id())
    }

    /// A link from `port` of the bridge to `link` in `namespace`, or of the machine itself.
    fn plug(&self, namespace: Option<&str>, port: &str, link: &str, offset: u32) -> Result<()> {
        let bridge = self.name("bridge");
        let mut add = vec![
            "-n", &bridge, "link", "add", port, "type", "veth", "peer", "name", link,
        ];
        // A process id stands for the namespace of that process.
        let own = std::process::id().to_string();
        add.extend(["netns", namespace.unwrap_or(&own)]);
        run("ip", &add)?;
        run(
            "ip",
            &["-n", &bridge, "link", "set", port, "master", "br0", "up"],
        )?;
        let address = format!("{}/26", self.host(offset));
        let inside = |words: &[&str]| {
            let mut arguments = Vec::new();
            if let Some(namespace) = namespace {
                arguments.extend(["-n", namespace]);
            }
            arguments.extend(words);
            run("ip", &arguments)
        };
        inside(&["addr", "add", &address, "dev", link])?;
        if has_ipv6() {
            // Nobody else has it, so nobody need be asked for a second.
            let address = format!("{}/64", self.host6(offset));
            inside(&["addr", "add", &address, "dev", link, "nodad"])?;
        }
        inside(&["link", "set", link, "up"])
    }

    /// Sets a node's firewall to what is cut now.
    fn block(&self, node: usize) -> Result<()> {
        let sources = self.cut.iter().filter(|(_, to)| *to == node);
        let sources: Vec<String> = sources
            .map(|(from, _)| self.address(*from).to_string())
            .collect();
        let name = self.node(node);
        let exec = |program, arguments: &[&str], input: &str| {
            let mut words = vec!["netns", "exec", &name, program];
            words.extend(arguments);
            run_with_input("ip", &words, input)
        };
        match firewall() {
            Some("nft") => exec("nft", &["-f", "-"], &ruleset(&sources)),
            Some(iptables) => {
                exec(iptables, &["-F", "INPUT"], "")?;
                sources.iter().try_for_each(|source| {
                    exec(iptables, &["-A", "INPUT", "-s", source, "-j", "DROP"], "")
                })
            }
            None => bail!("there is neither nft nor iptables"),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &self.gateway_link()]);
        for node in 0..self.nodes {
            let name = self.node(node);
            let _ = run("ip", &["netns", "del", &name]);
            let _ = fs::remove_dir_all(Path::new(FILES).join(name));
        }
        let _ = run("ip", &["netns", "del", &self.name("bridge")]);
    }
}

/// Runs `work` on a thread in the namespace `name`.
pub(super) fn enter<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let namespace = fs::File::open(format!("/run/netns/{name}")).context("namespace")?;
    let thread = Builder::new().name("in a namespace".to_owned());
    let thread = thread.spawn(move || {
        // Concerns this thread only.
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {name}"))?;
        Ok(work())
    })?;
    Ok(thread)
}

/// Whether the kernel has IPv6.
fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

fn offset(node: usize) -> u32 {
    // There are at most 60 nodes.
    u32::try_from(node).unwrap_or_default() + 1
}

fn ruleset(sources: &[String]) -> String {
    let rule = match sources.is_empty() {
        true => String::new(),
        false => format!("ip saddr {{ {} }} drop", sources.join(", ")),
    };
    // Adding it first makes deleting it succeed the first time.
    format!(
        "add table ip contrast\ndelete table ip contrast\ntable ip contrast {{\n chain input {{\n  type filter hook input priority 0\n  \
         {rule}\n }}\n}}\n"
    )
}

fn firewall() -> Option<&'static str> {
    ["nft", "iptables"]
        .into_iter()
        .find(|program| run(program, &["--version"]).is_ok())
}

/// Removes namespaces of processes that are gone.
fn remove_leftovers() {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    for line in String::from_utf8_lossy(&listed).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|name| name.rsplit('-').next())
            .and_then(|process| process.parse::<u32>().ok());
        if process.is_some_and(|process| fs::metadata(format!("/proc/{process}")).is_err()) {
            let _ = run("ip", &["netns", "del", name]);
            let _ = fs::remove_dir_all(Path::new(FILES).join(name));
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with_input(program, arguments, "")
}

fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may have ended already.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{} ended with {}: {}",
        shown(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{thread::sleep, time::Duration};

    use super::*;

    /// Whether a TCP connection from one node to another comes about.
    fn reaches(network: &Network, from: usize, to: usize) -> bool {
        let target = format!("/dev/tcp/{}/7", network.address(to));
        let script = format!("timeout 1 bash -c 'exec 3<>{target}'");
        let mut command = network.command(from, Path::new("bash"));
        command.args(["-c", &script]).stderr(Stdio::null());
        command.status().expect("bash").success()
    }

    fn listen(network: &Network, node: usize) -> std::process::Child {
        let script = "import socket,time\ns=socket.create_server((\"\",7))\nwhile True: s.accept()";
        let mut command = network.command(node, Path::new("python3"));
        command.args(["-c", script]).spawn().expect("python3")
    }

    #[test]
    fn threads_have_the_sockets_of_their_node_and_joined_networks_reach_each_other() {
        if let Some(reason) = no_network_because() {
            eprintln!("skipped: {reason}");
            return;
        }
        let mut first = Network::create(0).expect("network");
        let mut second = Network::create(1).expect("network");
        first.join(&mut second).expect("joins");
        assert_eq!(first.add().expect("a node that comes later"), 0);
        for address in first.addresses(0) {
            let listener = first.within(0, move || std::net::TcpListener::bind((address, 7)));
            let listener = listener.expect("enters").expect("listens");
            let connect = move || std::net::TcpStream::connect((address, 7)).is_ok();
            assert!(first.within(0, connect).expect("enters"), "{address}");
            if address.is_ipv4() {
                assert!(second.within(0, connect).expect("enters"), "{address}");
            }
            drop(listener);
        }
    }

    #[test]
    fn nodes_reach_each_other_until_a_direction_is_cut_and_nothing_is_left_behind() {
        if let Some(reason) = no_network_because() {
            eprintln!("skipped: {reason}");
            return;
        }
        let mut network = Network::create(3).expect("network");
        let names: Vec<String> = (0..3).map(|node| network.node(node)).collect();
        let mut listeners: Vec<_> = (0..3).map(|node| listen(&network, node)).collect();
        let all = |network: &Network| -> Vec<bool> {
            [(0, 1), (1, 0), (0, 2), (1, 2), (2, 1)]
                .map(|(from, to)| reaches(network, from, to))
                .to_vec()
        };
        for _ in 0..50 {
            if all(&network).into_iter().all(|reached| reached) {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        assert_eq!(all(&network), [true; 5]);
        let machine = |node: usize, network: &Network| {
            std::net::TcpStream::connect_timeout(
                &(network.address(node), 7).into(),
                Duration::from_secs(1),
            )
            .is_ok()
        };

        // An answer of 1 cannot come back to 0 either, so no connection between them comes about; both reach 2.
        network.cut(1, 0).expect("cuts");
        assert_eq!(all(&network), [false, false, true, true, true]);
        network.heal().expect("heals");
        network.isolate(1).expect("cuts");
        assert_eq!(all(&network), [false, false, true, false, false]);
        assert!(machine(1, &network), "the machine lost the isolated node");
        network.heal().expect("heals");
        assert_eq!(all(&network), [true; 5]);

        for listener in &mut listeners {
            listener.kill().expect("kills");
            listener.wait().expect("ends");
        }
        drop(network);
        for name in names {
            assert!(
                fs::metadata(format!("/run/netns/{name}")).is_err(),
                "{name} is left"
            );
        }
    }
}
