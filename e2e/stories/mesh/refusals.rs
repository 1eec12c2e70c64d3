//! Who is not a member of the mesh reaches nothing; who is, does, and is seen by its own address.

use contrast_e2e::harness::mesh::{Generation, Wire, anonymous};

use crate::scene::{PORT, SERVER, Scene, alias};

#[test]
fn plain_client_is_refused() {
    let Some(scene) = Scene::begin("plain client", "") else {
        return;
    };
    for address in scene.server.at(PORT) {
        scene
            .reach(scene.stranger, address, &Wire::Plain)
            .expect_err("it was answered");
    }
    let seen = scene.application.seen();
    assert!(seen.connections.is_empty(), "{seen:?}");
}

#[test]
fn tls_without_a_certificate_of_this_mesh_is_refused() {
    let Some(scene) = Scene::begin("certificates that are refused", "") else {
        return;
    };
    let names = ["client".to_owned()];
    let workload = "test/deployment/client";
    let trusted = scene.generation.trusted();
    let others = Generation::create().expect("CA");
    // Of the same deployment, only of another manifest.
    let previous = scene.generation.next().expect("CA");
    let with = |identity: anyhow::Result<contrast_e2e::harness::mesh::Identity>| {
        let identity = identity.expect("certificate").trusting(&trusted);
        identity.client().expect("client")
    };
    let refused = [
        ("no certificate", anonymous(&trusted).expect("client")),
        (
            "expired",
            with(scene.generation.issue_expired(workload, &names)),
        ),
        ("of another CA", with(others.issue(workload, &names))),
        (
            "of the generation before",
            with(previous.issue(workload, &names)),
        ),
    ];
    for address in scene.server.at(PORT) {
        for (which, client) in &refused {
            let wire = Wire::Tls(client.clone(), SERVER);
            let outcome = scene.reach(scene.stranger, address, &wire);
            let error = outcome.expect_err(which);
            eprintln!("{address} {which}: {error:#}");
        }
    }
    let seen = scene.application.seen();
    assert!(seen.connections.is_empty(), "{seen:?}");
    // The same client with a certificate of this generation is answered, so nothing else was wrong.
    let genuine = with(scene.generation.issue(workload, &names));
    for address in scene.server.at(PORT) {
        let wire = Wire::Tls(genuine.clone(), SERVER);
        let outcome = scene.reach(scene.stranger, address, &wire);
        outcome.expect("a member is answered");
    }
}

#[test]
fn members_are_served_and_the_application_sees_their_addresses() {
    let Some(mut scene) = Scene::begin("members", "") else {
        return;
    };
    let egress = scene.egress(PORT, "");
    let member = scene.member("client", &egress);
    for (index, own) in member.addresses.iter().enumerate() {
        scene
            .reach(member.node, alias(index, PORT), &Wire::Plain)
            .expect("a member is answered");
        let seen = scene.application.seen();
        let peer = seen.connections.last().expect("a connection");
        assert_eq!(peer.ip(), *own, "{seen:?}");
    }
}

#[test]
fn transparent_egress_needs_no_other_address() {
    let Some(mut scene) = Scene::begin("transparent egress", "") else {
        return;
    };
    let servers: Vec<_> = scene.server.at(PORT).collect();
    for (index, address) in servers.into_iter().enumerate() {
        let member = scene.member("client", &format!("server#transparent#{address}"));
        scene
            .reach(member.node, address, &Wire::Plain)
            .expect("a member is answered");
        let seen = scene.application.seen();
        let peer = seen.connections.last().expect("a connection");
        assert_eq!(peer.ip(), member.addresses[index], "{seen:?}");
        // A port that no entry names leaves the pod as it is, and is refused.
        let error = scene.reach(member.node, (address.ip(), PORT + 1).into(), &Wire::Plain);
        error.expect_err("it was answered");
    }
}
