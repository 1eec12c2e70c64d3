//! Two Envoys with the least configuration that gives mutual TLS with the mesh's settings; on demand with the fewest rules that lead
//! connections to them in both pods and keep the client's address.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use contrast_e2e::harness::{
    Process, envoy,
    mesh::{Bed, Generation, Identity},
};
use contrast_firewall::APPLICATION_V4;
use serde_json::{Value, json};

use crate::{ECHO, SERVER, SINK};

const TLS: u16 = 9443;
const TLS_SINK: u16 = 9444;
const LISTEN: [u16; 3] = [9100, 9101, 9102];
const MARK: u32 = 1;

/// Whether applications dial Envoys, or connections are redirected to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Directly,
    ByRules,
}

pub(crate) struct ByHand {
    pub(crate) client: usize,
    pub(crate) server: usize,
    /// Where the client connects to; each connection costs a full handshake.
    pub(crate) full: SocketAddr,
    /// Where the client connects to; sessions are resumed.
    pub(crate) resumed: SocketAddr,
    pub(crate) sink: SocketAddr,
    /// Where the server speaks TLS.
    pub(crate) server_tls: SocketAddr,
    configuration: PathBuf,
    envoys: Vec<Process>,
    directory: tempfile::TempDir,
}

impl ByHand {
    pub(crate) fn start(bed: &mut Bed, generation: &Generation, reached: Reached) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        let (client, server) = (bed.stranger().expect("node"), bed.stranger().expect("node"));
        let remote = bed.network().address(server);
        let install = |name: &str, identity: anyhow::Result<Identity>| {
            let files = directory.path().join(name);
            fs::create_dir(&files).expect("directory");
            identity
                .and_then(|identity| identity.install(&files))
                .expect("certificate");
            files
        };
        let names = [SERVER.to_owned(), remote.to_string()];
        let at_server = install("server", generation.issue("test/deployment/server", &names));
        let at_client = install("client", generation.issue("test/deployment/client", &names));
        let server_listeners = [(TLS, ECHO), (TLS_SINK, SINK)].map(|(port, application)| {
            let context = json!({
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": tls(&at_server, None),
            });
            let (listen, to) = match reached {
                Reached::Directly => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST),
                Reached::ByRules => (Ipv4Addr::LOCALHOST, APPLICATION_V4),
            };
            let mut parts = proxy((listen, port).into(), (to, application).into(), Some(context), None);
            if reached == Reached::ByRules {
                parts.0["transparent"] = json!(true);
                parts.0["listener_filters"] = json!([{
                    "name": "envoy.filters.listener.original_src",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc"},
                }]);
            }
            parts
        });
        let upstream = |sessions: u32| {
            json!({
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "max_session_keys": sessions,
                "common_tls_context": tls(&at_client, Some(remote.into())),
            })
        };
        let (echo, sink) = match reached {
            Reached::Directly => (TLS, TLS_SINK),
            Reached::ByRules => (ECHO, SINK),
        };
        let client_listeners = [
            (LISTEN[0], echo, 0),
            (LISTEN[1], echo, 1),
            (LISTEN[2], sink, 0),
        ]
        .map(|(listen, port, sessions)| {
            let to = SocketAddr::from((remote, port));
            let mut parts = proxy(
                (Ipv4Addr::LOCALHOST, listen).into(),
                to,
                None,
                Some(upstream(sessions)),
            );
            if reached == Reached::ByRules {
                // SOL_SOCKET, SO_MARK.
                parts.1["upstream_bind_config"] =
                    json!({"socket_options": [{"level": 1, "name": 36, "int_value": MARK}]});
            }
            parts
        });
        let write = |name: &str, parts: &[(Value, Value)]| {
            let (listeners, clusters): (Vec<_>, Vec<_>) = parts.iter().cloned().unzip();
            let bootstrap =
                json!({"static_resources": {"listeners": listeners, "clusters": clusters}});
            let path = directory.path().join(format!("{name}.json"));
            fs::write(&path, bootstrap.to_string()).expect("writes");
            path
        };
        let configuration = write("server", &server_listeners);
        let client_configuration = write("client", &client_listeners);
        let at = |index: usize| match reached {
            Reached::Directly => SocketAddr::from((Ipv4Addr::LOCALHOST, LISTEN[index])),
            Reached::ByRules => SocketAddr::from((remote, if index == 2 { SINK } else { ECHO })),
        };
        let mut by_hand = Self {
            client,
            server,
            full: at(0),
            resumed: at(1),
            sink: at(2),
            server_tls: (remote, echo).into(),
            configuration: configuration.clone(),
            envoys: Vec::new(),
            directory,
        };
        for (node, configuration, port) in [
            (server, configuration, TLS_SINK),
            (client, client_configuration, LISTEN[2]),
        ] {
            let (envoy, _) = by_hand.run(bed, node, &configuration, port);
            by_hand.envoys.push(envoy);
        }
        if reached == Reached::ByRules {
            redirect(bed, server, client);
        }
        by_hand
    }

    /// How long another Envoy with the server's configuration takes until it listens.
    pub(crate) fn start_again(&self, bed: &mut Bed) -> Duration {
        let node = bed.stranger().expect("node");
        self.run(bed, node, &self.configuration, TLS_SINK).1
    }

    fn run(&self, bed: &Bed, node: usize, configuration: &Path, port: u16) -> (Process, Duration) {
        let envoy = envoy().expect("Envoy");
        let mut command: Command = bed.network().command(node, &envoy);
        command
            .args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "warning",
            ])
            .arg("--config-path")
            .arg(configuration);
        let begun = Instant::now();
        let name = format!("by-hand-{node}");
        let mut process =
            Process::start(&name, command, self.directory.path()).expect("Envoy starts");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listens = |_: &Process| {
            let connects = move || std::net::TcpStream::connect(address).is_ok();
            bed.network().within(node, connects).expect("namespace")
        };
        process
            .wait_until("its listener", Duration::from_secs(20), listens)
            .expect("Envoy listens");
        (process, begun.elapsed())
    }
}

/// Rules that know the ports of this bench only, deny nothing, and do not track connections to the server.
fn redirect(bed: &Bed, server: usize, client: usize) {
    let at_server = format!(
        "table inet mesh {{ chain prerouting {{ type filter hook prerouting priority mangle
            iif lo accept
            tcp dport {ECHO} tproxy ip to 127.0.0.1:{TLS} accept
            tcp dport {SINK} tproxy ip to 127.0.0.1:{TLS_SINK} accept
        }}
        }}"
    );
    let at_client = format!(
        "table inet mesh {{ chain output {{ type nat hook output priority -100
            meta mark {MARK} accept
            tcp dport {ECHO} redirect to :{}
            tcp dport {SINK} redirect to :{}
        }}
        }}",
        LISTEN[0], LISTEN[2]
    );
    let answers = format!("from {APPLICATION_V4} iif lo lookup 100");
    for (node, command) in [
        (server, format!("nft '{at_server}'")),
        (
            server,
            "ip route add local default dev lo table 100".to_owned(),
        ),
        (server, format!("ip rule add {answers}")),
        (client, format!("nft '{at_client}'")),
    ] {
        let mut shell = bed.network().command(node, Path::new("/bin/sh"));
        let made = shell.args(["-c", &command]).status().expect("shell");
        assert!(made.success(), "{command}");
    }
}

fn tls(files: &Path, server: Option<IpAddr>) -> Value {
    let file = |name: &str| json!({"filename": files.join(name)});
    let mut validation = json!({"trusted_ca": file("mesh-ca.pem")});
    if let Some(address) = server {
        validation["match_typed_subject_alt_names"] =
            json!([{"san_type": "IP_ADDRESS", "matcher": {"exact": address}}]);
    }
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519MLKEM768", "X25519", "P-256"],
        },
        "tls_certificates": [{"certificate_chain": file("certChain.pem"), "private_key": file("key.pem")}],
        "validation_context": validation,
    })
}

/// Listener and cluster of a TCP proxy.
fn proxy(
    listen: SocketAddr,
    to: SocketAddr,
    downstream: Option<Value>,
    upstream: Option<Value>,
) -> (Value, Value) {
    let name = format!("port{}", listen.port());
    let address = |address: SocketAddr| json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
    let socket = |context| json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": name,
        },
    }]});
    if let Some(context) = downstream {
        chain["transport_socket"] = socket(context);
    }
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}],
        },
    });
    if let Some(context) = upstream {
        cluster["transport_socket"] = socket(context);
    }
    (
        json!({"name": name, "address": address(listen), "filter_chains": [chain]}),
        cluster,
    )
}
