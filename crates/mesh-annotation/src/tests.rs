use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

fn ingress(text: &str) -> Ingress {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn egress(text: &str) -> Vec<EgressEntry> {
    text.parse::<Egress>()
        .unwrap_or_else(|error| panic!("{error}"))
        .0
}

fn reasons<T: FromStr<Err = AnnotationError> + fmt::Debug>(text: &str) -> Vec<Reason> {
    let error = text.parse::<T>().expect_err(text);
    error
        .problems
        .into_iter()
        .map(|problem| problem.reason)
        .collect()
}

fn tcp(tls: bool) -> IngressService {
    IngressService::Tcp {
        tls,
        allow: vec![],
        protocol: Protocol::Tcp,
        pod_address: false,
    }
}

fn workload(text: &str) -> Workload {
    text.parse().unwrap_or_else(|reason| panic!("{reason}"))
}

#[test]
fn reads_ingress_entries_in_order() {
    let Ingress::Ports(entries) = ingress("web#8080#false##admin#9901#True") else {
        panic!("ports expected")
    };
    let read: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.port, &entry.service))
        .collect();
    assert_eq!(
        read,
        [("web", 8080, &tcp(true)), ("admin", 9901, &tcp(false))]
    );
}

#[test]
fn reads_options_of_ingress_entries() {
    let text = "api#1#false#protocol=grpc#allow=web,shop/cart,shop/deployment/pay.v2#pod-address##dns#53#true##dns-udp#53#1#udp";
    let Ingress::Ports(entries) = ingress(text) else {
        panic!("ports expected")
    };
    assert_eq!(
        entries[0].service,
        IngressService::Tcp {
            tls: true,
            allow: vec![
                workload("web"),
                workload("shop/cart"),
                workload("shop/deployment/pay.v2"),
            ],
            protocol: Protocol::Grpc,
            pod_address: true,
        }
    );
    assert_eq!(entries[2].service, IngressService::Udp);
    let last = workload("shop/deployment/pay.v2");
    assert_eq!(
        (last.namespace.as_deref(), last.kind.as_deref(), &*last.name),
        (Some("shop"), Some("deployment"), "pay.v2")
    );
}

#[test]
fn reads_egress_entries_with_name_and_addresses() {
    let entries = egress(
        "api#127.137.0.1:8081#Api.default.svc.:80##v4#127.0.0.1:1#10.0.0.3:2##v6#[::1]:1#[fd00::1]:3",
    );
    assert_eq!(
        entries[0].listen,
        Listen::Address("127.137.0.1:8081".parse().expect("address"))
    );
    assert_eq!(
        entries[0].remote,
        Remote {
            host: Host::Dns("api.default.svc".into()),
            port: 80
        }
    );
    assert_eq!(
        entries[1].remote.host,
        Host::Ip("10.0.0.3".parse().expect("address"))
    );
    assert_eq!(
        entries[2].remote.host,
        Host::Ip("fd00::1".parse().expect("address"))
    );
    assert_eq!(
        entries[2].listen,
        Listen::Address("[::1]:1".parse().expect("address"))
    );
}

#[test]
fn reads_options_of_egress_entries() {
    let entries = egress(
        "a#transparent#a:80##b#transparent#b:81#identity=any##c#127.0.0.1:1#c:80#protocol=http2#identity=c,x/c",
    );
    assert_eq!(entries[0].listen, Listen::Transparent);
    assert_eq!(entries[0].identity, Identity::Target);
    assert_eq!(entries[1].identity, Identity::AnyMember);
    assert_eq!(
        entries[2].identity,
        Identity::Workloads(vec![workload("c"), workload("x/c")])
    );
    assert_eq!(entries[2].protocol, Protocol::Http2);
}

#[test]
fn empty_and_disabled_values_differ() {
    assert_eq!(ingress(""), Ingress::Ports(vec![]));
    assert_eq!(ingress(" DISABLED\n"), Ingress::Disabled);
    assert_eq!(egress(""), []);
}

#[test]
fn empty_entries_and_white_space_around_entries_are_ignored() {
    assert_eq!(
        ingress("## web#8080#false ##\n## b#1#0##"),
        ingress("web#8080#false##b#1#false")
    );
}

#[test]
fn every_problem_is_shown_in_its_entry_with_a_mark_under_the_character() {
    let error = "web#0#maybe##api#127.0.0.1:80##b#80#0#allow=x,Y"
        .parse::<Ingress>()
        .expect_err("invalid");
    assert_eq!(
        error.to_string(),
        r#"servicemesh-ingress is not valid:
  expected a port from 1 to 65535, found "0"
    web#0#maybe
        ^
  expected `true` or `false` for disabling TLS, found "maybe"
    web#0#maybe
          ^
  expected at least three fields separated by `#`, found 2
    api#127.0.0.1:80
                    ^
  expected a workload as name, namespace/name or namespace/kind/name in lower case, found "Y"
    b#80#0#allow=x,Y
                   ^"#
    );
}

#[test]
fn the_mark_stands_under_the_character_in_long_and_hostile_entries() {
    let long = format!("{}#80#0", "n".repeat(100));
    let error = long.parse::<Ingress>().expect_err("long name");
    assert_eq!(
        error.problems[0].pointed(2),
        format!(
            "  ...{}{}#80...\n{}^",
            "n".repeat(40),
            "n".repeat(37),
            " ".repeat(45)
        )
    );
    assert_eq!(error.problems[0].character(), 64);
    let error = "ä\r\u{1b}[2J#80#0".parse::<Ingress>().expect_err("name");
    assert_eq!(error.problems[0].pointed(0), "\\u{e4}\\r\\u{1b}[2J#80#0\n^");
    let error = "a#80#0#ä=x#\u{7}".parse::<Ingress>().expect_err("options");
    assert_eq!(
        error.problems[1].pointed(0),
        "a#80#0#\\u{e4}=x#\\u{7}\n                ^"
    );
    assert_eq!(error.problems[1].character(), 12);
}

#[test]
fn thousands_of_wrong_entries_give_a_short_message_and_as_many_right_ones_are_read() {
    let wrong = vec!["a#b#c"; 10_000].join("##");
    let error = wrong.parse::<Ingress>().expect_err("wrong");
    assert!(error.problems.len() >= 20_000);
    let text = error.to_string();
    assert!(text.len() < 5_000, "{} bytes", text.len());
    assert!(text.ends_with("more problems"), "{text}");
    let right: Vec<_> = (1..=6_000_u32).map(|n| format!("e{n}#{n}#false")).collect();
    let Ingress::Ports(entries) = ingress(&right.join("##")) else {
        panic!("ports expected")
    };
    assert_eq!(entries.len(), 6_000);
}

#[test]
fn refuses_ports_that_are_not_1_to_65535() {
    for port in ["0", "65536", "65616", "+80", "-1", " 80", "0x50", "8o", ""] {
        let text = format!("web#{port}#false");
        let text = text.replace("##", "# #");
        let port = if port.is_empty() { " " } else { port };
        assert_eq!(
            reasons::<Ingress>(&text),
            [Reason::Port { found: port.into() }],
            "{text}"
        );
    }
}

#[test]
fn refuses_listen_addresses_outside_loopback() {
    for listen in [
        "0.0.0.0:80",
        "10.0.0.1:80",
        "128.0.0.1:80",
        "localhost:80",
        "127.0.0.1",
        "[::2]:80",
        "::1:80",
        "[::ffff:127.0.0.1]:80",
        "127.1:80",
        "Transparent",
    ] {
        let text = format!("api#{listen}#api:80");
        assert_eq!(
            reasons::<Egress>(&text),
            [Reason::ListenAddress {
                found: listen.into()
            }],
            "{text}"
        );
    }
    let error = "api#127.0.0.1:808080#api:80"
        .parse::<Egress>()
        .expect_err("port");
    assert_eq!(error.problems[0].at, "api#127.0.0.1:".len());
}

#[test]
fn refuses_remotes_that_no_resolver_could_mean() {
    for (host, at) in [
        ("", 0),
        ("-api", 0),
        ("x.api-", 2),
        ("a..b", 2),
        ("10.0.0.300", 0),
        ("1234", 0),
        ("a b", 1),
        ("ä", 0),
        ("fd00::1", 4),
        ("[10.0.0.1]", 0),
        (&"a".repeat(64), 0),
    ] {
        let text = format!("api#127.0.0.1:80#{host}:80");
        let error = text.parse::<Egress>().expect_err(&text);
        assert_eq!(error.problems.len(), 1, "{text}");
        let problem = &error.problems[0];
        assert_eq!(problem.reason, Reason::Host { found: host.into() });
        assert_eq!(problem.at, "api#127.0.0.1:80#".len() + at, "{text}");
    }
    assert_eq!(
        reasons::<Egress>("api#127.0.0.1:80#api"),
        [Reason::Remote {
            found: "api".into()
        }]
    );
}

#[test]
fn refuses_repeated_and_reserved_names_and_repeated_listeners() {
    assert_eq!(
        reasons::<Ingress>("a#1#0##a#2#0"),
        [Reason::RepeatedName { found: "a".into() }]
    );
    assert_eq!(
        reasons::<Ingress>("a#1#0##b#1#1##c#1#1#udp##d#1#1#udp"),
        ["TCP port 1", "UDP port 1"].map(|found| Reason::RepeatedListen {
            found: found.into()
        })
    );
    assert_eq!(
        reasons::<Egress>("a#127.0.0.1:1#x:1##b#127.0.0.1:1#y:1"),
        [Reason::RepeatedListen {
            found: "127.0.0.1:1".into()
        }]
    );
    assert_eq!(
        reasons::<Egress>("a#transparent#x:80##b#transparent#y:80##c#transparent#y:81"),
        [Reason::RepeatedTransparent { found: 80 }]
    );
    assert_eq!(
        reasons::<Egress>("a#transparent#x:7777##b#127.137.0.1:7777#y:7777"),
        [Reason::TransparentMeshApi]
    );
    for name in RESERVED_NAMES {
        let text = format!("{name}#127.0.0.1:1#x:1");
        assert_eq!(
            reasons::<Egress>(&text),
            [Reason::ReservedName { found: name.into() }]
        );
    }
    for name in [" ", "a/b", "a b", "ä", &"n".repeat(64)] {
        let text = format!("x#2#0##{name}#1#0");
        let found = name.trim_start().to_owned();
        assert_eq!(reasons::<Ingress>(&text), [Reason::Name { found }]);
    }
}

#[test]
fn refuses_options_that_do_not_fit() {
    let option = |text: &str| reasons::<Ingress>(text);
    for (text, found) in [
        ("a#1#0#alow=x", "alow=x"),
        ("a#1#0#allow", "allow"),
        ("a#1#0#udp=1", "udp=1"),
        ("a#1#0#", ""),
        ("a#1#0#identity=x", "identity=x"),
    ] {
        let reasons = option(text);
        assert!(
            matches!(reasons.as_slice(), [Reason::Option { found: is, .. }] if is == found),
            "{text}: {reasons:?}"
        );
    }
    let found = |text: &str| text.to_owned();
    assert_eq!(
        option("a#1#1#allow=x#protocol=http1#pod-address"),
        ["allow", "protocol", "pod-address"].map(|name| Reason::NeedsTls { found: found(name) })
    );
    assert_eq!(option("a#1#0#udp"), [Reason::UdpWithTls]);
    assert_eq!(
        option("a#1#1#udp#allow=x"),
        [Reason::UdpWithOption {
            found: found("allow")
        }]
    );
    assert_eq!(
        option("a#1#0#allow=x#allow=y"),
        [Reason::RepeatedOption {
            found: found("allow")
        }]
    );
    assert_eq!(
        option("a#1#0#protocol=http"),
        [Reason::Protocol {
            found: found("http")
        }]
    );
    for workload in [
        "", "x,", "X", "a/b/c/d", "/a", "a/", "a/B/c", "a b", "-a", "a/de-p/x", "*",
    ] {
        let text = format!("a#1#0#allow={workload}");
        let reasons = option(&text);
        assert!(
            matches!(reasons.as_slice(), [Reason::Workload { .. }]),
            "{text}: {reasons:?}"
        );
    }
    assert!(matches!(
        reasons::<Egress>("a#transparent#x:80#allow=x").as_slice(),
        [Reason::Option { .. }]
    ));
}

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9._-]{1,63}".prop_filter_map("reserved", |text| text.parse().ok())
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z][a-z0-9]{0,9}){0,3}".prop_map(Host::Dns),
        any::<Ipv4Addr>().prop_map(|ip| Host::Ip(ip.into())),
        any::<Ipv6Addr>().prop_map(|ip| Host::Ip(ip.into())),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(Protocol::ALL.to_vec())
}

fn workloads(min: usize) -> impl Strategy<Value = Vec<Workload>> {
    let label = "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?";
    let place = option::of((label, option::of("[a-z0-9]{1,12}")));
    let workload = (place, label).prop_map(|(place, name)| {
        let (namespace, kind) = place.map_or((None, None), |(ns, kind)| (Some(ns), kind));
        // `any` alone is a word of the grammar.
        let name = if name == "any" {
            "some".to_owned()
        } else {
            name
        };
        Workload {
            namespace,
            kind,
            name,
        }
    });
    vec(workload, min..4)
}

fn service() -> impl Strategy<Value = IngressService> {
    let with_tls =
        (workloads(0), protocol(), any::<bool>()).prop_map(|(allow, protocol, pod_address)| {
            IngressService::Tcp {
                tls: true,
                allow,
                protocol,
                pod_address,
            }
        });
    prop_oneof![with_tls, Just(tcp(false)), Just(IngressService::Udp)]
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        Just(Identity::Target),
        Just(Identity::AnyMember),
        workloads(1).prop_map(Identity::Workloads)
    ]
}

fn listen() -> impl Strategy<Value = Listen> {
    let address = |ip: IpAddr, port| Listen::Address(SocketAddr::new(ip, port));
    prop_oneof![
        (any::<[u8; 3]>(), 1..=u16::MAX)
            .prop_map(move |([b, c, d], port)| address([127, b, c, d].into(), port)),
        (1..=u16::MAX).prop_map(move |port| address(Ipv6Addr::LOCALHOST.into(), port)),
        Just(Listen::Transparent),
    ]
}

fn unique_by<T, K: Ord>(entries: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    entries
        .into_iter()
        .filter(|entry| seen.insert(key(entry)))
        .collect()
}

#[test]
fn value_that_no_environment_holds_is_refused_at_the_first_entry_beyond() {
    let entry = |n: usize| format!("e{n:04}#127.1.{}.{}#a:1", n / 250, n % 250);
    let entries: Vec<_> = (0..8000).map(entry).collect();
    let text = entries.join(ENTRY_SEPARATOR);
    let error = text.parse::<Egress>().expect_err("refused");
    let [problem] = &error.problems[..] else {
        panic!("one problem expected, found {}", error.problems.len())
    };
    let found = text.len();
    assert_eq!(problem.reason, Reason::TooLong { found });
    let start = text.find(&problem.entry).expect("an entry of the value");
    assert!(
        start <= MAX_LENGTH && start + problem.entry.len() > MAX_LENGTH - ENTRY_SEPARATOR.len()
    );
    assert!(entries.contains(&problem.entry), "{}", problem.entry);

    let longest = " ".repeat(MAX_LENGTH);
    assert_eq!(egress(&longest), []);
    let found = MAX_LENGTH + 1;
    let longer = reasons::<Ingress>(&format!("{longest} "));
    assert_eq!(longer, [Reason::TooLong { found }]);
}

#[test]
fn transparent_entry_for_the_mesh_api_is_pointed_at_its_port_and_told_the_alias() {
    let text = "x#transparent#coordinator:7777#identity=any";
    let error = text.parse::<Egress>().expect_err("refused");
    let shown = error.to_string();
    assert!(shown.contains("like 127.137.0.1:7777"), "{shown}");
    let mark = format!("    {text}\n    {:>27}", "^");
    assert!(shown.ends_with(&mark), "{shown}");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in any::<String>(), separators in "[a-z0-9#:.,=/ä\\[\\]]{0,60}") {
        for text in [text, separators] {
            let errors = [text.parse::<Ingress>().err(), text.parse::<Egress>().err()];
            for error in errors.into_iter().flatten() {
                prop_assert!(error.problems.iter().all(|problem| problem.entry.is_char_boundary(problem.at)), "{error:?}");
                let _ = error.to_string();
            }
        }
    }

    #[test]
    fn printed_ingress_parses_to_itself(
        entries in vec((name(), 1..=u16::MAX, service()), 0..6)
    ) {
        let entries = unique_by(unique_by(entries, |entry| entry.0.clone()), |entry| entry.1);
        let ingress = Ingress::Ports(
            entries
                .into_iter()
                .map(|(name, port, service)| IngressEntry { name, port, service })
                .collect(),
        );
        prop_assert_eq!(ingress.to_string().parse::<Ingress>(), Ok(ingress));
    }

    #[test]
    fn printed_egress_parses_to_itself(
        entries in vec((name(), listen(), host(), 1..=u16::MAX, identity(), protocol()), 0..6)
    ) {
        let entries = entries.into_iter().map(|(name, listen, host, port, identity, protocol)| EgressEntry {
            name,
            listen,
            remote: Remote { host, port },
            identity,
            protocol,
        });
        let entries = entries.filter(|entry| entry.listen != Listen::Transparent || entry.remote.port != MESH_API_PORT);
        let entries = unique_by(entries.collect(), |entry| entry.name.clone());
        let egress = Egress(unique_by(entries, |entry| match entry.listen {
            Listen::Address(address) => (address.to_string(), 0),
            Listen::Transparent => (String::new(), entry.remote.port),
        }));
        prop_assert_eq!(egress.to_string().parse::<Egress>(), Ok(egress));
    }

    #[test]
    fn accepted_values_print_to_an_equal_value(
        fields in vec(select(vec!["a", "b", "#", "##", "80", "127.0.0.1:80", "api:80", "true", "0", " ", "udp", "allow=a", "transparent", "identity=any"]), 0..12)
    ) {
        let text = fields.concat();
        if let Ok(ingress) = text.parse::<Ingress>() {
            prop_assert_eq!(ingress.to_string().parse::<Ingress>(), Ok(ingress));
        }
        if let Ok(egress) = text.parse::<Egress>() {
            prop_assert_eq!(egress.to_string().parse::<Egress>(), Ok(egress));
        }
    }
}
