//! The program as a pod starts it.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may panic")]

use clap::Parser as _;
use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

fn initializer() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_initializer"));
    command.env_clear();
    command
}

#[test]
fn pod_with_an_encrypted_volume_is_not_ready_without_it() {
    let base = tempfile::tempdir().expect("directory");
    std::fs::create_dir(base.path().join("tls-config")).expect("directory");
    // Even if a certificate is there already.
    std::fs::write(base.path().join("tls-config/certChain.pem"), "chain").expect("writes");
    let is_ready = |device: Option<&str>| {
        let mut command = initializer();
        command
            .arg("--check-ready")
            .env("COORDINATOR_HOST", "coordinator")
            .env("CONTRAST_BASE_DIR", base.path());
        if let Some(device) = device {
            command.env("CRYPTSETUP_DEVICE", device);
        }
        command.status().expect("runs").success()
    };
    assert!(is_ready(None));
    assert!(!is_ready(Some("/dev/csi0")));
}

#[test]
fn holder_waits_for_its_end_and_needs_no_coordinator() {
    let mut child = initializer()
        .arg("--hold")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    thread::sleep(Duration::from_millis(500));
    assert!(
        child.try_wait().expect("asks").is_none(),
        "it ended by itself"
    );
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status();
    assert!(killed.expect("kill").success());
    for _ in 0..100 {
        if let Some(status) = child.try_wait().expect("asks") {
            assert_eq!(status.code(), Some(0));
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    child.kill().expect("kills");
    panic!("it did not end");
}

/// The command that a unit of `deploy/guest` starts.
fn command_of(unit: &str) -> contrast_initializer::Command {
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let start = start.expect("a command");
    let arguments = start.strip_prefix("/usr/bin/initializer ");
    let arguments = arguments.expect("the Initializer").split(' ');
    // Empty until somebody sets it.
    let arguments = arguments.filter(|word| !word.starts_with('$'));
    let config =
        contrast_initializer::Config::try_parse_from(["initializer"].into_iter().chain(arguments));
    config.expect("arguments").command.expect("a command")
}

fn has_directives(unit: &str, directives: &[&str]) {
    for directive in directives {
        assert!(unit.lines().any(|line| line == *directive), "{directive}");
    }
}

#[test]
fn unit_that_checks_initdata_ends_the_guest_when_it_fails() {
    let unit = include_str!("../../deploy/guest/contrast-check-initdata.service");
    let command = command_of(unit);
    assert!(matches!(
        command,
        contrast_initializer::Command::CheckInitdata(_)
    ));
    has_directives(
        unit,
        &[
            "Type=oneshot",
            "FailureAction=poweroff-force",
            "RequiredBy=kata-agent.service",
            "Before=kata-agent.service shutdown.target",
            "StandardError=journal+console",
        ],
    );
}

#[test]
fn unit_of_the_guest_starts_a_command_that_exists_before_the_agent() {
    let unit = include_str!("../../deploy/guest/contrast-deny-ingress.service");
    assert!(matches!(
        command_of(unit),
        contrast_initializer::Command::DenyIngress
    ));
    has_directives(
        unit,
        &[
            "Type=oneshot",
            "RemainAfterExit=yes",
            "RequiredBy=kata-agent.service",
            "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW",
        ],
    );
    let words = |key: &str| -> Vec<&str> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
        lines.flat_map(str::split_whitespace).collect()
    };
    assert!(words("Before=").contains(&"kata-agent.service"));
    assert!(words("After=").iter().all(|unit| !unit.contains("network")));
}

#[test]
fn units_for_images_are_ready_before_the_agent_and_mount_where_it_sees_it() {
    let deny = include_str!("../../deploy/guest/contrast-deny-ingress.service");
    let initdata = include_str!("../../deploy/guest/contrast-check-initdata.service");
    let store = include_str!("../../deploy/guest/contrast-image-store.service");
    let puller = include_str!("../../deploy/guest/contrast-image-puller.service");
    let contrast_initializer::Command::ImageStore { mount_point, .. } = command_of(store) else {
        panic!("not the store");
    };
    let contrast_initializer::Command::ServeImages(options) = command_of(puller) else {
        panic!("not the puller");
    };
    assert!(options.store.starts_with(mount_point));
    for unit in [store, puller] {
        has_directives(unit, &["Type=notify", "NoNewPrivileges=yes"]);
        // Each of these gives the service a mount namespace of its own (systemd.exec(5)), which the agent does not see into.
        for beginning in [
            "Private",
            "Protect",
            "ReadOnly",
            "ReadWrite",
            "Inaccessible",
            "Exec",
            "NoExec",
            "Bind",
            "Root",
            "Mount",
            "Temporary",
            "Dynamic",
            "ProcSubset",
            "Extension",
            "LoadCredential",
            "SetCredential",
            "ImportCredential",
            "NetworkNamespacePath",
            "IPCNamespacePath",
            "LogNamespace",
        ] {
            let mut options = unit.lines().filter(|line| line.starts_with(beginning));
            assert!(
                options.all(|line| line.starts_with("ExecStart=")),
                "{beginning}"
            );
        }
    }
    let words = |unit: &'static str, key: &str| -> Vec<&str> {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
        lines.flat_map(str::split_whitespace).collect()
    };
    let chain = [
        ("contrast-deny-ingress.service", deny),
        ("contrast-check-initdata.service", initdata),
        ("contrast-image-store.service", store),
        ("contrast-image-puller.service", puller),
    ];
    for (position, (_, unit)) in chain.iter().enumerate() {
        let after = words(unit, "After=");
        for (earlier, _) in chain.iter().take(position) {
            assert!(after.contains(earlier), "{after:?} has no {earlier}");
        }
        assert!(words(unit, "RequiredBy=").contains(&"kata-agent.service"));
        assert!(words(unit, "Before=").contains(&"kata-agent.service"));
    }
    assert!(words(store, "RequiredBy=").contains(&"contrast-image-puller.service"));
}
