//! `contrast audit` on streams in files, and against a Coordinator that says what the test wants.

use contrast_audit::{Chain, Entry, Event, Hash, Kind, Outcome, Subject};

use crate::context::Context;

const TIME: u64 = 1_764_276_459_123;

fn refused(reason: &'static str, subject: Subject) -> Event {
    Event {
        kind: Kind::Certificate,
        outcome: Outcome::Refused,
        reason: reason.into(),
        subject,
    }
}

fn web() -> Subject {
    Subject {
        policy: Some(Hash([0xa1; 32])),
        names: vec!["web".into(), "*.web.example".into()],
        tee: Some("SEV-SNP".into()),
        insecure: true,
        reference: Some("insecure[0]".into()),
        key: Some(Hash([0xb1; 32])),
        ..Subject::default()
    }
}

/// A process that started, issued, refused, lost something and stopped.
pub(crate) fn life() -> Vec<Entry> {
    let mut chain = Chain::default();
    let start = Subject {
        version: Some("9.9.9".into()),
        boot: Some("00000000000000b0".into()),
        key: Some(Hash([0xc1; 32])),
        ..Subject::default()
    };
    let issued = Subject {
        serial: Some("0102".into()),
        expires_ms: Some(TIME + 1000),
        ..web()
    };
    let evidence = Subject {
        checks: vec!["HOSTDATA".into(), "MEASUREMENT".into()],
        ..Subject::default()
    };
    let attestation = Event {
        kind: Kind::Attestation,
        ..refused("EVIDENCE_REFUSED", evidence)
    };
    let lost = Subject {
        lost: Some(3),
        ..Subject::default()
    };
    let lost = Event {
        kind: Kind::Lost,
        ..refused("FLOOD", lost)
    };
    [
        Event::done(Kind::Start, start),
        Event::done(Kind::Certificate, issued),
        attestation,
        refused("KEY_DENIED", web()),
        lost,
        Event::done(Kind::Stop, Subject::default()),
    ]
    .into_iter()
    .map(|event| chain.append(TIME, event))
    .collect()
}

fn file(entries: &[Entry]) -> String {
    let lines = entries.iter().map(|entry| format!("{}\n", entry.line));
    lines.collect()
}

#[test]
fn whole_stream_holds_between_lines_of_the_log() {
    let context = Context::new();
    let life = life();
    let log = "2026-11-27T10:00:00Z  INFO ready\n";
    let stored = file(&life[..2]) + log + &file(&life[2..]) + &file(&life[..1]);
    context.file("audit.jsonl", &stored);
    let head = life[2].hash.to_string();
    insta::assert_snapshot!(
        "audit_holds",
        context.run(&["audit", "verify", "audit.jsonl"])
    );
    insta::assert_snapshot!(
        "audit_holds_with_head",
        context.run(&[
            "audit",
            "verify",
            "audit.jsonl",
            "--head",
            &head,
            "--format",
            "json"
        ])
    );
    context.file("part.jsonl", &file(&life[3..]));
    insta::assert_snapshot!(
        "audit_part",
        context.run(&["audit", "verify", "part.jsonl"])
    );
}

#[test]
fn broken_stream_is_refused_with_the_line() {
    let context = Context::new();
    let life = life();
    let mut removed = life.clone();
    removed.remove(2);
    context.file("removed.jsonl", &file(&removed));
    insta::assert_snapshot!(
        "audit_removed",
        context.run(&["audit", "verify", "removed.jsonl"])
    );
    context.file(
        "changed.jsonl",
        &file(&life).replace("KEY_DENIED", "KEY_EXPIRED"),
    );
    insta::assert_snapshot!(
        "audit_changed",
        context.run(&["audit", "verify", "changed.jsonl"])
    );
    context.file("cut.jsonl", &file(&life[..4]));
    let head = life[5].hash.to_string();
    insta::assert_snapshot!(
        "audit_cut",
        context.run(&["audit", "verify", "cut.jsonl", "--head", &head])
    );
    let show = context.run(&["audit", "show", "removed.jsonl"]);
    insta::assert_snapshot!("audit_show_broken", show);
}

#[test]
fn files_without_records_and_hashes_that_are_none_are_wrong_use() {
    let context = Context::new();
    context.file("log", "INFO ready\n");
    insta::assert_snapshot!("audit_empty", context.run(&["audit", "verify", "log"]));
    insta::assert_snapshot!("audit_missing", context.run(&["audit", "verify", "none"]));
    let wrong = context.output(&["audit", "verify", "log", "--head", "abc"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let wrong = context.output(&["audit", "show", "log", "--kind", "cert"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn records_are_shown_by_kind_and_outcome() {
    let context = Context::new();
    context.file("audit.jsonl", &file(&life()));
    insta::assert_snapshot!("audit_show", context.run(&["audit", "show", "audit.jsonl"]));
    let refused = [
        "audit",
        "show",
        "audit.jsonl",
        "--refused",
        "--kind",
        "certificate",
    ];
    insta::assert_snapshot!("audit_show_refused", context.run(&refused));
    let json = [&refused[..], &["--format", "json"]].concat();
    insta::assert_snapshot!("audit_show_json", context.run(&json));
}

/// The specification's own way to check one record, with what every system has.
#[test]
fn record_can_be_checked_without_this_program() {
    let context = Context::new();
    let life = life();
    context.file("record", &life[1].line);
    let script = r#"sed -E 's/,"hash":"[0-9a-f]{64}"\}$/}/' record | tr -d '\n' | sha256sum"#;
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(context.path("."))
        .output()
        .expect("sh runs");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(shown, format!("{}  -\n", life[1].hash));
}

#[cfg(feature = "software-tee")]
mod coordinator {
    use contrast_proto::user::RecentDecisions;

    use super::life;
    use crate::fake::{Fake, Script, coordinator, workspace};

    #[test]
    fn latest_decisions_of_an_attested_coordinator_are_shown_in_order() {
        let (context, tee, manifest) = workspace();
        let line = |index: usize| vec![life()[index].line.clone()];
        let script = Script {
            decisions: RecentDecisions {
                issued: line(1),
                refused: line(3),
                other: line(0),
                ..RecentDecisions::default()
            },
            ..Script::default()
        };
        let fake = Fake::start(&tee, coordinator(&manifest), script);
        let address = fake.address();
        let shown = context.run(&["audit", "recent", "-c", &address]);
        insta::assert_snapshot!("audit_recent", fake.hide_address(&shown));
        let shown = context.run(&["audit", "recent", "-c", &address, "--refused"]);
        assert!(
            shown.contains("KEY_DENIED") && !shown.contains("0102"),
            "{shown}"
        );
    }
}
