//! Traffic through real Envoys: who gets through, and who does not.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use clap::Parser;
use contrast_service_mesh::{
    app::write_configuration,
    config::Config,
    envoy::{
        Paths,
        tls::{CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE},
    },
};
use envoy_types::pb::envoy::{
    config::{bootstrap::v3::Bootstrap, core::v3::transport_socket::ConfigType},
    extensions::transport_sockets::tls::v3::UpstreamTlsContext,
};
use prost::Message;

mod testbed;

use testbed::{
    Sidecar,
    certificates::{Bundle, Generation},
    echo, echoes, eventually, free_port, statistic,
};

/// A server pod: an echoing application behind its sidecar, with an admin port to read statistics from.
struct Server {
    sidecar: Sidecar,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// `pod` is the last but one byte of its address; `entry` makes the ingress annotation of the port, none declares it.
    fn start(envoy: &Path, pod: u8, entry: Option<&str>, bundle: &Bundle) -> Self {
        let ip = Ipv4Addr::new(127, 77, pod, 1);
        let port = echo();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
        let ingress = match entry {
            Some(disable_tls) => (
                "CONTRAST_INGRESS_PROXY_CONFIG",
                format!("app#{port}#{disable_tls}"),
            ),
            None => ("CONTRAST_INGRESS_PORTS", port.to_string()),
        };
        let environment = [
            ingress,
            ("CONTRAST_POD_IP", ip.to_string()),
            ("CONTRAST_ADMIN_PORT", admin.port().to_string()),
        ];
        let sidecar = Sidecar::ready(envoy, &environment, |directory| bundle.install(directory));
        Self {
            sidecar,
            address: SocketAddr::from((ip, port)),
            admin,
        }
    }

    fn statistic(&self, suffix: &str) -> u64 {
        statistic(self.admin, suffix)
    }
}

/// A client pod whose egress leads to `remote`; returns where its application connects to.
fn client(
    envoy: &Path,
    pod: u8,
    remote: &str,
    resolver: Option<SocketAddr>,
    bundle: &Bundle,
) -> (Sidecar, SocketAddr) {
    let ip = Ipv4Addr::new(127, 78, pod, 1);
    let listen = SocketAddr::from((ip, free_port(ip)));
    let mut environment = vec![(
        "CONTRAST_EGRESS_PROXY_CONFIG",
        format!("server#{listen}#{remote}"),
    )];
    environment.extend(resolver.map(|resolver| ("CONTRAST_DNS_RESOLVER", resolver.to_string())));
    let sidecar = Sidecar::ready(envoy, &environment, |directory| bundle.install(directory));
    (sidecar, listen)
}

/// A remote that any member of the mesh may be.
fn any_member(remote: SocketAddr) -> String {
    format!("{remote}#identity=any")
}

/// An Envoy that speaks the mesh's TLS but presents no certificate: our configuration without that part.
struct Anonymous {
    envoy: Child,
    listen: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Anonymous {
    fn start(envoy: &Path, pod: u8, remote: SocketAddr, bundle: &Bundle) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let ip = Ipv4Addr::new(127, 78, pod, 1);
        let listen = SocketAddr::from((ip, free_port(ip)));
        let paths = Paths {
            tls_config: directory.path().join("tls-config"),
            runtime: directory.path().to_owned(),
        };
        fs::create_dir(&paths.tls_config).expect("directory");
        bundle.install(&paths.tls_config);
        let egress = format!("--egress=server#{listen}#{remote}#identity=any");
        let arguments = ["service-mesh", "--ingress-mode=explicit", &egress];
        let config = Config::try_parse_from(arguments).expect("arguments");
        write_configuration(&config.mesh().expect("mesh"), &paths).expect("configuration");
        let bytes = fs::read(paths.bootstrap()).expect("bootstrap");
        let mut bootstrap = Bootstrap::decode(&*bytes).expect("protobuf");
        let resources = bootstrap.static_resources.as_mut().expect("resources");
        let socket = resources.clusters[0].transport_socket.as_mut();
        let Some(ConfigType::TypedConfig(config)) = &mut socket.expect("TLS").config_type else {
            panic!("no configuration of TLS")
        };
        let mut context = UpstreamTlsContext::decode(&*config.value).expect("protobuf");
        let common = context.common_tls_context.as_mut().expect("TLS");
        let removed = std::mem::take(&mut common.tls_certificate_sds_secret_configs);
        assert_eq!(removed.len(), 1, "the client's certificate");
        config.value = context.encode_to_vec();
        fs::write(paths.bootstrap(), bootstrap.encode_to_vec()).expect("bootstrap");
        let envoy = Command::new(envoy)
            .args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--config-path",
            ])
            .arg(paths.bootstrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("Envoy starts");
        eventually("the listener is open", || testbed::connect(listen).is_ok());
        Self {
            envoy,
            listen,
            _directory: directory,
        }
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        let _ = self.envoy.kill();
        let _ = self.envoy.wait();
    }
}

#[test]
fn members_of_one_generation_talk_over_tls_1_3_with_hybrid_key_exchange() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let generation = Generation::new();
    let server = Server::start(&envoy, 1, None, &generation.issue());
    let (_client, listen) = client(
        &envoy,
        1,
        &any_member(server.address),
        None,
        &generation.issue(),
    );
    assert!(echoes(listen));
    assert!(server.statistic("ssl.versions.TLSv1.3") >= 1);
    assert!(server.statistic("ssl.curves.X25519MLKEM768") >= 1);
    assert_eq!(server.statistic("ssl.session_reused"), 0);
}

#[test]
fn plaintext_client_is_refused() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let server = Server::start(&envoy, 2, None, &Generation::new().issue());
    assert!(!echoes(server.address));
    eventually("the refusal is counted", || {
        server.statistic("ssl.connection_error") == 1
    });
}

#[test]
fn client_that_does_not_finish_its_handshake_is_disconnected() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let server = Server::start(&envoy, 11, None, &Generation::new().issue());
    let mut connection = testbed::connect(server.address).expect("connection");
    // A TLS record header that announces 512 bytes of handshake, and nothing after it.
    connection.write_all(&[22, 3, 1, 2, 0]).expect("header");
    assert_eq!(connection.read(&mut [0]).expect("an end, not a timeout"), 0);
    eventually("the timeout is counted", || {
        server.statistic("downstream_cx_transport_socket_connect_timeout") == 1
    });
}

#[test]
fn client_without_certificate_is_refused_unless_the_entry_makes_it_optional() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let generation = Generation::new();
    let strict = Server::start(&envoy, 3, None, &generation.issue());
    let anonymous = Anonymous::start(&envoy, 3, strict.address, &generation.issue());
    assert!(!echoes(anonymous.listen));
    assert!(strict.statistic("ssl.fail_verify_no_cert") >= 1);

    let lenient = Server::start(&envoy, 4, Some("false"), &generation.issue());
    let anonymous = Anonymous::start(&envoy, 4, lenient.address, &generation.issue());
    assert!(echoes(anonymous.listen));
    assert!(
        !echoes(lenient.address),
        "plain text must be refused all the same"
    );
}

#[test]
fn certificate_of_another_ca_is_refused_even_where_certificates_are_optional() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (ours, other) = (Generation::new(), Generation::new());
    // It trusts the server, so that only the server can be the one who refuses.
    let impostor = Bundle {
        peer_ca: ours.issue().peer_ca,
        ..other.issue()
    };
    for (pod, entry) in [(5, None), (6, Some("false"))] {
        let server = Server::start(&envoy, pod, entry, &ours.issue());
        let (_client, listen) = client(&envoy, pod, &any_member(server.address), None, &impostor);
        assert!(!echoes(listen));
        assert!(server.statistic("ssl.fail_verify_error") >= 1);
    }
}

#[test]
fn client_refuses_a_server_of_another_ca() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (ours, other) = (Generation::new(), Generation::new());
    // The server trusts the client, so that only the client can be the one who refuses.
    let impostor = Bundle {
        peer_ca: ours.issue().peer_ca,
        ..other.issue()
    };
    let server = Server::start(&envoy, 7, None, &impostor);
    let (_client, listen) = client(&envoy, 7, &any_member(server.address), None, &ours.issue());
    assert!(!echoes(listen));
    assert_eq!(server.statistic("ssl.handshake"), 0);
}

#[test]
fn port_with_tls_disabled_passes_plaintext() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let server = Server::start(&envoy, 8, Some("true"), &Generation::new().issue());
    assert!(echoes(server.address));
}

#[test]
fn renewed_files_take_effect_without_a_restart() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (old, new) = (Generation::new(), Generation::new());
    let server = Server::start(&envoy, 9, None, &old.issue());
    let (peer, listen) = client(&envoy, 9, &any_member(server.address), None, &old.issue());
    assert!(echoes(listen));

    // Same CA, new certificate and key: nobody notices.
    server_renews(&server, &old);
    assert!(echoes(listen));

    // New CA on the server only: the client belongs to the old generation.
    server_renews(&server, &new);
    eventually("the old generation is refused", || !echoes(listen));

    // The client follows, in another order of files, so that key and certificate differ for a moment the other way.
    let order = [KEY_FILE, PEER_CA_FILE, CERTIFICATE_FILE];
    new.issue().install_in_order(&peer.tls_config(), order);
    eventually("the new generation talks", || echoes(listen));
    assert!(!server.sidecar.log().contains("Envoy ended"));
}

/// Installs new files and waits until Envoy has taken the certificate, which it shows by its serial number.
fn server_renews(server: &Server, generation: &Generation) {
    let before = serial(server.admin);
    generation.issue().install(&server.sidecar.tls_config());
    eventually("the renewed certificate is served", || {
        serial(server.admin) != before
    });
}

fn serial(admin: SocketAddr) -> String {
    let mut stream = testbed::connect(admin).expect("admin interface");
    let request = b"GET /certs HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n";
    stream.write_all(request).expect("request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answer");
    let (_, chain) = text.split_once("\"cert_chain\"").expect("a certificate");
    chain
        .split_once("\"serial_number\"")
        .expect("a serial number")
        .1
        .chars()
        .take(60)
        .collect()
}

#[test]
fn egress_names_are_resolved_by_the_configured_server() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let generation = Generation::new();
    let server = Server::start(&envoy, 10, None, &generation.issue());
    let resolver = name_server("backend", Ipv4Addr::new(127, 77, 10, 1));
    let remote = format!("backend:{}", server.address.port());
    let (_client, listen) = client(&envoy, 10, &remote, Some(resolver), &generation.issue());
    eventually("the name is resolved", || echoes(listen));
}

#[test]
fn a_member_with_another_name_than_the_one_dialled_is_refused() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let generation = Generation::new();
    let server = Server::start(&envoy, 12, None, &generation.issue());
    let resolver = name_server("payroll", Ipv4Addr::new(127, 77, 12, 1));
    for remote in [
        format!("payroll:{}", server.address.port()),
        server.address.to_string(),
        format!("{}#identity=shop/deployment/payroll", server.address),
    ] {
        let (peer, listen) = client(&envoy, 12, &remote, Some(resolver), &generation.issue());
        assert!(!echoes(listen), "{remote}");
        eventually("the refusal is logged", || {
            peer.output().contains("CERTIFICATE_VERIFY_FAILED")
        });
    }
    assert_eq!(server.statistic(".upstream_cx_total"), 0);
}

/// A DNS server that knows one A record (RFC 1035) and answers every other question with "no such name".
fn name_server(name: &'static str, ip: Ipv4Addr) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = socket.local_addr().expect("address");
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            let query = &packet[..length];
            let encoded = [&[name.len() as u8], name.as_bytes(), &[0]].concat();
            let end = 12 + encoded.len() + 4;
            let known = query.len() >= end && query[12..].starts_with(&encoded);
            let address_asked = known && query[end - 4..end] == [0, 1, 0, 1];
            let mut answer = query[..2].to_vec();
            // Response, authoritative, recursion available; code 3 is "no such name".
            answer.extend([0x85, if known { 0x80 } else { 0x83 }]);
            answer.extend([0, 1, 0, u8::from(address_asked), 0, 0, 0, 0]);
            let question = query[12..]
                .iter()
                .position(|byte| *byte == 0)
                .map_or(length, |end| 12 + end + 5);
            answer.extend(&query[12..question.min(length)]);
            if address_asked {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
                answer.extend(ip.octets());
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
    address
}
