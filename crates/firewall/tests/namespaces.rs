//! The rules in network namespaces, made by every back end that works here.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

mod pod;

use std::{
    env, fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use contrast_firewall::{
    APPLICATION_V4, APPLICATION_V6, Backend, Capture, EGRESS_FIRST_PORT, Firewall,
    INGRESS_MTLS_PORT, INGRESS_TLS_PORT, Ingress, Present, ROUTE_TABLE, Redirection, present,
};
use nix::sys::socket::{setsockopt, sockopt::IpTransparent};
use pod::{
    Application, POD_V4, POD_V6, Pod, STRANGER_V4, STRANGER_V6, patiently, run, succeeded,
    tcp_is_served, udp_is_served,
};

const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const MESH_PORT: u16 = 8080;
const TLS_PORT: u16 = 8443;
const PLAIN_PORT: u16 = 9090;
const UDP_PORT: u16 = 5353;

fn redirection() -> Redirection {
    Redirection {
        ingress: Some(Ingress {
            tls: [TLS_PORT].into(),
            plain: [PLAIN_PORT].into(),
            udp: [UDP_PORT].into(),
        }),
        egress: vec![Capture {
            port: 443,
            listener: EGRESS_FIRST_PORT,
        }],
        ipv6: true,
    }
}

/// Calls `test` with each back end that works, and a pod of its own.
fn with_each_backend(test: impl Fn(&Pod, Backend, &Firewall)) {
    if !pod::possible() {
        return;
    }
    for backend in Backend::ALL {
        let pod = Pod::new();
        match pod.within(|| Firewall::probe_among(&[backend])) {
            Ok(firewall) => test(&pod, backend, &firewall),
            Err(error) => eprintln!("SKIPPED for {backend}: {error}"),
        }
    }
}

/// Everything that the firewall could have left in the pod, without counters.
fn rules(pod: &Pod) -> String {
    let mut found = String::new();
    pod.within(|| {
        for (program, arguments) in [
            // iptables-nft lists the other families; built-in chains of its own, empty, stay.
            ("nft", "-s list ruleset inet"),
            ("iptables-nft-save", "-M /bin/true"),
            ("ip6tables-nft-save", "-M /bin/true"),
            ("iptables-legacy-save", "-M /bin/true"),
            ("ip6tables-legacy-save", "-M /bin/true"),
        ] {
            if Command::new(program).arg("--version").output().is_ok() {
                found += &format!("== {program}\n");
                let printed = run(program, arguments);
                for line in printed.lines().filter(|line| !line.starts_with('#')) {
                    let rule = line.split(" [").next().unwrap_or_default();
                    found += &format!("{rule}\n");
                }
            }
        }
    });
    found + &routes(pod)
}

/// Lines of routing that are the firewall's; the kernel adds others of its own in its own time.
fn routes(pod: &Pod) -> String {
    let table = ROUTE_TABLE.to_string();
    let ours = [
        table,
        APPLICATION_V4.to_string(),
        APPLICATION_V6.to_string(),
    ];
    let mut found = String::new();
    pod.within(|| {
        for arguments in [
            "-4 rule show",
            "-6 rule show",
            "-4 route show table all",
            "-6 route show table all",
            "-6 address show dev lo",
        ] {
            found += &format!("== ip {arguments}\n");
            let printed = run("ip", arguments);
            for line in printed.lines() {
                if ours.iter().any(|word| line.contains(word)) {
                    found += &format!("{line}\n");
                }
            }
        }
    });
    found
}

#[test]
fn deny_keeps_out_what_is_new_until_it_is_opened() {
    with_each_backend(|pod, backend, firewall| {
        let application = pod.within(|| Application::serve(ANY, MESH_PORT));
        pod.without(|| Application::serve(ANY, MESH_PORT));
        let outside = |wanted: bool| {
            for ip in [POD_V4, POD_V6] {
                assert_eq!(
                    pod.tcp_gets_in(ip, MESH_PORT),
                    wanted,
                    "{backend}, TCP to {ip}"
                );
                assert_eq!(
                    pod.udp_gets_in(ip, MESH_PORT),
                    wanted,
                    "{backend}, UDP to {ip}"
                );
            }
        };
        outside(true);
        for _ in 0..2 {
            pod.within(|| firewall.deny().expect("denies"));
            assert!(pod.within(|| firewall.is_denied().expect("says")));
            let before = application.served();
            outside(false);
            assert_eq!(application.served(), before, "{backend}");
        }
        pod.within(|| {
            let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            for ip in [STRANGER_V4, STRANGER_V6].into_iter().chain(local) {
                assert!(tcp_is_served(ip, MESH_PORT), "{backend}, TCP to {ip}");
                assert!(udp_is_served(ip, MESH_PORT), "{backend}, UDP to {ip}");
            }
        });
        for _ in 0..2 {
            pod.within(|| firewall.open().expect("opens"));
            assert!(!pod.within(|| firewall.is_denied().expect("says")));
        }
        outside(true);
    });
}

#[test]
fn nothing_reaches_the_application_without_envoy_but_what_is_declared_plain() {
    with_each_backend(|pod, backend, firewall| {
        let hidden = pod.within(|| {
            [
                Application::serve(ANY, MESH_PORT),
                Application::serve(ANY, TLS_PORT),
                Application::serve(ANY_V4, MESH_PORT + 1),
            ]
        });
        pod.within(|| {
            Application::serve(ANY, PLAIN_PORT);
            Application::serve(ANY, UDP_PORT);
            firewall.deny().expect("denies");
            firewall.apply(&redirection()).expect("redirects");
        });
        assert!(!pod.tcp_gets_in(POD_V4, PLAIN_PORT), "{backend}: denied");
        assert!(!pod.udp_gets_in(POD_V4, UDP_PORT), "{backend}: denied");
        pod.within(|| firewall.open().expect("opens"));
        for ip in [POD_V4, POD_V6] {
            for port in [MESH_PORT, MESH_PORT + 1, TLS_PORT] {
                assert!(!pod.tcp_gets_in(ip, port), "{backend}, TCP to {ip}:{port}");
                assert!(!pod.udp_gets_in(ip, port), "{backend}, UDP to {ip}:{port}");
            }
            assert!(
                !pod.tcp_gets_in(ip, UDP_PORT),
                "{backend}: open for UDP only"
            );
            assert!(
                !pod.udp_gets_in(ip, PLAIN_PORT),
                "{backend}: open for TCP only"
            );
            pod.without(|| {
                assert!(tcp_is_served(ip, PLAIN_PORT), "{backend}, {ip}");
                assert!(udp_is_served(ip, UDP_PORT), "{backend}, {ip}");
            });
        }
        assert!(hidden.iter().all(|server| server.served() == 0));
        // DISABLED closes the declared ports too.
        let disabled = Redirection {
            ingress: None,
            ..redirection()
        };
        pod.within(|| firewall.apply(&disabled).expect("redirects"));
        for ip in [POD_V4, POD_V6] {
            assert!(!pod.tcp_gets_in(ip, PLAIN_PORT), "{backend}, {ip}");
            assert!(!pod.udp_gets_in(ip, UDP_PORT), "{backend}, {ip}");
        }
    });
}

#[test]
fn envoy_gets_connections_to_other_ports_and_none_to_its_own() {
    with_each_backend(|pod, backend, firewall| {
        // As Envoy does: on loopback, with a socket that may have addresses of others.
        let envoys = pod.within(|| {
            firewall.apply(&redirection()).expect("redirects");
            let addresses: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            addresses.map(|ip| {
                [INGRESS_MTLS_PORT, INGRESS_TLS_PORT].map(|port| {
                    let listener = patiently(|| TcpListener::bind((ip, port)));
                    setsockopt(&listener, IpTransparent, &true).expect("transparent");
                    listener
                })
            })
        });
        for (ip, [mtls, tls]) in [POD_V4, POD_V6].into_iter().zip(envoys) {
            for (port, envoy) in [(MESH_PORT, &mtls), (TLS_PORT, &tls)] {
                let client = pod.without(|| TcpStream::connect((ip, port)));
                let client = client.unwrap_or_else(|error| panic!("{backend}: {ip}: {error}"));
                let (accepted, peer) = envoy.accept().expect("accepts");
                assert_eq!(peer, client.local_addr().expect("address"), "{backend}");
                let dialled = accepted.local_addr().expect("address");
                assert_eq!((dialled.ip(), dialled.port()), (ip, port), "{backend}");
            }
            // Whoever listens there, transparent or not, is not reached.
            drop((mtls, tls));
        }
        let reserved = [INGRESS_MTLS_PORT, INGRESS_TLS_PORT, EGRESS_FIRST_PORT];
        let own = pod.within(|| reserved.map(|port| Application::serve(ANY, port)));
        for ip in [POD_V4, POD_V6] {
            for port in reserved {
                assert!(!pod.tcp_gets_in(ip, port), "{backend}, {ip}:{port}");
            }
            assert!(!pod.tcp_gets_in(ip, MESH_PORT), "{backend}, {ip}");
            assert!(
                pod.within(|| tcp_is_served(ip, INGRESS_MTLS_PORT)),
                "loopback"
            );
        }
        let expected = [2, 0, 0];
        assert_eq!(own.map(|server| server.served()), expected, "{backend}");
    });
}

#[test]
fn connections_from_before_the_capture_carry_nothing_any_more() {
    with_each_backend(|pod, backend, firewall| {
        for (stranger, ipv6) in [
            (STRANGER_V4, true),
            (STRANGER_V6, true),
            (STRANGER_V6, false),
        ] {
            let listener = pod.without(|| patiently(|| TcpListener::bind((stranger, 443))));
            let mut early = pod.within(|| TcpStream::connect((stranger, 443)).expect("connects"));
            let (mut accepted, _) = listener.accept().expect("accepts");
            let limit = Some(Duration::from_millis(250));
            accepted.set_read_timeout(limit).expect("timeout");
            early.write_all(b"1").expect("sends");
            accepted.read_exact(&mut [0]).expect("arrives before");

            let captured = Redirection {
                ipv6,
                ..redirection()
            };
            pod.within(|| firewall.apply(&captured).expect("redirects"));
            early.write_all(b"2").expect("is taken by the kernel");
            let arrived = accepted.read(&mut [0]);
            assert!(arrived.is_err(), "{backend}, {stranger}: {arrived:?}");
            // A new one leads to Envoy, which is not there, or is dropped.
            let address = (stranger, 443).into();
            let new =
                pod.within(|| TcpStream::connect_timeout(&address, Duration::from_millis(250)));
            assert!(new.is_err(), "{backend}, {stranger}");
            pod.within(|| firewall.remove().expect("removes"));
        }
    });
}

#[test]
fn strangers_never_reach_the_addresses_between_envoy_and_the_application() {
    with_each_backend(|pod, backend, firewall| {
        let (v4, v6) = (IpAddr::V4(APPLICATION_V4), IpAddr::V6(APPLICATION_V6));
        let application = pod.within(|| {
            // The kernel's own check would hide that there is a rule.
            fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").expect("setting");
            Application::serve(ANY, UDP_PORT)
        });
        pod.within(|| Application::serve(ANY, PLAIN_PORT));
        pod.pod_ip(&format!("-6 address add {v6}/128 dev lo nodad"));
        pod.stranger_ip("route del local 127.0.0.0/8 dev lo table local");
        pod.stranger_ip(&format!("route add {v4}/32 via {POD_V4} dev eth0"));
        pod.stranger_ip(&format!("-6 route add {v6}/128 via {POD_V6} dev eth0"));
        // Returns whether the datagram came; the second one, which comes for sure, came after it.
        let arrives = |ip: IpAddr, through: IpAddr| {
            let before = application.served();
            pod.without(|| {
                let any = if ip.is_ipv4() { ANY_V4 } else { ANY };
                let socket = UdpSocket::bind((any, 0)).expect("socket");
                socket.send_to(b"hello", (ip, UDP_PORT)).expect("sends");
                assert!(udp_is_served(through, UDP_PORT), "{backend}");
            });
            application.served() == before + 2
        };
        assert!(arrives(v4, POD_V4) && arrives(v6, POD_V6), "{backend}");
        pod.within(|| firewall.apply(&redirection()).expect("redirects"));
        assert!(!arrives(v4, POD_V4), "{backend}");
        assert!(!arrives(v6, POD_V6), "{backend}");
        for ip in [v4, v6] {
            assert!(!pod.tcp_gets_in(ip, PLAIN_PORT), "{backend}");
        }
    });
}

#[test]
fn each_redirection_takes_the_place_of_the_one_before() {
    let other = || Redirection {
        ingress: Some(Ingress {
            plain: [81].into(),
            ..Ingress::default()
        }),
        egress: Vec::new(),
        ipv6: false,
    };
    with_each_backend(|pod, backend, firewall| {
        let apply = |pod: &Pod, redirection: &Redirection| {
            assert_eq!(
                pod.within(|| firewall.apply(redirection)).expect("applies"),
                backend
            );
            rules(pod)
        };
        let once = apply(pod, &redirection());
        assert!(once.contains("15100"), "{once}");
        assert_eq!(apply(pod, &redirection()), once, "{backend}");
        let fresh = apply(&Pod::new(), &other());
        assert!(!fresh.contains("15100"), "{fresh}");
        assert_eq!(apply(pod, &other()), fresh, "{backend}");
        assert_eq!(apply(pod, &redirection()), once, "{backend}");
        // Another back end takes over.
        let fresh = Pod::new();
        let applied = |pod: &Pod| pod.within(|| Firewall::probe()?.apply(&redirection()));
        let first = applied(&fresh).expect("applies");
        let again = applied(pod).expect("applies");
        assert_eq!(first, again);
        let ours = |pod: &Pod| {
            let rules = rules(pod).to_lowercase();
            let ours = rules.lines().filter(|line| line.contains("contrast"));
            ours.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ours(pod), ours(&fresh), "after {backend}");
    });
}

#[test]
fn a_look_sees_what_each_back_end_made_and_changes_nothing() {
    with_each_backend(|pod, backend, firewall| {
        let sees = |denied, redirected, when: &str| {
            let before = rules(pod);
            let found = pod.within(|| present().expect("a back end says"));
            let expected = Present { denied, redirected };
            assert_eq!(found, expected, "{backend}, {when}");
            assert_eq!(rules(pod), before, "{backend}, {when}");
        };
        sees(false, false, "nothing was made");
        pod.within(|| firewall.deny().expect("denies"));
        sees(true, false, "denied");
        pod.within(|| firewall.apply(&redirection()).expect("applies"));
        sees(true, true, "denied and redirected");
        pod.within(|| firewall.open().expect("opens"));
        sees(false, true, "redirected");
        pod.within(|| firewall.remove().expect("removes"));
        let egress_only = Redirection {
            ingress: None,
            ..redirection()
        };
        pod.within(|| firewall.apply(&egress_only).expect("applies"));
        sees(false, true, "redirected without ingress");
        pod.within(|| firewall.remove().expect("removes"));
        sees(false, false, "all is removed");
        // Looking belongs to the network namespace.
        pod.within(|| firewall.deny().expect("denies"));
        let elsewhere = Pod::new().within(|| present().expect("a back end says"));
        assert!(!elsewhere.denied && !elsewhere.redirected, "{backend}");
    });
}

#[test]
fn tables_of_a_back_end_that_is_not_used_are_not_loaded() {
    if !pod::possible() {
        return;
    }
    let pod = Pod::new();
    let loaded = || {
        let names = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        names("ip_tables_names").unwrap_or_default()
            + &names("ip6_tables_names").unwrap_or_default()
    };
    let backend = pod.within(|| {
        let firewall = Firewall::probe().expect("a back end works");
        firewall.deny().expect("denies");
        let backend = firewall.apply(&redirection()).expect("applies");
        assert!(firewall.is_denied().expect("says"));
        firewall.open().expect("opens");
        firewall.remove().expect("removes");
        backend
    });
    match backend {
        Backend::IptablesLegacy => assert!(pod.within(loaded).contains("filter")),
        _ => assert_eq!(pod.within(loaded), "", "{backend}"),
    }
}

#[test]
fn rules_of_others_stay_and_none_of_ours_after_removal() {
    with_each_backend(|pod, backend, firewall| {
        pod.within(|| {
            // Makes the built-in tables.
            firewall.redirector(&redirection()).expect("works");
            if backend == Backend::Nftables {
                run("nft", "add table inet others");
                run(
                    "nft",
                    "add chain inet others input { type filter hook input priority 0 ; }",
                );
                run("nft", "add rule inet others input tcp dport 1 drop");
            } else {
                for program in ["iptables", "ip6tables"] {
                    let program = program.to_owned()
                        + backend
                            .to_string()
                            .strip_prefix("iptables")
                            .expect("iptables");
                    run(&program, "-N OTHERS");
                    run(&program, "-A INPUT -j OTHERS");
                    run(&program, "-A INPUT -p tcp --dport 1 -j DROP");
                    run(
                        &program,
                        "-t nat -A OUTPUT -p tcp --dport 1 -j REDIRECT --to-ports 2",
                    );
                }
            }
        });
        let before = rules(pod);
        let others = |rules: &str| {
            let lines = rules.lines().filter(|line| {
                ["OTHERS", "others", "dport 1 "]
                    .iter()
                    .any(|word| line.contains(word))
            });
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        pod.within(|| {
            firewall.deny().expect("denies");
            firewall.apply(&redirection()).expect("applies");
        });
        let during = rules(pod);
        assert_ne!(during, before);
        assert!(!others(&before).is_empty());
        assert_eq!(others(&during), others(&before), "{backend}");
        for _ in 0..2 {
            pod.within(|| {
                firewall.remove().expect("removes");
                firewall.open().expect("opens");
            });
            assert_eq!(rules(pod), before, "{backend}");
        }
        assert!(!before.to_lowercase().contains("contrast"));
    });
}

/// Runs itself again with this variable, because a process cannot change its own PATH safely.
const WITHOUT_PROGRAMS: &str = "CONTRAST_TEST_WITHOUT_PROGRAMS";

#[test]
fn what_is_denied_stays_denied_when_the_programs_are_gone() {
    if env::var_os(WITHOUT_PROGRAMS).is_some() {
        let error = Firewall::probe().expect_err("there is no program");
        return println!("{error}");
    }
    with_each_backend(|pod, backend, firewall| {
        let application = pod.within(|| Application::serve(ANY, MESH_PORT));
        assert!(pod.tcp_gets_in(POD_V4, MESH_PORT));
        pod.within(|| firewall.deny().expect("denies"));
        let output = pod.within(|| {
            let mut again = Command::new(env::current_exe().expect("this test"));
            again
                .args(["--exact", "--nocapture"])
                .arg("what_is_denied_stays_denied_when_the_programs_are_gone")
                .env("PATH", "/nonexistent")
                .env(WITHOUT_PROGRAMS, "1")
                .output()
                .expect("runs")
        });
        succeeded("this test without programs", &output);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for part in [
            "install nftables",
            "CAP_NET_ADMIN",
            "`nft` is not in PATH",
            "`iptables-nft-restore` is not in PATH",
            "`iptables-legacy-restore` is not in PATH",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        for ip in [POD_V4, POD_V6] {
            assert!(!pod.tcp_gets_in(ip, MESH_PORT), "{backend}, {ip}");
        }
        assert_eq!(application.served(), 1, "{backend}");
    });
}
