//! Who answers, and who may ask, is a matter of identity, not only of membership.

use contrast_e2e::harness::mesh::{Application, Wire};

use crate::scene::{PORT, Scene, alias};

#[test]
fn egress_refuses_a_member_that_is_somebody_else() {
    let Some(mut scene) = Scene::begin("impostor", "") else {
        return;
    };
    // A genuine member of the mesh, whose certificate carries neither the server's name nor its addresses, at an address to which the
    // host leads the client's connections.
    let environment = [("CONTRAST_NAMESPACE", "test".to_owned())];
    let impostor = scene.bed.ready(&environment, |_| {
        scene
            .generation
            .issue("test/deployment/impostor", &["impostor".to_owned()])
    });
    let impostor = impostor.expect("the impostor's sidecar is ready");
    let at_impostor =
        Application::start(scene.bed.network(), impostor.node, PORT).expect("application");

    let remote = impostor.addresses[0];
    let refusing = [
        ("name", format!("a#127.137.0.1:{PORT}#{remote}:{PORT}")),
        (
            "workload",
            format!(
                "a#127.137.0.1:{PORT}#{remote}:{PORT}#identity=deployment-of-others/server,test/deployment/server"
            ),
        ),
    ];
    for (rule, egress) in refusing {
        let member = scene.member("client", &egress);
        scene
            .reach(member.node, alias(0, PORT), &Wire::Plain)
            .expect_err(rule);
    }
    let seen = at_impostor.seen();
    assert!(seen.connections.is_empty(), "{seen:?}");

    // The same target is fine for those who say that any member will do, or name that workload.
    for identity in [
        "any",
        "impostor",
        "test/impostor",
        "test/deployment/impostor",
    ] {
        let egress = format!("a#127.137.0.1:{PORT}#{remote}:{PORT}#identity={identity}");
        let member = scene.member("client", &egress);
        scene
            .reach(member.node, alias(0, PORT), &Wire::Plain)
            .expect(identity);
    }
}

#[test]
fn ingress_serves_the_workloads_that_it_allows() {
    let ingress = format!("app#{PORT}#false#allow=friend,other/statefulset/store");
    let Some(mut scene) = Scene::begin("allow", &ingress) else {
        return;
    };
    let addresses: Vec<_> = scene.server.at(PORT).collect();
    let client = |scene: &Scene, workload: &str| {
        let identity = scene.generation.issue(workload, &["client".to_owned()]);
        let config = identity.and_then(|identity| identity.client());
        Wire::Tls(config.expect("client"), crate::scene::SERVER)
    };
    for address in &addresses {
        for refused in [
            "test/deployment/foe",
            "other/deployment/friend",
            "other/deployment/store",
            "test/deployment/friendly",
            "test/deployment/not.friend",
        ] {
            let wire = client(&scene, refused);
            scene
                .reach(scene.stranger, *address, &wire)
                .expect_err(refused);
        }
    }
    let seen = scene.application.seen();
    assert!(seen.connections.is_empty(), "{seen:?}");
    for address in &addresses {
        for allowed in [
            "test/deployment/friend",
            "test/daemonset/friend",
            "other/statefulset/store",
        ] {
            let wire = client(&scene, allowed);
            scene.reach(scene.stranger, *address, &wire).expect(allowed);
        }
        scene
            .reach(scene.stranger, *address, &Wire::Plain)
            .expect_err("plain text was answered");
    }

    // Through the sidecars of both sides, too.
    let egress = scene.egress(PORT, "");
    for (name, allowed) in [("friend", true), ("foe", false)] {
        let member = scene.member(name, &egress);
        let outcome = scene.reach(member.node, alias(0, PORT), &Wire::Plain);
        assert_eq!(outcome.is_ok(), allowed, "{name}: {outcome:?}");
    }
}
