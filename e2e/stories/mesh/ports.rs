//! Ports that an ingress entry opens wider, and what stays closed beside them.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use contrast_e2e::harness::mesh::{Application, Wire, anonymous};

use crate::scene::{PORT, SERVER, Scene};

const PLAIN: u16 = 8081;
const WITHOUT_CLIENT_AUTH: u16 = 8082;
const DATAGRAMS: u16 = 9000;

/// Whether a datagram from `node` is answered.
fn datagram(scene: &Scene, node: usize, to: SocketAddr) -> bool {
    let exchange = move || -> std::io::Result<usize> {
        let own = match to.is_ipv4() {
            true => "0.0.0.0:0",
            false => "[::]:0",
        };
        let socket = UdpSocket::bind(own)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(b"ping", to)?;
        socket.recv(&mut [0; 16])
    };
    let outcome = scene.bed.network().within(node, exchange);
    outcome.expect("namespace").is_ok()
}

#[test]
fn entries_open_what_they_name_and_nothing_else() {
    let ingress = format!(
        "open#{PLAIN}#true##web#{WITHOUT_CLIENT_AUTH}#false##datagrams#{DATAGRAMS}#true#udp"
    );
    let Some(scene) = Scene::begin("ports", &ingress) else {
        return;
    };
    let start = |port| {
        Application::start(scene.bed.network(), scene.server.node, port).expect("application")
    };
    let applications = [PLAIN, WITHOUT_CLIENT_AUTH, DATAGRAMS].map(start);
    let [open, web, datagrams] = &applications;
    let stranger = scene.stranger;
    let browser = anonymous(&scene.generation.trusted()).expect("client");
    let browser = Wire::Tls(browser, SERVER);

    for (at_open, at_web) in scene
        .server
        .at(PLAIN)
        .zip(scene.server.at(WITHOUT_CLIENT_AUTH))
    {
        // TLS off: anybody.
        scene
            .reach(stranger, at_open, &Wire::Plain)
            .expect("TLS is off");
        // Client authentication off: anybody with TLS.
        scene
            .reach(stranger, at_web, &browser)
            .expect("client authentication is off");
        let plain = scene.reach(stranger, at_web, &Wire::Plain);
        plain.expect_err("plain text was answered");
    }
    assert_eq!(open.seen().connections.len(), scene.server.addresses.len());
    assert_eq!(web.seen().connections.len(), scene.server.addresses.len());

    for address in &scene.server.addresses {
        let to = |port| SocketAddr::from((*address, port));
        assert!(datagram(&scene, stranger, to(DATAGRAMS)), "{address}");
        assert!(!datagram(&scene, stranger, to(PORT)), "{address}");
        assert!(!datagram(&scene, stranger, to(PLAIN)), "{address}");
        // The entry opens UDP only.
        scene
            .reach(stranger, to(DATAGRAMS), &Wire::Plain)
            .expect_err("TCP was answered");
        // Envoy's own ports are for redirected connections only.
        for port in [15006, 15007, 15100] {
            for wire in [&Wire::Plain, &browser] {
                scene
                    .reach(stranger, to(port), wire)
                    .expect_err("Envoy's own port was answered");
            }
        }
    }
    let from_stranger = datagrams.seen();
    assert!(from_stranger.connections.is_empty(), "{from_stranger:?}");
    let seen = scene.application.seen();
    assert!(seen.connections.is_empty(), "{seen:?}");
    assert!(seen.datagrams.is_empty(), "{seen:?}");
}

#[test]
fn disabled_ingress_lets_nobody_in() {
    let Some(mut scene) = Scene::begin("disabled ingress", "DISABLED") else {
        return;
    };
    let egress = scene.egress(PORT, "");
    let member = scene.member("client", &egress);
    for (index, address) in scene.server.at(PORT).enumerate() {
        let alias = crate::scene::alias(index, PORT);
        scene
            .reach(member.node, alias, &Wire::Plain)
            .expect_err("a member was answered");
        scene
            .reach(scene.stranger, address, &Wire::Plain)
            .expect_err("a stranger was answered");
        assert!(!datagram(&scene, scene.stranger, address));
    }
    let seen = scene.application.seen();
    assert!(seen.connections.is_empty(), "{seen:?}");
    assert!(seen.datagrams.is_empty(), "{seen:?}");
}
