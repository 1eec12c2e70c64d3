//! The unit of `deploy/guest` in a container that a real systemd boots: the agent starts when the default deny is there, and not without it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says why it is skipped"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use contrast_e2e::harness::{no_network_because, program};

const UNIT: &str = "contrast-deny-ingress.service";
const AGENT: &str = "kata-agent.service";
const LAST: &str = "last.service";
/// Seconds.
const DEADLINE: &str = "90";

/// Guests that are not registered with a systemd outside share its control group, and one that ends would take the other's away.
static BOOTING: Mutex<()> = Mutex::new(());

/// What a boot left behind.
struct Boot {
    /// The rules that the agent found when it started; `None` when it did not start.
    rules_at_agent: Option<String>,
    /// State of the unit at the end, as `systemctl is-active` prints it.
    unit: String,
    console: String,
}

#[test]
fn agent_starts_behind_the_default_deny() {
    if !possible() {
        return;
    }
    let boot = boot(&[]);
    let rules = boot.rules_at_agent.expect(&boot.console);
    assert!(rules.contains("table inet contrast_deny"), "{rules}");
    assert!(rules.contains("policy drop"), "{rules}");
    assert_eq!(boot.unit, "active", "{}", boot.console);
}

#[test]
fn agent_does_not_start_when_nothing_can_deny() {
    if !possible() {
        return;
    }
    let boot = boot(&["nft", "iptables-nft-restore", "iptables-legacy-restore"]);
    assert_eq!(boot.rules_at_agent, None);
    assert_eq!(boot.unit, "failed", "{}", boot.console);
    let says = "expected nftables or iptables to make packet filter rules with";
    assert!(boot.console.contains(says), "{}", boot.console);
}

fn possible() -> bool {
    let finds = |program: &str| {
        let mut command = Command::new(program);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok()
    };
    let missing = ["systemd-nspawn", "/lib/systemd/systemd", "nft"]
        .into_iter()
        .find(|program| !finds(program))
        .map(|program| format!("there is no `{program}` (Debian: systemd-container, nftables)"));
    let reason = no_network_because().or(missing);
    if let Some(reason) = &reason {
        eprintln!("SKIPPED the unit of the guest: {reason}");
    }
    reason.is_none()
}

/// Boots a guest whose `/usr` is this machine's with the Initializer in it, without the programs `absent`.
fn boot(absent: &[&str]) -> Boot {
    let _alone = BOOTING.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().expect("directory");
    let at = |path: &str| directory.path().join(path);
    let units = "root/etc/systemd/system";
    for path in [
        "root/usr/lib",
        &format!("{units}/{AGENT}.requires"),
        "usr/bin",
        "usr/sbin",
        "result",
    ] {
        fs::create_dir_all(at(path)).expect("directory");
    }
    // By this file systemd-nspawn tells a root directory, before it mounts `/usr`.
    fs::write(at("root/usr/lib/os-release"), "ID=guest\n").expect("writes");
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), at("root").join(name)).expect("links");
    }
    let initializer = program("initializer").expect("is built");
    fs::copy(initializer, at("usr/bin/initializer")).expect("copies");
    for program in absent {
        // Neither is an executable, and the later directory hides the earlier one.
        fs::write(at("usr/sbin").join(program), "").expect("writes");
    }
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/guest");
    fs::copy(deployed.join(UNIT), at(units).join(UNIT)).expect("copies");
    // As `systemctl enable` does.
    let required = at(units).join(format!("{AGENT}.requires")).join(UNIT);
    symlink(format!("../{UNIT}"), required).expect("links");
    let oneshot = "[Service]\nType=oneshot\nExecStart=/bin/sh -c";
    let agent = format!("{oneshot} 'nft list ruleset >/result/rules'\n");
    fs::write(at(units).join(AGENT), agent).expect("writes");
    let last = format!(
        "[Unit]\nWants={AGENT}\nAfter={AGENT} {UNIT}\n{oneshot} 'systemctl is-active {UNIT} >/result/unit; \
         journalctl --no-pager --unit {UNIT} >/result/journal; systemctl --force poweroff'\n"
    );
    fs::write(at(units).join(LAST), last).expect("writes");

    let bound =
        |option: &str, path: &str, to: &str| format!("--{option}={}:{to}", at(path).display());
    let output = Command::new("timeout")
        .args(["--kill-after=5", DEADLINE, "systemd-nspawn"])
        .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
        .args(["--private-network", "--console=pipe"])
        .arg(format!(
            "--machine=guest-{}-{}",
            std::process::id(),
            absent.len()
        ))
        .arg(format!("--directory={}", at("root").display()))
        .arg(format!("--overlay-ro=/usr:{}:/usr", at("usr").display()))
        .arg(bound("bind", "result", "/result"))
        .arg(format!("systemd.unit={LAST}"))
        .stdin(Stdio::null())
        .output()
        .expect("systemd-nspawn runs");
    let read = |name: &str| fs::read_to_string(at("result").join(name));
    let console = format!(
        "{}{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        read("journal").unwrap_or_default()
    );
    Boot {
        rules_at_agent: read("rules").ok(),
        unit: read("unit").unwrap_or_default().trim().to_owned(),
        console,
    }
}
