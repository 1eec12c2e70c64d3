use super::*;

fn explicit(pod: Option<&str>) -> Surroundings {
    let pod = pod.map(|pod| pod.parse().expect("address"));
    Surroundings {
        mode: Mode::Explicit {
            pod,
            application: Ipv4Addr::LOCALHOST.into(),
        },
        namespace: None,
        ports: vec![],
        admin: None,
        metrics: None,
        dns_resolver: None,
        connection_log: true,
    }
}

fn on_pod() -> Surroundings {
    explicit(Some("10.0.0.7"))
}

fn transparent() -> Surroundings {
    Surroundings {
        mode: Mode::Transparent { ipv6: true },
        namespace: Some("votes".into()),
        ..on_pod()
    }
}

fn mesh(
    ingress: &str,
    egress: &str,
    surroundings: &Surroundings,
) -> Result<Mesh, Vec<Contradiction>> {
    let (ingress, egress) = (
        ingress.parse().expect("ingress"),
        egress.parse().expect("egress"),
    );
    Mesh::new(&ingress, &egress, surroundings).map_err(|error| error.contradictions)
}

fn shown(found: Result<Mesh, Vec<Contradiction>>) -> Vec<String> {
    let found = found.expect_err("contradictions");
    found.iter().map(ToString::to_string).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

const MUTUAL: Protection = Protection::MutualTls { allow: vec![] };

#[test]
fn declared_port_demands_a_client_certificate_unless_an_entry_names_it() {
    let surroundings = Surroundings {
        ports: vec![8080, 8081, 8081],
        ..on_pod()
    };
    let found = mesh("web#8080#false##health#8082#true", "", &surroundings).expect("mesh");
    let found: Vec<_> = found
        .ingress()
        .iter()
        .map(|port| (port.port, port.protection.clone()))
        .collect();
    assert_eq!(
        found,
        [
            (8080, Protection::Tls),
            (8082, Protection::Plain),
            (8081, MUTUAL)
        ]
    );
    let none = mesh("DISABLED", "", &surroundings).expect("mesh");
    assert!(none.ingress().is_empty() && !none.needs_certificates());
}

#[test]
fn transparent_mode_serves_every_port_and_tells_the_kernel_of_the_exceptions() {
    let surroundings = Surroundings {
        ports: vec![9999],
        metrics: Some(9102),
        ..transparent()
    };
    let mesh = mesh(
        "web#8080#false##health#8081#true##dns#53#true#udp##api#8082#false#allow=web",
        "a#transparent#a:80##b#127.0.0.9:81#b:81##c#transparent#c:90",
        &surroundings,
    )
    .expect("mesh");
    assert!(mesh.serves_other_ports() && mesh.needs_certificates());
    let redirection = mesh.redirection().expect("transparent");
    let ingress = redirection.ingress.expect("a server");
    assert_eq!(ingress.tls, BTreeSet::from([8080]));
    assert_eq!(ingress.plain, BTreeSet::from([8081, 9102]));
    assert_eq!(ingress.udp, BTreeSet::from([53]));
    let captures = redirection.egress.iter();
    let captures: Vec<_> = captures
        .map(|capture| (capture.port, capture.listener))
        .collect();
    assert_eq!(captures, [(80, 15100), (90, 15101)]);
    assert_eq!(
        mesh.egress()[2].listens,
        [address("127.0.0.1:15101"), address("[::1]:15101")]
    );
    let Protection::MutualTls { allow } = &mesh.ingress()[2].protection else {
        panic!("the allow list demands a certificate")
    };
    assert_eq!(allow[0].spiffe_regex(), "spiffe://[^/]+/ns/votes/[^/]+/web");
}

#[test]
fn disabled_ingress_lets_nothing_in() {
    let disabled = mesh("DISABLED", "", &transparent()).expect("mesh");
    assert_eq!(disabled.redirection().expect("transparent").ingress, None);
    assert!(!disabled.serves_other_ports());
    let with_metrics = Surroundings {
        metrics: Some(9102),
        ..transparent()
    };
    let disabled = mesh("DISABLED", "", &with_metrics).expect("mesh");
    let ingress = disabled.redirection().expect("transparent").ingress;
    assert_eq!(ingress.expect("metrics").plain, BTreeSet::from([9102]));
}

#[test]
fn refuses_in_explicit_mode_what_needs_redirection() {
    let found = shown(mesh(
        "a#1#false#pod-address",
        "b#transparent#b:80",
        &on_pod(),
    ));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("egress b needs redirection"),
        "{found:?}"
    );
    assert!(found[1].contains("`pod-address` of ingress a"), "{found:?}");
}

#[test]
fn refuses_ports_of_the_mesh_itself_and_workloads_without_namespace() {
    let surroundings = Surroundings {
        namespace: None,
        admin: Some(address("127.0.0.1:15007")),
        ..transparent()
    };
    let found = shown(mesh(
        "a#15006#false##b#1#false#allow=web",
        "c#transparent#c:80##d#127.0.0.1:15100#d:1",
        &surroundings,
    ));
    assert_eq!(
        found,
        [
            "the workload `web` is named without a namespace, and the pod's own is not known; set CONTRAST_NAMESPACE, or write namespace/web",
            "ingress a has port 15006, which the service mesh uses itself (15006, 15007, 15100 to 15100); choose another",
            "the admin interface has port 15007, which the service mesh uses itself (15006, 15007, 15100 to 15100); choose another",
            "egress d has port 15100, which the service mesh uses itself (15006, 15007, 15100 to 15100); choose another",
        ]
    );
    let many: Vec<_> = (1..=1001)
        .map(|n| format!("e{n}#transparent#x:{n}"))
        .collect();
    let found = mesh("", &many.join("##"), &transparent()).expect_err("too many");
    assert!(matches!(
        found.as_slice(),
        [Contradiction::TransparentEntries {
            found: 1001,
            max: 1000
        }]
    ));
}

#[test]
fn as_many_entries_as_fit_are_checked_at_once() {
    let ingress: Vec<_> = (1..=6_000).map(|n| format!("i{n}#{n}#false")).collect();
    let egress: Vec<_> = (1..=4_000)
        .map(|n| format!("e{n}#127.1.{}.{}:80#x:80", n / 250, n % 250 + 1))
        .collect();
    let mesh = mesh(&ingress.join("##"), &egress.join("##"), &transparent()).expect("mesh");
    assert_eq!((mesh.ingress().len(), mesh.egress().len()), (6_000, 4_000));
}

#[test]
fn certificates_are_not_awaited_when_nothing_needs_them() {
    for ingress in ["", "DISABLED"] {
        let mesh = mesh(ingress, "", &explicit(None)).expect("mesh");
        assert!(mesh.ingress().is_empty() && !mesh.needs_certificates());
    }
    let plain = mesh("health#8081#true", "", &on_pod()).expect("mesh");
    assert!(!plain.needs_certificates());
}

#[test]
fn refuses_ingress_without_a_usable_pod_address() {
    let with_pod = |pod: Option<&str>| mesh("web#8080#false", "", &explicit(pod));
    assert_eq!(with_pod(None), Err(vec![Contradiction::NoPodAddress]));
    for pod in ["0.0.0.0", "::", "224.0.0.1", "127.0.0.1"] {
        let found = pod.parse().expect("address");
        assert_eq!(
            with_pod(Some(pod)),
            Err(vec![Contradiction::PodAddress(found)])
        );
    }
}

#[test]
fn refuses_an_application_address_that_others_can_reach() {
    let application = "10.0.0.7".parse().expect("address");
    let surroundings = Surroundings {
        mode: Mode::Explicit {
            pod: None,
            application,
        },
        ..on_pod()
    };
    let expected = vec![Contradiction::ApplicationAddress(application)];
    assert_eq!(mesh("", "", &surroundings), Err(expected));
}

#[test]
fn refuses_ingress_that_would_leave_through_egress() {
    let found = mesh("web#8080#false", "api#127.0.0.1:8080#api:80", &on_pod());
    let found = found.expect_err("a loop");
    assert!(
        matches!(found.as_slice(), [Contradiction::Loop { .. }]),
        "{found:?}"
    );
}

#[test]
fn refuses_listeners_in_one_place_and_names_each_pair() {
    let surroundings = Surroundings {
        admin: Some(address("0.0.0.0:8080")),
        ..on_pod()
    };
    let lines = shown(mesh(
        "web#8080#false",
        "api#127.0.0.9:8080#api:80",
        &surroundings,
    ));
    assert_eq!(
        lines,
        [
            "ingress web (10.0.0.7:8080) and the admin interface (0.0.0.0:8080) listen on the same place; change one of the ports or addresses",
            "egress api (127.0.0.9:8080) and the admin interface (0.0.0.0:8080) listen on the same place; change one of the ports or addresses",
        ]
    );
}

#[test]
fn tells_which_ingress_entry_exposes_the_admin_interface() {
    let surroundings = Surroundings {
        admin: Some(address("127.0.0.1:9901")),
        ..on_pod()
    };
    let mesh = mesh("web#8080#false##admin#9901#false", "", &surroundings).expect("mesh");
    let exposed: Vec<_> = mesh
        .exposed_admin()
        .map(|port| port.name.as_str())
        .collect();
    assert_eq!(exposed, ["admin"]);
}

#[test]
fn nothing_listens_where_the_application_is_reached() {
    let found = mesh(
        "",
        "api#127.0.0.6:9000#api:9443##db#127.0.0.7:5432#db:5432",
        &transparent(),
    );
    let shown = shown(found);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(
        shown[0].starts_with("egress api listens on 127.0.0.6:9000"),
        "{shown:?}"
    );
    let admin = Surroundings {
        admin: Some(address("127.0.0.6:9901")),
        ..transparent()
    };
    assert!(mesh("", "", &admin).is_err());
    // Without redirection nothing leads there.
    assert!(mesh("", "api#127.0.0.6:9000#api:9443", &on_pod()).is_ok());
}

#[test]
fn metrics_do_not_open_the_port_of_an_entry() {
    let with_metrics = Surroundings {
        metrics: Some(9102),
        ..transparent()
    };
    let found = mesh("web#9102#false#allow=api", "", &with_metrics).expect_err("one port");
    assert!(
        matches!(found.as_slice(), [Contradiction::Overlap { .. }]),
        "{found:?}"
    );
    assert!(mesh("web#9103#false#allow=api", "", &with_metrics).is_ok());
}
