//! `--kube`, `contrast port-forward` and `contrast doctor`, with a `kubectl` that says what the test wants: an API server cannot be had
//! where tests run.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use contrast_testbed::{Page, Vendor};

use crate::{
    context::Context,
    fake::{Fake, Script, coordinator, workspace},
};

/// Writes a `kubectl` into the workspace.
fn kubectl(context: &Context, script: &str) -> String {
    let path = context.file("kubectl", &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path.display().to_string()
}

fn with_kubectl(context: &Context, kubectl: &str, arguments: &[&str]) -> String {
    context.run_with(&[("CONTRAST_KUBECTL", kubectl)], arguments)
}

#[test]
fn status_through_a_cluster_ends_what_it_started() {
    let (context, tee, manifest) = workspace();
    let status = contrast_proto::user::Status {
        place: "coordinator-0:7778".into(),
        role: "leader".into(),
        ..Default::default()
    };
    let script = Script {
        status,
        ..Script::default()
    };
    let fake = Fake::start(&tee, coordinator(&manifest), script);
    let pid = context.path("pid");
    let kubectl = kubectl(
        &context,
        &format!(
            "echo \"$@\" > {0}.arguments\necho $$ > {0}\necho 'Forwarding from {1} -> 1313'\nexec sleep 60",
            pid.display(),
            fake.address()
        ),
    );
    let shown = with_kubectl(
        &context,
        &kubectl,
        &["status", "--kube=votes", "--kube-context=lab"],
    );
    assert!(shown.contains("exit code: 0"), "{shown}");
    assert!(shown.contains("coordinator-0:7778 (leader)"), "{shown}");
    assert_eq!(fake.asked().calls, ["GetStatus"]);
    let arguments = fs::read_to_string(context.path("pid.arguments")).expect("it ran");
    assert_eq!(
        arguments.trim(),
        "--context=lab port-forward --address=127.0.0.1 --namespace=votes deployment/coordinator-port-forwarder :1313"
    );
    let pid = fs::read_to_string(pid).expect("it ran");
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    let end = Instant::now() + Duration::from_secs(5);
    while process.exists() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!process.exists(), "kubectl still runs");
}

#[test]
fn what_kubectl_says_is_shown_with_what_to_do() {
    let (context, ..) = workspace();
    let refusing = kubectl(
        &context,
        "echo 'Error from server (NotFound): deployments.apps \"coordinator-port-forwarder\" not found' >&2; exit 1",
    );
    insta::assert_snapshot!(
        "kube_no_forwarder",
        with_kubectl(&context, &refusing, &["verify", "--kube"])
    );
    insta::assert_snapshot!(
        "kube_no_kubectl",
        with_kubectl(&context, "/nowhere/kubectl", &["port-forward"])
    );
    insta::assert_snapshot!(
        "kube_and_coordinator",
        context.run(&["status", "--kube", "--coordinator=a"])
    );
}

#[test]
fn port_forward_says_where_and_ends_with_kubectl() {
    let context = Context::new();
    let kubectl = kubectl(
        &context,
        "echo 'Forwarding from 127.0.0.1:1313 -> 1313'\necho 'Forwarding from 127.0.0.1:1314 -> 1314'\n\
         echo 'error: lost connection to pod' >&2\nexit 1",
    );
    insta::assert_snapshot!(
        "port_forward_lost",
        with_kubectl(&context, &kubectl, &["port-forward", "-n", "votes"])
    );
}

#[test]
fn port_that_is_taken_is_named_although_kubectl_goes_on() {
    let context = Context::new();
    let kubectl = kubectl(
        &context,
        "echo 'Unable to listen on port 1313: Listeners failed to create' >&2\n\
         echo 'Forwarding from 127.0.0.1:1314 -> 1314'\nexec sleep 60",
    );
    insta::assert_snapshot!(
        "port_forward_taken",
        with_kubectl(&context, &kubectl, &["port-forward"])
    );
}

#[test]
fn kubectl_that_says_much_never_waits_for_a_reader() {
    let context = Context::new();
    let kubectl = kubectl(
        &context,
        "echo 'Forwarding from 127.0.0.1:1313 -> 1313'\necho 'Forwarding from 127.0.0.1:1314 -> 1314'\n\
         i=0; while [ $i -lt 4000 ]; do echo \"Handling connection for 1313, number $i\"; echo \"E portforward.go $i\" >&2; i=$((i+1)); done\n\
         echo 'error: lost connection to pod' >&2\nexit 1",
    );
    let shown = with_kubectl(&context, &kubectl, &["--log-level=error", "port-forward"]);
    assert!(
        shown.contains("ended with exit status: 1: error: lost connection to pod"),
        "{shown}"
    );
}

#[test]
fn watching_ends_when_the_way_is_lost() {
    let (context, tee, manifest) = workspace();
    let fake = Fake::start(&tee, coordinator(&manifest), Script::default());
    let kubectl = kubectl(
        &context,
        &format!(
            "echo 'Forwarding from {} -> 1313'\nsleep 1\necho 'error: lost connection to pod' >&2\nexit 1",
            fake.address()
        ),
    );
    let shown = with_kubectl(&context, &kubectl, &["status", "--kube", "--watch=1"]);
    assert!(shown.contains("exit code: 4"), "{shown}");
    assert!(shown.contains("lost connection to pod"), "{shown}");
}

/// A cluster in which everything is as it should be, with a clock that is `ahead` of ours.
fn healthy(ahead: TimeDelta) -> String {
    let date = (Utc::now() + ahead).format("%a, %d %b %Y %H:%M:%S GMT");
    format!(
        r#"case "$*" in
*"version --client"*) echo '{{"clientVersion": {{"gitVersion": "v1.34.1"}}}}' ;;
*"config view"*) echo '{{"current-context": "lab", "clusters": [{{"cluster": {{"server": "https://lab:6443"}}}}]}}' ;;
*raw=/version*) echo "    Date: {date}" >&2; echo '{{"gitVersion": "v1.34.0", "minor": "34"}}' ;;
*runtimeclasses*) echo '{{"items": [{{"metadata": {{"name": "runc"}}}}, {{"metadata": {{"name": "contrast-cc-metal-qemu-snp"}}}}]}}' ;;
*daemonsets*) echo '{{"items": [{{"metadata": {{"name": "node-installer"}}, "status": {{"numberReady": 2, "desiredNumberScheduled": 2}}}}]}}' ;;
*statefulset/coordinator*) echo '{{"spec": {{"replicas": 3, "template": {{"spec": {{"containers": [{{"image": "r/coordinator:1"}}]}}}}}}, "status": {{"readyReplicas": 3}}}}' ;;
*coordinator-port-forwarder*) echo '{{"spec": {{"replicas": 1, "template": {{"spec": {{"containers": [{{"image": "r/port-forwarder:1"}}]}}}}}}, "status": {{"readyReplicas": 1}}}}' ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac"#
    )
}

fn rows(shown: &str) -> Vec<String> {
    let rows = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    rows.collect()
}

/// A service that answers whatever the doctor asks a vendor for.
fn vendor(context: &Context) -> Vendor {
    let asked = Vendor::serving(std::iter::empty::<(String, Page)>());
    let proxy = format!("--collateral-proxy={}", asked.base);
    context.run(&["doctor", "--no-kube", &proxy]);
    let pages = asked.requests().into_iter();
    Vendor::serving(pages.map(|path| (path, Page::default())))
}

#[test]
fn doctor_finds_nothing_wrong_with_a_healthy_cluster() {
    let context = Context::new();
    let kubectl = kubectl(&context, &healthy(TimeDelta::zero()));
    let vendor = vendor(&context);
    let proxy = format!("--collateral-proxy={}", vendor.base);
    let shown = with_kubectl(&context, &kubectl, &["doctor", &proxy]);
    assert!(shown.contains("exit code: 0"), "{shown}");
    insta::assert_snapshot!(
        "doctor_healthy",
        shown.replace(&vendor.base, "http://vendor")
    );
}

#[test]
fn doctor_names_a_clock_that_is_a_day_off() {
    let context = Context::new();
    let kubectl = kubectl(&context, &healthy(TimeDelta::days(1)));
    let vendor = vendor(&context);
    let proxy = format!("--collateral-proxy={}", vendor.base);
    let shown = with_kubectl(&context, &kubectl, &["doctor", &proxy]);
    assert!(shown.contains("exit code: 1"), "{shown}");
    let rows = rows(&shown);
    let named = |row: &String| {
        row.starts_with("failed clock, against the API server this machine's clock is 2")
    };
    assert!(rows.iter().any(named), "{shown}");
    assert!(shown.contains("h behind"), "{shown}");
    assert!(shown.contains("timedatectl set-ntp true"), "{shown}");
}

#[test]
fn doctor_stops_at_a_wrong_kubeconfig() {
    let context = Context::new();
    let kubectl = kubectl(
        &context,
        r#"case "$*" in
*"version --client"*) echo '{"clientVersion": {"gitVersion": "v1.34.1"}}' ;;
*) echo 'error: error loading config file "/home/me/.kube/config": yaml: line 3: mapping values are not allowed' >&2; exit 1 ;;
esac"#,
    );
    let shown = with_kubectl(&context, &kubectl, &["doctor", "--collateral=nowhere"]);
    insta::assert_snapshot!("doctor_kubeconfig", shown.replace(&kubectl, "kubectl"));
}

/// A proxy that answers for everybody with a certificate of its own, as those of companies do.
#[test]
fn doctor_recognises_a_proxy_that_intercepts_tls() {
    let context = Context::new();
    let names = vec!["localhost".to_owned()];
    let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
    context.file("proxy.pem", &own.cert.pem());
    context.file("proxy.key", &own.signing_key.serialize_pem());
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-www",
            "-cert",
            "proxy.pem",
            "-key",
            "proxy.key",
        ])
        .args(["-accept", &format!("127.0.0.1:{port}")])
        .current_dir(context.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut server) = server else {
        eprintln!("skipped: no openssl");
        return;
    };
    let end = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    let proxy = format!("--collateral-proxy=https://localhost:{port}");
    let shown = context.run(&["doctor", "--no-kube", &proxy]);
    server.kill().expect("ends");
    server.wait().expect("ends");
    assert!(shown.contains("exit code: 1"), "{shown}");
    assert!(
        shown.contains("a proxy intercepts TLS: add its CA"),
        "{shown}"
    );
}

#[test]
fn doctor_reports_a_service_that_is_not_the_vendors() {
    let context = Context::new();
    let vendor = Vendor::serving(std::iter::empty::<(String, Page)>());
    let proxy = format!("--collateral-proxy={}", vendor.base);
    let shown = context.run(&["doctor", "--no-kube", &proxy]);
    assert!(shown.contains("answered with HTTP status 404"), "{shown}");
    let unusable = context.run(&["doctor", "--no-kube", "--collateral-proxy=ftp://x"]);
    assert!(
        unusable.contains("cannot use --collateral-proxy"),
        "{unusable}"
    );
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let context = Context::new();
    let shown = context.run(&["man", "pages"]);
    assert!(shown.contains("exit code: 0"), "{shown}");
    for page in ["contrast.1", "contrast-verify.1", "contrast-seal-secret.1"] {
        let text = fs::read_to_string(context.path("pages").join(page)).expect(page);
        assert!(text.starts_with(".ie \\n(.g .ds Aq"), "{page}: {text}");
    }
    context.file("file", "");
    let refused = context.run(&["man", "file"]);
    assert!(refused.contains("exit code: 2"), "{refused}");
    assert!(
        refused.contains("name a directory that you may write to"),
        "{refused}"
    );
}

#[test]
fn is_a_plugin_of_kubectl_under_that_name() {
    let context = Context::new();
    let plugin = context.path("kubectl-contrast");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_contrast"), &plugin).expect("linked");
    let output = Command::new(&plugin).arg("--help").output().expect("runs");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        help.contains("Usage: kubectl contrast [OPTIONS] <COMMAND>"),
        "{help}"
    );
}
