//! `contrast lint` on what `contrast generate` injects: silent about that, and about nothing else.

use std::fs;

use crate::{
    generate::APPLICATION,
    generate_injection::{DATABASE, Generated, OWN, generated, with_coordinator},
    lint::{findings, lines},
};

/// Code and container of each finding.
fn found(yaml: &str) -> Vec<String> {
    let found = findings(yaml);
    let shown = found.iter().map(|finding| match &finding.container {
        Some(container) => format!("{} {container}", finding.code),
        None => finding.code.to_owned(),
    });
    shown.collect()
}

fn written(generated: &Generated) -> String {
    fs::read_to_string(generated.context.path("application.yml")).expect("reads")
}

fn changed(text: &str, from: &str, to: &str) -> String {
    let new = text.replacen(from, to, 1);
    assert_ne!(new, text, "there is no {from}");
    new
}

const PRIVILEGED: &str =
    "command: [/db]\n          securityContext: {privileged: true, runAsUser: 0}";

#[test]
fn privileges_of_injected_containers_are_no_finding_and_those_of_others_are() {
    let store = ["--inject-image-store"];
    let ordinary =
        "      securityContext: {runAsUser: 1000, runAsNonRoot: true}\n      containers:";
    let escalation = "command: [/db]\n          securityContext: {allowPrivilegeEscalation: false}";
    let mesh = "secure-pv: data:state\n        contrast.edgeless.systems/servicemesh-ingress: \"\"";
    let database = changed(DATABASE, "      containers:", ordinary);
    let database = changed(&database, "secure-pv: data:state", mesh);
    let database = changed(&database, "command: [/db]", escalation);
    let clean = with_coordinator(&database);
    assert_eq!(lines(&findings(&clean)), [""; 0]);
    let output = written(&generated(&clean, &store, true));
    for injected in [
        "contrast-initializer",
        "contrast-service-mesh",
        "pvc-holder",
    ] {
        assert!(output.contains(&format!("name: {injected}")), "{output}");
    }
    assert_eq!(lines(&findings(&output)), [""; 0]);

    let own = with_coordinator(&changed(DATABASE, "command: [/db]", PRIVILEGED));
    assert_eq!(found(&own), ["C014 db"]);
    let own = generated(&own, &store, false);
    assert_eq!(own.said.matches("C014").count(), 1, "{}", own.said);
    assert_eq!(found(&written(&own)), ["C014 db"]);
}

/// The name of a container of ours gives no privileges to another one.
#[test]
fn container_that_only_has_the_name_of_an_injected_one_is_checked() {
    assert!(found(&with_coordinator(OWN)).contains(&"C014 contrast-service-mesh".to_owned()));
    let output = written(&generated(&with_coordinator(DATABASE), &[], true));
    assert_eq!(found(&output), [""; 0]);
    for (from, to) in [
        ("/bin/initializer", "/bin/sh"),
        ("secure-pv: data:state", "secure-pv: other:state"),
        (
            "- name: \"contrast-initializer\"",
            "- name: \"contrast-initialiser\"",
        ),
    ] {
        let from = match output.contains(from) {
            true => from.to_owned(),
            false => from.replace('"', ""),
        };
        let other = changed(&output, &from, to);
        let found = found(&other);
        assert!(
            found
                .iter()
                .any(|finding| finding.starts_with("C014 contrast-initiali")),
            "{to}: {found:?}"
        );
    }
}

#[test]
fn volumes_that_are_injected_are_known_and_others_are_not() {
    let database = with_coordinator(DATABASE);
    assert_eq!(found(&database), [""; 0]);
    let other = changed(&database, "data:state", "data:other");
    assert_eq!(found(&other), ["C016 db"]);
    // Without the Initializer nobody makes it.
    let skips = "data:state\n        contrast.edgeless.systems/skip-initializer: \"true\"";
    assert_eq!(found(&changed(&database, "data:state", skips)), ["C016 db"]);

    let secrets = "{name: state, mountPath: /a, mountPropagation: HostToContainer}\n            - {name: contrast-secrets, mountPath";
    let secrets = changed(&database, "{name: state, mountPath", secrets);
    assert_eq!(found(&secrets), [""; 0]);
    let plain = changed(
        &secrets,
        "secure-pv: data:state",
        "skip-initializer: \"true\"",
    );
    assert_eq!(found(&plain), ["C016 db", "C016 db"]);
}

#[test]
fn role_may_be_a_label_of_the_pod_template() {
    let label = "      labels:\n        contrast.edgeless.systems/pod-role";
    let from = "      annotations:\n        contrast.edgeless.systems/pod-role";
    let labelled = changed(APPLICATION, from, label);
    assert_eq!(found(&labelled), [""; 0]);
    assert_eq!(
        found(&changed(
            &labelled,
            "pod-role: coordinator",
            "pod-role: worker"
        )),
        ["C051", "C022"]
    );
    let other = changed(
        &labelled,
        "pod-role: coordinator",
        "skip-initializer: \"true\"",
    );
    assert_eq!(found(&other), ["C051", "C023"]);

    let (coordinator, _) = labelled.split_once("---\n").expect("two objects");
    let second = changed(coordinator, "name: coordinator", "name: second");
    let both = findings(&format!("{coordinator}---\n{second}"));
    let [twice] = both.as_slice() else {
        panic!("{both:#?}");
    };
    let line = coordinator.lines().count() + 1;
    let inside = coordinator
        .lines()
        .position(|line| line.contains("pod-role"))
        .expect("a role");
    assert_eq!((twice.code, twice.line), ("C052", line + inside + 1));
}

#[test]
fn annotations_that_coordinators_have_no_use_for_are_found() {
    for name in [
        "secure-pv: data:state",
        "servicemesh-ingress: \"\"",
        "skip-initializer: \"true\"",
    ] {
        let annotations =
            format!("pod-role: coordinator\n        contrast.edgeless.systems/{name}");
        let yaml = changed(APPLICATION, "pod-role: coordinator", &annotations);
        assert_eq!(found(&yaml), ["C023"], "{name}");
    }
    let store = "pod-role: coordinator\n        contrast.edgeless.systems/image-store-size: 5Gi";
    assert_eq!(
        found(&changed(APPLICATION, "pod-role: coordinator", store)),
        [""; 0]
    );
}
