//! The sidecar as a process: start, readiness, stop, and every way to fail.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

mod testbed;

use testbed::{
    Sidecar,
    certificates::{Bundle, Generation},
    connect, echo, echo_on, eventually,
};

/// A sidecar with one plain port: no certificates to wait for.
fn plain(pod: u8) -> (Vec<(&'static str, String)>, SocketAddr) {
    let (ip, port) = (Ipv4Addr::new(127, 79, pod, 1), echo());
    let environment = vec![
        ("CONTRAST_INGRESS_PROXY_CONFIG", format!("app#{port}#true")),
        ("CONTRAST_POD_IP", ip.to_string()),
    ];
    (environment, SocketAddr::from((ip, port)))
}

#[test]
fn ready_file_says_whether_envoy_serves_and_nothing_is_left_behind() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (environment, address) = plain(1);
    let mut sidecar = Sidecar::ready(&envoy, &environment, |_| {});
    connect(address).expect("the port is open once the sidecar is ready");
    let [runtime] = &sidecar.runtime_directories()[..] else {
        panic!("one directory expected")
    };
    let mode = runtime.metadata().expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.wait().code(), Some(0), "{}", sidecar.log());
    assert!(!sidecar.is_ready());
    assert!(sidecar.runtime_directories().is_empty());
    assert!(connect(address).is_err(), "Envoy must be gone");
}

#[test]
fn open_connections_end_in_their_own_time_before_the_deadline() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (mut environment, address) = plain(2);
    environment.push(("CONTRAST_DRAIN_TIMEOUT_SECONDS", "60".to_owned()));
    let mut sidecar = Sidecar::ready(&envoy, &environment, |_| {});
    let mut connection = connect(address).expect("connection");
    echo_on(&mut connection, "before").expect("echo");

    sidecar.signal(Signal::SIGTERM);
    eventually("draining starts", || !sidecar.is_ready());
    thread::sleep(Duration::from_millis(500));
    assert_eq!(
        echo_on(&mut connection, "while").expect("the connection lives on"),
        "while"
    );
    drop(connection);
    assert_eq!(sidecar.wait().code(), Some(0), "{}", sidecar.log());
}

#[test]
fn drain_deadline_and_second_signal_end_open_connections() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    for (pod, deadline, signals) in [(3, "1", 1), (4, "600", 2)] {
        let (mut environment, address) = plain(pod);
        environment.push(("CONTRAST_DRAIN_TIMEOUT_SECONDS", deadline.to_owned()));
        let mut sidecar = Sidecar::ready(&envoy, &environment, |_| {});
        let mut connection = connect(address).expect("connection");
        echo_on(&mut connection, "before").expect("echo");
        let started = Instant::now();
        for _ in 0..signals {
            sidecar.signal(Signal::SIGTERM);
            thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(sidecar.wait().code(), Some(0), "{}", sidecar.log());
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(echo_on(&mut connection, "after").is_err());
    }
}

#[test]
fn envoy_that_dies_takes_the_sidecar_along_with_its_exit_code() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (environment, _) = plain(5);
    let mut sidecar = Sidecar::ready(&envoy, &environment, |_| {});
    sidecar.signal_envoy(Signal::SIGKILL);
    assert_eq!(sidecar.wait().code(), Some(128 + 9));
    let log = sidecar.log();
    assert!(log.contains("Envoy ended unasked with signal: 9"), "{log}");
    assert!(!sidecar.is_ready());
}

#[test]
fn taken_port_is_a_start_up_error_that_names_the_port() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (environment, address) = plain(6);
    let _occupant = TcpListener::bind(address).expect("the port is free");
    let mut sidecar = Sidecar::start(&envoy, &environment, |_| {});
    assert_eq!(sidecar.wait().code(), Some(1));
    let log = sidecar.log();
    assert!(
        log.contains("Envoy ended unasked") && log.contains(&address.to_string()),
        "{log}"
    );
}

#[test]
fn sidecar_waits_for_the_initializer() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (mut environment, _) = plain(7);
    environment[0].1 = environment[0].1.replace("true", "false");
    let mut sidecar = Sidecar::start(&envoy, &environment, |_| {});
    eventually("it says what it waits for", || {
        let log = sidecar.log();
        log.contains("waiting for the Initializer") && log.contains("certChain.pem")
    });
    assert!(!sidecar.is_ready());
    Generation::new().issue().install(&sidecar.tls_config());
    sidecar.wait_until_ready();
}

#[test]
fn certificates_that_never_come_are_an_error_and_a_signal_ends_the_wait() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (mut environment, _) = plain(8);
    environment[0].1 = environment[0].1.replace("true", "false");
    let mut patient = Sidecar::start(&envoy, &environment, |_| {});
    environment.push(("CONTRAST_CERTIFICATE_TIMEOUT_SECONDS", "1".to_owned()));
    let mut impatient = Sidecar::start(&envoy, &environment, |_| {});
    assert_eq!(impatient.wait().code(), Some(1));
    assert!(
        impatient.log().contains("still missing or empty after 1 s"),
        "{}",
        impatient.log()
    );
    eventually("it waits", || {
        patient.log().contains("waiting for the Initializer")
    });
    patient.signal(Signal::SIGTERM);
    assert_eq!(patient.wait().code(), Some(0), "{}", patient.log());
}

#[test]
fn certificates_that_envoy_cannot_use_are_an_error_with_its_reason() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let (mut environment, _) = plain(10);
    environment[0].1 = environment[0].1.replace("true", "false");
    environment.push(("CONTRAST_START_TIMEOUT_SECONDS", "2".to_owned()));
    let bundle = Bundle {
        peer_ca: "no certificate".to_owned(),
        ..Generation::new().issue()
    };
    let mut sidecar = Sidecar::start(&envoy, &environment, |directory| bundle.install(directory));
    assert_eq!(sidecar.wait().code(), Some(1));
    let log = sidecar.log();
    assert!(
        log.contains("Failed to load trusted CA certificates"),
        "{log}"
    );
    assert!(!sidecar.is_ready());
}

#[test]
fn unusable_configuration_has_its_own_exit_code_and_lists_every_problem() {
    let environment = [
        ("CONTRAST_INGRESS_PROXY_CONFIG", "web#0#maybe".to_owned()),
        (
            "CONTRAST_EGRESS_PROXY_CONFIG",
            "api#10.0.0.1:80#api:80".to_owned(),
        ),
    ];
    let mut sidecar = Sidecar::start("/nowhere/envoy".as_ref(), &environment, |_| {});
    assert_eq!(sidecar.wait().code(), Some(64));
    let log = sidecar.log();
    for part in ["\"0\"", "\"maybe\"", "\"10.0.0.1:80\""] {
        assert!(log.contains(part), "{part} in {log}");
    }
}

#[test]
fn rules_are_printed_without_being_made() {
    let print = |environment: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_service-mesh"))
            .arg("--print-rules")
            .env_clear()
            .envs(environment.iter().copied())
            .output()
            .expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let ingress = "CONTRAST_INGRESS_PROXY_CONFIG";
    let (code, rules, log) = print(&[(ingress, "web#8080#true##dns#53#true#udp")]);
    assert_eq!(code, Some(0), "{log}");
    for part in [
        "table inet contrast_mesh {",
        "tcp dport { 8080 } accept",
        "udp dport { 53 } accept",
        "tproxy ip to 127.0.0.1:15006",
    ] {
        assert!(rules.contains(part), "{part} in {rules}");
    }
    let (code, rules, _) = print(&[("CONTRAST_INGRESS_MODE", "explicit")]);
    assert_eq!(code, Some(0));
    assert_eq!(
        rules,
        "# There are no rules: the ingress mode is explicit.\n"
    );
    let (code, rules, log) = print(&[(ingress, "web#0#true")]);
    assert_eq!((code, rules.as_str()), (Some(64), ""), "{log}");
}

#[test]
fn missing_envoy_is_named() {
    let (environment, _) = plain(9);
    let mut sidecar = Sidecar::start("/nowhere/envoy".as_ref(), &environment, |_| {});
    assert_eq!(sidecar.wait().code(), Some(1));
    assert!(
        sidecar.log().contains("CONTRAST_ENVOY_BINARY"),
        "{}",
        sidecar.log()
    );
}
