//! Every reason, against real TLS servers with certificates of the product's own CA.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
};

use contrast_mesh_check::{Reason, Report, State, Target, Verdict};
use support::{
    Clients::{Anybody, Members, Only},
    DAY, Deployment, Directory,
    Then::{Close, CloseOnData, Stay},
    echo, foreign, now, plain, reasons, serve,
};

fn row<'a>(report: &'a Report, check: &str) -> &'a contrast_mesh_check::Row {
    let mut rows = report.checks.iter();
    rows.find(|row| row.check == check)
        .unwrap_or_else(|| panic!("no row {check} in {report:#?}"))
}

#[test]
fn members_of_one_mesh_pass() {
    let mesh = Deployment::new().generation();
    let pod = Directory::with(&mesh.issue("web"));
    let server = serve(&mesh.issue("api"), Members(&mesh.ca()), Stay);
    let report = pod.check(server, "#identity=shop/deployment/api,other/thing");
    assert_eq!(report.verdict, Verdict::Passed, "{report:#?}");
    assert_eq!(report.with_state(State::Ok).count(), report.checks.len());
    assert_eq!(
        row(&report, "own certificate").found,
        "presented, and not refused"
    );
    assert!(
        row(&report, "server identity")
            .found
            .contains("/ns/shop/deployment/api")
    );
}

#[test]
fn a_server_that_asks_for_no_certificate_passes_and_says_so() {
    let mesh = Deployment::new().generation();
    let pod = Directory::with(&mesh.issue("web"));
    let report = pod.check(serve(&mesh.issue("api"), Anybody, Stay), "");
    assert_eq!(report.verdict, Verdict::Passed, "{report:#?}");
    assert_eq!(
        row(&report, "own certificate").found,
        "the server asks for none"
    );
}

#[test]
fn both_cas_of_an_overlap_are_trusted_and_named() {
    let deployment = Deployment::new();
    let (old, new) = (deployment.generation(), deployment.generation());
    let mut files = new.issue("web");
    files.bundle = new.ca() + &old.ca();
    let pod = Directory::with(&files);
    let report = pod.check(serve(&old.issue("api"), Members(&files.bundle), Stay), "");
    assert_eq!(report.verdict, Verdict::Passed, "{report:#?}");
    let found = &row(&report, "trusted mesh CAs").found;
    assert!(found.contains("previous"), "{found}");
}

#[test]
fn own_files_explain_themselves() {
    let deployment = Deployment::new();
    let (old, new) = (deployment.generation(), deployment.generation());
    let good = new.issue("web");
    let check = |files| reasons(&Directory::with(&files).check_alone());
    assert_eq!(check(good.clone()), []);

    let mut other_key = good.clone();
    other_key.key = new.issue("web").key;
    assert_eq!(check(other_key), [Reason::KeyMismatch]);

    let mut stale = old.issue("web");
    stale.bundle = new.ca();
    assert_eq!(check(stale), [Reason::OwnOtherGeneration]);

    assert_eq!(
        check(new.issue_at("web", now() - 3 * DAY)),
        [Reason::OwnExpired]
    );
    assert_eq!(
        check(new.issue_at("web", now() + 3 * DAY)),
        [Reason::OwnNotYetValid]
    );

    let mut garbage = good;
    garbage.chain = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    assert_eq!(check(garbage), [Reason::FilesUnusable]);
}

#[test]
fn missing_files_are_all_named() {
    let pod = Directory::with(&Deployment::new().generation().issue("web"));
    for file in ["certChain.pem", "key.pem", "mesh-ca.pem"] {
        fs::remove_file(pod.path().join(file)).expect("removed");
    }
    let report = pod.check_alone();
    assert_eq!(reasons(&report), [Reason::FilesUnusable]);
    let found = &row(&report, "certificate files").found;
    for file in ["certChain.pem", "key.pem", "mesh-ca.pem"] {
        assert!(found.contains(file), "{found}");
    }
}

#[test]
fn a_report_never_holds_the_key() {
    let files = Deployment::new().generation().issue("web");
    let report = format!("{:?}", Directory::with(&files).check_alone());
    let secret = files.key.lines().nth(1).expect("the key's text");
    assert!(!report.contains(secret));
}

#[test]
fn a_server_of_another_generation_is_told_from_another_deployment() {
    let deployment = Deployment::new();
    let (old, new) = (deployment.generation(), deployment.generation());
    let pod = Directory::with(&new.issue("web"));
    let check = |files| reasons(&pod.check(serve(&files, Anybody, Stay), "#identity=any"));
    assert_eq!(check(old.issue("api")), [Reason::OtherGeneration]);
    assert_eq!(
        check(Deployment::new().generation().issue("api")),
        [Reason::OtherMesh]
    );
    assert_eq!(check(foreign()), [Reason::NotInMesh]);
}

#[test]
fn times_of_the_server_certificate_are_judged_apart_from_its_issuer() {
    let deployment = Deployment::new();
    let (old, new) = (deployment.generation(), deployment.generation());
    let pod = Directory::with(&new.issue("web"));
    let check = |files| reasons(&pod.check(serve(&files, Anybody, Stay), "#identity=any"));
    assert_eq!(
        check(new.issue_at("api", now() - 3 * DAY)),
        [Reason::ServerExpired]
    );
    assert_eq!(
        check(new.issue_at("api", now() + 3 * DAY)),
        [Reason::ServerNotYetValid]
    );
    assert_eq!(
        check(old.issue_at("api", now() - 3 * DAY)),
        [Reason::OtherGeneration, Reason::ServerExpired]
    );
}

#[test]
fn identities_are_those_of_the_entry() {
    let mesh = Deployment::new().generation();
    let pod = Directory::with(&mesh.issue("web"));
    let check =
        |option: &str| reasons(&pod.check(serve(&mesh.issue("api"), Anybody, Stay), option));
    // The address is in the certificate.
    assert_eq!(check(""), []);
    assert_eq!(check("#identity=api"), []);
    assert_eq!(check("#identity=votes/api,shop/api"), []);
    assert_eq!(check("#identity=votes/api"), [Reason::WrongIdentity]);
    assert_eq!(
        check("#identity=shop/statefulset/api"),
        [Reason::WrongIdentity]
    );
    assert_eq!(check("#identity=ap"), [Reason::WrongIdentity]);
}

#[test]
fn a_peer_that_refuses_our_certificate_says_why() {
    let deployment = Deployment::new();
    let (old, new) = (deployment.generation(), deployment.generation());
    let mut stale = old.issue("web");
    stale.bundle = new.ca() + &old.ca();
    let server = serve(&new.issue("api"), Members(&new.ca()), Stay);
    assert_eq!(
        reasons(&Directory::with(&stale).check(server, "")),
        [Reason::PeerUnknownCa]
    );

    let expired = Directory::with(&new.issue_at("web", now() - 3 * DAY));
    let server = serve(&new.issue("api"), Members(&new.ca()), Stay);
    assert_eq!(
        reasons(&expired.check(server, "")),
        [Reason::OwnExpired, Reason::PeerSaysExpired]
    );

    let without = Directory::with(&new.issue("web"));
    fs::remove_file(without.path().join("key.pem")).expect("removed");
    let server = serve(&new.issue("api"), Members(&new.ca()), Stay);
    assert_eq!(
        reasons(&without.check(server, "")),
        [Reason::FilesUnusable, Reason::CertificateRequired]
    );
}

#[test]
fn a_server_that_allows_some_workloads_passes_for_them_and_names_its_reason_for_others() {
    let mesh = Deployment::new().generation();
    let allowed = "spiffe://example/ns/shop/deployment/web";
    let check = |client: &str| {
        let server = serve(&mesh.issue("api"), Only(&mesh.ca(), allowed), Stay);
        Directory::with(&mesh.issue(client)).check(server, "")
    };
    let report = check("web");
    assert_eq!(report.verdict, Verdict::Passed, "{report:#?}");
    assert_eq!(report.with_state(State::Ok).count(), report.checks.len());

    let report = check("other");
    assert_eq!(reasons(&report), [Reason::NotAllowed]);
    let refused = row(&report, "own certificate");
    let hint = refused.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("`allow=`"), "{refused:?}");
    // The names that the hint tells to compare.
    let names = &row(&report, "own names").found;
    assert!(names.contains("shop/deployment/other"), "{names}");
}

#[test]
fn a_close_behind_the_handshake_is_told_from_one_at_the_first_data() {
    let mesh = Deployment::new().generation();
    let pod = Directory::with(&mesh.issue("web"));
    let check =
        |then| reasons(&pod.check(serve(&mesh.issue("api"), Members(&mesh.ca()), then), ""));
    assert_eq!(check(Close), [Reason::ClosedAtOnce]);
    assert_eq!(check(CloseOnData), [Reason::ClosedOnData]);
}

#[test]
fn what_speaks_no_tls_is_shown() {
    let pod = Directory::with(&Deployment::new().generation().issue("web"));
    let report = pod.check(plain(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "");
    assert_eq!(reasons(&report), [Reason::NotTls]);
    assert!(
        row(&report, "TLS").found.contains("HTTP/1.1 400"),
        "{report:#?}"
    );
    assert_eq!(reasons(&pod.check(echo(), "")), [Reason::NotTls]);
    assert_eq!(reasons(&pod.check(plain(b""), "")), [Reason::NoAnswer]);
    // The alert protocol_version, as a server without TLS 1.3 sends it.
    let refusing = plain(&[21, 3, 3, 0, 2, 2, 70]);
    assert_eq!(
        reasons(&pod.check(refusing, "")),
        [Reason::HandshakeRefused]
    );
}

#[test]
fn names_without_address_and_ports_without_listener() {
    let pod = Directory::with(&Deployment::new().generation().issue("web"));
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = free.local_addr().expect("address");
    drop(free);
    assert_eq!(reasons(&pod.check(address, "")), [Reason::NoConnection]);
}

#[test]
fn targets_are_entries_or_remotes() {
    let egress = "api#127.9.0.1:80#api.shop:443#identity=shop/api##db#transparent#db:5432"
        .parse()
        .expect("egress");
    let find = |text: &str| Target::find(text, &egress);
    let api = find("api").expect("entry");
    assert_eq!(api.remote.to_string(), "api.shop:443");
    assert_eq!(find("api.shop:443").expect("its remote"), api);
    assert!(find("db").expect("entry").captured);
    assert!(find("other:5432").expect("remote").captured);
    let other = find("other:80").expect("remote");
    assert!(other.entry.is_none() && !other.captured);
    for text in [
        "",
        "nothing",
        "a:0",
        "a:1##b#127.0.0.1:2#c:3",
        "a:1#identity=any",
    ] {
        let error = find(text).expect_err(text).to_string();
        assert!(
            error.contains("host:port") && error.contains("api, db"),
            "{error}"
        );
    }
}
