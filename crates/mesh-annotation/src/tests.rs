use proptest::{collection::vec, prelude::*, sample::select};

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

#[test]
fn reads_ingress_entries_in_order() {
    let Ingress::Ports(entries) = ingress("web#8080#false##admin#9901#True") else {
        panic!("ports expected")
    };
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (
            entries[0].name.as_str(),
            entries[0].port,
            entries[0].disable_tls
        ),
        ("web", 8080, false)
    );
    assert_eq!(
        (
            entries[1].name.as_str(),
            entries[1].port,
            entries[1].disable_tls
        ),
        ("admin", 9901, true)
    );
}

#[test]
fn reads_egress_entries_with_name_and_addresses() {
    let entries = egress(
        "api#127.137.0.1:8081#Api.default.svc.:80##v4#127.0.0.1:1#10.0.0.3:2##v6#127.0.0.2:1#[fd00::1]:3",
    );
    assert_eq!(
        entries[0].listen,
        "127.137.0.1:8081".parse().expect("address")
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
fn every_problem_is_reported_with_its_entry() {
    let error = "web#0#maybe##api#127.0.0.1:80"
        .parse::<Ingress>()
        .expect_err("invalid");
    assert_eq!(
        error.to_string(),
        "servicemesh-ingress is not valid:\n  \
         entry \"web#0#maybe\": expected a port from 1 to 65535, found \"0\"\n  \
         entry \"web#0#maybe\": expected `true` or `false` for disabling TLS, found \"maybe\"\n  \
         entry \"api#127.0.0.1:80\": expected three fields separated by `#`, found 2"
    );
}

#[test]
fn refuses_ports_that_are_not_1_to_65535() {
    for port in ["0", "65536", "65616", "+80", "-1", " 80", "0x50", "8o"] {
        let text = format!("web#{port}#false");
        assert_eq!(
            reasons::<Ingress>(&text),
            [Reason::Port { found: port.into() }],
            "{text}"
        );
    }
}

#[test]
fn refuses_listen_addresses_outside_the_loopback_network() {
    for listen in [
        "0.0.0.0:80",
        "10.0.0.1:80",
        "128.0.0.1:80",
        "localhost:80",
        "127.0.0.1",
        "[::1]:80",
        "127.1:80",
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
}

#[test]
fn refuses_remotes_that_no_resolver_could_mean() {
    for host in [
        "",
        "-api",
        "api-",
        "a..b",
        "10.0.0.300",
        "1234",
        "a b",
        "ä",
        "fd00::1",
        "[10.0.0.1]",
        &"a".repeat(64),
    ] {
        let text = format!("api#127.0.0.1:80#{host}:80");
        assert_eq!(
            reasons::<Egress>(&text),
            [Reason::Host { found: host.into() }],
            "{text}"
        );
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
        reasons::<Ingress>("a#1#0##b#1#1"),
        [Reason::RepeatedListen { found: "1".into() }]
    );
    assert_eq!(
        reasons::<Egress>("a#127.0.0.1:1#x:1##b#127.0.0.1:1#y:1"),
        [Reason::RepeatedListen {
            found: "127.0.0.1:1".into()
        }]
    );
    for name in RESERVED_NAMES {
        let text = format!("{name}#127.0.0.1:1#x:1");
        assert_eq!(
            reasons::<Egress>(&text),
            [Reason::ReservedName { found: name.into() }]
        );
    }
    for name in ["", "a/b", "a b", "ä", &"n".repeat(64)] {
        let text = format!("{name}#1#0");
        assert_eq!(
            reasons::<Ingress>(&text),
            [Reason::Name { found: name.into() }]
        );
    }
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

fn unique_by<T, K: Ord>(entries: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = BTreeSet::new();
    entries
        .into_iter()
        .filter(|entry| seen.insert(key(entry)))
        .collect()
}

proptest! {
    #[test]
    fn parsing_never_panics(text in any::<String>(), separators in "[a-z0-9#:.\\[\\]]{0,60}") {
        let _ = (text.parse::<Ingress>(), text.parse::<Egress>());
        let _ = (separators.parse::<Ingress>(), separators.parse::<Egress>());
    }

    #[test]
    fn printed_ingress_parses_to_itself(
        entries in vec((name(), 1..=u16::MAX, any::<bool>()), 0..6)
    ) {
        let entries = unique_by(unique_by(entries, |entry| entry.0.clone()), |entry| entry.1);
        let ingress = Ingress::Ports(
            entries
                .into_iter()
                .map(|(name, port, disable_tls)| IngressEntry { name, port, disable_tls })
                .collect(),
        );
        prop_assert_eq!(ingress.to_string().parse::<Ingress>(), Ok(ingress));
    }

    #[test]
    fn printed_egress_parses_to_itself(
        entries in vec((name(), any::<[u8; 3]>(), 1..=u16::MAX, host(), 1..=u16::MAX), 0..6)
    ) {
        let entries = entries.into_iter().map(|(name, [b, c, d], listen, host, port)| EgressEntry {
            name,
            listen: SocketAddrV4::new(Ipv4Addr::new(127, b, c, d), listen),
            remote: Remote { host, port },
        });
        let entries = unique_by(entries.collect(), |entry| entry.name.clone());
        let egress = Egress(unique_by(entries, |entry| entry.listen));
        prop_assert_eq!(egress.to_string().parse::<Egress>(), Ok(egress));
    }

    #[test]
    fn accepted_values_print_to_an_equal_value(
        fields in vec(select(vec!["a", "b", "#", "##", "80", "127.0.0.1:80", "api:80", "true", "0", " "]), 0..12)
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
