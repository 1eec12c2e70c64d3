use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use contrast_manifest::Manifest;

use super::*;
use crate::{
    transition::TransitionHash,
    verify::{
        facts::{Version, Workload},
        fixture::Deployment,
        rows::Rows,
        steps::{Change, Changes, Event, Step, steps},
    },
};

/// What must not become markup, and what must not pass for something else.
const HOSTILE: [&str; 7] = [
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=\"document.title='owned'\">",
    "' onmouseover='document.title=1",
    "</style></code></td></table><script>document.title='owned'</script>",
    "--><!-- ]]> <![CDATA[ <svg/onload=document.title='owned'>",
    "&lt;script&gt; &#60;script&#62;",
    "admin\u{202e}gnp.exe\u{200b}\u{0}\n\u{1b}[2J",
];

/// A report in which every text from outside is `text`, and every part of the page is there.
fn filled_with(text: &str) -> Report {
    let manifest = Manifest::parse(include_bytes!("../../../tests/data/manifest.json"));
    let mut checks = Rows::default();
    for kind in Kind::ALL {
        checks.record(kind, text, text, text, true);
        checks.record(kind, text, text, text, false);
    }
    let certificate = || CertificateFacts {
        subject: text.into(),
        sha256: text.into(),
        key_sha256: text.into(),
        not_before: text.into(),
        not_after: text.into(),
    };
    let changes = || Changes {
        owners: vec![text.into()],
        values: vec![
            Change {
                path: text.into(),
                before: Some(text.into()),
                after: Some(text.into()),
            },
            Change {
                path: text.repeat(200),
                before: Some(text.repeat(200)),
                after: None,
            },
        ],
        note: text.into(),
    };
    let step = |event| Step {
        generation: 1,
        event,
        transition: None,
        manifest_sha256: text.into(),
        manifest: Some(1),
        mesh_ca_key_sha256: text.into(),
        signing_key_sha256: text.into(),
        seed_shared_anew: true,
        changes: changes(),
    };
    Report {
        manifest_sha256: text.into(),
        verified_at: text.into(),
        insecure: true,
        latest_transition: Some(TransitionHash([7; 32])),
        evidence: Some(EvidenceFacts {
            tee: text.into(),
            reference: text.into(),
            insecure: true,
            launch_measurement: text.into(),
            hardware_id: text.into(),
            policy_sha256: text.into(),
            tcb: vec![Version {
                part: "microcode",
                version: text.into(),
            }],
        }),
        authorities: Some(Authorities {
            root: Some(certificate()),
            mesh: Some(certificate()),
        }),
        allowed: Allowed {
            workloads: vec![Workload {
                policy_sha256: text.into(),
                role: text.into(),
                names: vec![text.into(), text.into()],
                workload_secret_id: text.into(),
            }],
            workload_owners: vec![text.into()],
            workload_owner_threshold: 1,
            seedshare_owners: vec![text.into()],
            seedshare_threshold: 1,
        },
        difference: Some(changes()),
        history: [Event::First, Event::Update, Event::Recovery]
            .map(step)
            .to_vec(),
        files: vec![text.into()],
        ..Report::new(
            text.into(),
            &manifest.expect("valid"),
            SystemTime::UNIX_EPOCH,
            checks,
        )
    }
}

/// Everything between `<` and `>`, in order.
fn tags(page: &str) -> Vec<&str> {
    let parts = page.split('<').skip(1);
    parts
        .map(|part| part.split_once('>').expect("a tag that ends").0)
        .collect()
}

#[test]
fn no_text_changes_the_structure_of_the_page() {
    let harmless = page(&filled_with("x"));
    for text in HOSTILE {
        let hostile = page(&filled_with(text));
        assert_eq!(tags(&hostile), tags(&harmless), "{text}");
    }
    let names: Vec<&str> = tags(&harmless)
        .into_iter()
        .filter_map(|tag| tag.split(' ').next())
        .collect();
    for forbidden in [
        "script", "img", "a", "link", "iframe", "object", "form", "svg", "base",
    ] {
        assert!(!names.contains(&forbidden), "{forbidden}");
    }
    assert_eq!(names.iter().filter(|name| **name == "style").count(), 1);
}

#[test]
fn no_text_can_disguise_itself() {
    let shown = page(&filled_with(HOSTILE[6]));
    let expected = "admin\\u{202e}gnp.exe\\u{200b}\\u{0}\\u{a}\\u{1b}[2J";
    assert!(shown.contains(expected), "{shown}");
    let hidden = |character: &char| {
        *character != '\n' && (character.is_control() || "\u{202e}\u{200b}".contains(*character))
    };
    assert_eq!(shown.chars().find(hidden), None);
}

#[test]
fn policy_allows_the_style_sheet_that_is_in_the_page_and_nothing_else() {
    let page = page(&filled_with("x"));
    let (before, rest) = page.split_once("<style>").expect("a style sheet");
    let (style, _) = rest.split_once("</style>").expect("its end");
    let hash = BASE64_STANDARD.encode(sha256(style.as_bytes()));
    let policy = format!(
        "content=\"default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\""
    );
    assert!(before.contains(&policy), "{before}");
    for remote in ["url(", "@import", "//", "src=", "href="] {
        assert!(!page.contains(remote), "{remote}");
    }
}

#[test]
fn every_failed_check_is_explained() {
    let page = page(&filled_with("x"));
    for kind in Kind::ALL {
        let mut meaning = Markup::default();
        meaning.text(kind.meaning());
        let meaning = meaning.into_page();
        assert_eq!(page.matches(&meaning).count(), 2, "{meaning}");
    }
}

#[test]
fn page_of_a_fixed_history() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let deployment = Deployment::at(now);
    let history = deployment.check();
    let manifest = Manifest::parse(&deployment.answer.manifests[1]).expect("valid");
    let mut checks = history.consistent.clone();
    let hash = manifest.hash().to_string();
    checks.equal(
        Kind::NewestManifest,
        "newest manifest SHA-256",
        &hash,
        &hash,
    );
    let answer = &deployment.answer;
    let mut report = Report {
        latest_transition: history.latest(),
        evidence: Some(EvidenceFacts {
            tee: "SEV-SNP".into(),
            reference: "snp[0] Metal-QEMU-SNP".into(),
            insecure: false,
            launch_measurement: "ab".repeat(48),
            hardware_id: "cd".repeat(64),
            policy_sha256: "ef".repeat(32),
            tcb: vec![Version {
                part: "microcode",
                version: "115".into(),
            }],
        }),
        authorities: Some(Authorities::of(&answer.root_ca, &answer.mesh_ca)),
        history: steps(answer, &history),
        files: vec!["verify/manifest.0.json".into()],
        ..Report::new("coordinator:1313".into(), &manifest, now, checks)
    };
    // ECDSA signatures are random, and with them the hash of a certificate.
    let authorities = report.authorities.as_mut().expect("authorities");
    for certificate in [&mut authorities.root, &mut authorities.mesh] {
        certificate.as_mut().expect("a certificate").sha256 = "00".repeat(32);
    }
    insta::assert_snapshot!("page", page(&report));
}
