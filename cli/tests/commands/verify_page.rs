//! The page of `verify --html`: written whatever the verdict is, and harmless in a real browser whatever a manifest says.

use std::{path::Path, process::Command};

use contrast_attestation::{PolicyHash, software::SoftwareTee};
use contrast_cli::transition::{sha256, transition_hash};
use contrast_clock::{SeededEntropy, SystemWallClock, WallClock as _};
use contrast_manifest::Manifest;
use contrast_pki::{MeshCa, RootCa, SigningKey};
use contrast_proto::user::{GetManifestsResponse, Transition};

use crate::{
    context::Context,
    fake::{Fake, Script, coordinator, workspace},
};

const COORDINATOR: &str = include_str!("../data/coordinator.toml");
const WEB: &str = include_str!("../data/web.toml");
const TITLE_VERIFIED: &str = "<title>Verified: report of contrast verify</title>";
const TITLE_REFUSED: &str = "<title>Refused: report of contrast verify</title>";
/// Tries to run a script in every way that a page which quotes it would allow.
const HOSTILE: [&str; 4] = [
    "<script>document.title='owned'</script>",
    "\\\"><img src=x onerror=\\\"document.title='owned'\\\">",
    "</style></code></td></table><script>document.title='owned'</script>",
    "admin\u{202e}gnp.exe",
];

/// A history of these manifests, as a Coordinator that holds the seed signs it.
fn history(manifests: &[Vec<u8>]) -> GetManifestsResponse {
    let entropy = SeededEntropy::new(3);
    let now = SystemWallClock.now();
    let key = |entropy| SigningKey::generate(entropy).expect("key");
    let root = RootCa::new(key(&entropy), now).expect("root CA");
    let mesh = MeshCa::generate(&entropy, &root, now).expect("mesh CA");
    let signing_key = key(&entropy);
    let mut answer = GetManifestsResponse {
        root_ca: root.certificate_pem(),
        mesh_ca: mesh.self_signed_pem(),
        policies: vec![COORDINATOR.as_bytes().into(), WEB.as_bytes().into()],
        ..GetManifestsResponse::default()
    };
    let mut previous = [0; 32];
    for manifest in manifests {
        let mut transition = Transition {
            manifest_hash: sha256(manifest).to_vec().into(),
            previous: previous.to_vec().into(),
            mesh_ca_public_key: mesh.public_key_spki().to_vec().into(),
            signature: Vec::new().into(),
            signing_public_key: signing_key.public_key_spki().to_vec().into(),
            seed_shares_digest: vec![1; 32].into(),
        };
        previous = transition_hash(&transition).expect("hash").0;
        let signature = signing_key.sign_sha384(&previous).expect("signs");
        transition.signature = signature.into();
        answer.transitions.push(transition);
        answer.manifests.push(manifest.clone().into());
    }
    answer
}

fn start(manifest: &Manifest, tee: &SoftwareTee, manifests: &[Vec<u8>]) -> Fake {
    let script = Script {
        history: history(manifests),
        ..Script::default()
    };
    Fake::start(tee, coordinator(manifest), script)
}

/// Runs `verify --html` and returns its exit code and the page.
fn verify(context: &Context, fake: &Fake, page: &str) -> (Option<i32>, String) {
    let output = context.output(&["verify", "-c", &fake.address(), "--html", page]);
    let written = std::fs::read_to_string(context.path(page));
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(stdout.contains("wrote "), "{stdout}");
    (output.status.code(), written.expect("a page"))
}

#[test]
fn verified_deployment_has_a_page() {
    let (context, tee, manifest) = workspace();
    let fake = start(&manifest, &tee, &[manifest.bytes().to_vec()]);
    let (code, page) = verify(&context, &fake, "report.html");
    assert_eq!(code, Some(0), "{page}");
    for part in [
        TITLE_VERIFIED,
        "INSECURE: this manifest, or an earlier one of the deployment, accepts evidence of a software TEE.",
        &manifest.hash().to_string(),
        &fake.address(),
        "1. first manifest",
        "SEV-SNP",
    ] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
}

#[test]
fn refused_evidence_has_a_page_with_the_failed_checks_and_their_meaning() {
    let (context, tee, _) = workspace();
    let fake = Fake::start(&tee, PolicyHash([9; 32]), Script::default());
    let (code, page) = verify(&context, &fake, "report.html");
    assert_eq!(code, Some(1), "{page}");
    for part in [
        TITLE_REFUSED,
        "What failed",
        "HOSTDATA",
        &"09".repeat(32),
        "something else than a Coordinator of this manifest may run there",
        "The evidence was not accepted",
    ] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
}

#[test]
fn page_that_cannot_be_written_does_not_hide_the_verdict() {
    let (context, tee, manifest) = workspace();
    let verified = start(&manifest, &tee, &[manifest.bytes().to_vec()]);
    let refused = Fake::start(&tee, PolicyHash([9; 32]), Script::default());
    context.file("occupied/file", "");
    for (fake, code, word) in [
        (verified, 70, "verified (INSECURE)"),
        (refused, 1, "refused"),
    ] {
        let output = context.output(&["verify", "-c", &fake.address(), "--html", "occupied"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(
            stdout.contains(word) && !stdout.contains("occupied"),
            "{stdout}"
        );
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(stderr.contains("cannot write `occupied`"), "{stderr}");
    }
}

#[test]
fn hostile_manifest_runs_nothing_in_a_browser() {
    let (context, tee, manifest) = workspace();
    let given = String::from_utf8(manifest.bytes().to_vec()).expect("UTF-8");
    let updates = HOSTILE.iter().flat_map(|text| {
        ["\"web\"", "apps/v1/Deployment/default/web", "\"SANs\""].map(|place| {
            let with = match place.starts_with('"') {
                true => format!("\"{text}\""),
                false => (*text).to_owned(),
            };
            given.replace(place, &with).into_bytes()
        })
    });
    let mut manifests: Vec<_> = vec![given.clone().into_bytes()];
    manifests.extend(updates);
    let fake = start(&manifest, &tee, &manifests);
    let name = "\"><img src=x onerror=\"document.title='owned'\">.html";
    let (code, page) = verify(&context, &fake, name);
    assert_eq!(code, Some(1), "{page}");
    assert!(
        page.contains("&lt;script&gt;document.title=&#39;owned&#39;"),
        "{page}"
    );
    assert!(page.contains("admin\\u{202e}gnp.exe"), "{page}");
    let line_break = "\\u{a}";
    assert!(
        !page.contains(line_break),
        "a text of ours has lines: {page}"
    );

    let Some(chromium) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
    else {
        eprintln!("skipped: no Chromium, so no browser has opened the page");
        return;
    };
    let open = |page: &str| {
        let path = context.file("opened.html", page);
        dump(chromium, &path, &context.path("profile"))
    };
    // The payload works where nothing holds it back: otherwise the test could not fail.
    let payload = "<script>document.title='owned'</script>";
    let bare = format!("<!DOCTYPE html><title>before</title>{payload}");
    assert!(open(&bare).contains("<title>owned</title>"));

    let opened = open(&page);
    assert!(opened.contains(TITLE_REFUSED), "{opened}");
    assert!(
        opened.contains("</html>") && !opened.contains("<img"),
        "{opened}"
    );

    // Were the escaping broken, the policy would still hold.
    let broken = page.replace("</body>", &format!("{payload}</body>"));
    assert!(open(&broken).contains(TITLE_REFUSED));
}

/// The document as the browser has it after all scripts ran.
fn dump(chromium: &str, page: &Path, profile: &Path) -> String {
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .env("HOME", profile)
        .output()
        .expect("Chromium starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
