//! A data owner opens the page that `cargo xtask web` builds in a browser and verifies a Coordinator that runs.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says why it is skipped"
)]

mod browser;
mod proxy;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use browser::{Browser, chromium};
use contrast_attest_document::Answer;
use contrast_e2e::harness::{Cluster, CoordinatorPod};
use serde_json::{Value, json};

/// Tries to run a script in the ways that a page which quotes it would allow; all of it visible ASCII, so that it may be a name in a manifest.
const HOSTILE: [&str; 3] = [
    "<script>document.title='owned'</script>",
    "\"><img/src=\"x\"/onerror=\"document.title='owned'\">",
    "</td></table></script></style><img/src=\"y\"/onerror=\"document.title='owned'\">",
];

/// A deployment, and the page in a browser.
struct Scene {
    cluster: Cluster,
    coordinator: CoordinatorPod,
    browser: Browser,
    page: String,
    // Dropped last: the others have their files there.
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(number: u8) -> Option<Self> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/web/verify.html");
        let missing = match (chromium(), page.canonicalize()) {
            (Some(chromium), Ok(page)) => Ok((chromium, page)),
            (None, _) => Err("there is no Chromium"),
            (_, Err(_)) => Err("run `cargo xtask web` first"),
        };
        let (chromium, page) = match missing {
            Ok(found) => found,
            Err(reason) => {
                eprintln!("SKIPPED the page in a browser: {reason}");
                return None;
            }
        };
        let directory = tempfile::tempdir().expect("directory");
        let cluster = Cluster::create(directory.path(), number).expect("cluster");
        cluster.generate().expect("generates");
        let coordinator = cluster.start_coordinator().expect("starts");
        let browser = Browser::start(chromium, &directory.path().join("browser"));
        let mut scene = Self {
            cluster,
            coordinator,
            browser,
            page: format!("file://{}", page.display()),
            directory,
        };
        scene.browser.open(&scene.page);
        Some(scene)
    }

    fn set(&self) {
        let address = self.coordinator.user_api();
        let set = ["set", "-c", &address, "resources"];
        self.cluster.owner().contrast(&set).expect("sets");
    }

    fn manifest(&self) -> PathBuf {
        self.cluster.owner().file("manifest.json")
    }

    fn copy_of_manifest(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let text = fs::read(self.manifest()).expect("reads");
        let mut manifest = serde_json::from_slice(&text).expect("JSON");
        change(&mut manifest);
        let path = self.directory.path().join(name);
        fs::write(&path, manifest.to_string()).expect("writes");
        path
    }

    /// Fills in the form, presses the button, and returns the title, which is the verdict, and the text of the result.
    fn verify(&mut self, address: SocketAddr, manifest: &Path, note: &str) -> (String, String) {
        self.browser.type_into("address", &address.to_string());
        self.browser.choose("manifest", manifest);
        self.browser.type_into("transition", note);
        self.browser
            .evaluate("document.getElementById('verify').click()");
        self.browser
            .wait_until("!document.getElementById('result').hidden");
        let shown = "document.getElementById('result').textContent";
        (
            self.browser.text("document.title"),
            self.browser.text(shown),
        )
    }

    /// Class of the box with the verdict, which its colour hangs on.
    fn colour(&mut self) -> String {
        let class = "document.getElementById('verdict').parentElement.className";
        self.browser.text(class)
    }
}

#[test]
fn right_manifest_is_verified_and_another_one_is_refused() {
    let Some(mut scene) = Scene::new(60) else {
        return;
    };
    let api = scene.coordinator.attest_api;
    let manifest = scene.manifest();

    let (title, shown) = scene.verify(api, &manifest, "");
    assert_eq!(title, "No verdict");
    assert!(shown.contains("status 503: NO_MANIFEST"), "{shown}");
    assert_eq!(scene.colour(), "problem");

    scene.set();
    scene.browser.asked();
    let (title, shown) = scene.verify(api, &manifest, "");
    assert_eq!(
        title,
        format!("Verified (INSECURE): http://{api}"),
        "{shown}"
    );
    assert_eq!(scene.colour(), "insecure");
    let asked = scene.browser.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let question = format!("http://{api}/v1/attest?nonce=");
    assert!(asked[0].starts_with(&question), "{asked:?}");

    let owner = scene.cluster.owner();
    let noted = owner.read("latest-transition").expect("reads");
    let mesh_ca = owner.read("mesh-ca.pem").expect("reads");
    let latest = scene
        .browser
        .text("document.getElementById('latest').textContent");
    assert_eq!(latest, noted.trim());
    scene
        .browser
        .evaluate("[...document.querySelectorAll('button')].find((b) => b.textContent.includes('mesh-ca')).click()");
    let saved = scene.directory.path().join("browser/saved/mesh-ca.pem");
    let start = std::time::Instant::now();
    while fs::read_to_string(&saved).ok().as_deref() != Some(&mesh_ca) {
        assert!(
            start.elapsed().as_secs() < 30,
            "{} is not there",
            saved.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    let (title, shown) = scene.verify(api, &manifest, &latest);
    assert!(title.starts_with("Verified"), "{shown}");
    assert!(shown.contains("transition of `your notes`"), "{shown}");
    let (title, shown) = scene.verify(api, &manifest, &"0".repeat(64));
    assert!(title.starts_with("Refused"), "{shown}");
    assert!(shown.contains("not in the history"), "{shown}");
    assert_eq!(scene.colour(), "refused");

    let workload = scene.copy_of_manifest("changed.json", |manifest| {
        let policies = manifest["Policies"].as_object_mut().expect("policies");
        let entry = policies.values_mut().next().expect("one");
        entry["SANs"] = json!(["changed.example"]);
    });
    let (title, shown) = scene.verify(api, &workload, "");
    assert!(title.starts_with("Refused"), "{shown}");
    assert!(shown.contains("newest manifest SHA-256"), "{shown}");
    assert!(shown.contains("1 of "), "{shown}");
    assert!(!shown.contains("Save mesh-ca.pem"), "{shown}");

    let coordinator = scene.copy_of_manifest("other.json", |manifest| {
        let policies = manifest["Policies"].as_object_mut().expect("policies");
        let is_coordinator = |entry: &Value| entry["Role"] == "coordinator";
        let found = policies.iter().find(|(_, entry)| is_coordinator(entry));
        let (hash, entry) = found.expect("a Coordinator");
        let (hash, entry) = (hash.clone(), entry.clone());
        policies.remove(&hash);
        policies.insert("0".repeat(64), entry);
    });
    let (title, shown) = scene.verify(api, &coordinator, "");
    assert!(title.starts_with("Refused"), "{shown}");
    assert!(shown.contains("HOSTDATA"), "{shown}");
}

#[test]
fn answers_that_somebody_changed_or_kept_prove_nothing() {
    let Some(mut scene) = Scene::new(61) else {
        return;
    };
    scene.set();
    let api = scene.coordinator.attest_api;
    let manifest = scene.manifest();

    let unchanged = proxy::start(api, Box::new(|status, body| (status, body)));
    let (title, shown) = scene.verify(unchanged, &manifest, "");
    assert!(title.starts_with("Verified"), "{shown}");

    let changed = proxy::start(
        api,
        Box::new(|status, body| {
            let mut answer = Answer::parse(&body).expect("an answer");
            answer.statement.0.push(b' ');
            (status, answer.to_json().expect("JSON"))
        }),
    );
    let (title, shown) = scene.verify(changed, &manifest, "");
    assert!(title.starts_with("Refused"), "{shown}");
    assert!(shown.contains("REPORT_DATA"), "{shown}");

    let nonce = contrast_attest_document::Nonce([7; 32]).to_base64url();
    let (_, old) = proxy::get(api, &format!("/v1/attest?nonce={nonce}"));
    let kept = proxy::start(api, Box::new(move |status, _| (status, old.clone())));
    let (title, shown) = scene.verify(kept, &manifest, "");
    assert_eq!(title, "No verdict", "{shown}");
    assert!(shown.contains("OTHER_NONCE"), "{shown}");

    let page = proxy::start(api, Box::new(|_, _| (200, b"<html>hello</html>".to_vec())));
    let (title, shown) = scene.verify(page, &manifest, "");
    assert_eq!(title, "No verdict", "{shown}");
    assert!(shown.contains("NOT_AN_ANSWER"), "{shown}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let nobody = closed.local_addr().expect("address");
    drop(closed);
    let (title, shown) = scene.verify(nobody, &manifest, "");
    assert_eq!(title, "No verdict", "{shown}");
    assert!(shown.contains("NO_ANSWER"), "{shown}");
}

#[test]
fn hostile_texts_run_nothing() {
    let Some(mut scene) = Scene::new(62) else {
        return;
    };
    // The payloads work where nothing holds them back: otherwise the test could not fail.
    let bare = scene.directory.path().join("bare.html");
    let insert = |text: &str| {
        format!(
            "document.body.insertAdjacentHTML('beforeend', {})",
            json!(text)
        )
    };
    fs::write(&bare, format!("<!DOCTYPE html><body>{}", HOSTILE[0])).expect("writes");
    scene.browser.open(&format!("file://{}", bare.display()));
    for text in &HOSTILE[1..] {
        scene.browser.wait_until("document.title === 'owned'");
        scene.browser.evaluate("document.title = 'before'");
        scene.browser.evaluate(&insert(text));
    }
    scene.browser.wait_until("document.title === 'owned'");
    let page = scene.page.clone();
    scene.browser.open(&page);

    let api = scene.coordinator.attest_api;
    scene
        .cluster
        .owner()
        .edit_manifest(|manifest| {
            for entry in manifest["Policies"]
                .as_object_mut()
                .expect("policies")
                .values_mut()
            {
                if entry["Role"] != "coordinator" {
                    entry["SANs"] = json!(HOSTILE);
                }
            }
        })
        .expect("edits");
    scene.set();
    let manifest = scene.manifest();
    let (title, shown) = scene.verify(api, &manifest, "");
    assert!(title.starts_with("Verified"), "{shown}");
    let mut seen = vec![shown];

    let invalid = scene.copy_of_manifest("invalid.json", |manifest| {
        manifest["SeedshareOwnerPubKeys"] = json!(HOSTILE);
        for text in HOSTILE {
            manifest[text] = json!(text);
        }
    });
    let (title, shown) = scene.verify(api, &invalid, "");
    assert!(title.starts_with("Refused"), "{shown}");
    seen.push(shown);

    let body = json!({"error": {"code": HOSTILE[1], "message": HOSTILE.join("\u{202e}\n")}});
    let body = body.to_string().into_bytes();
    let rude = proxy::start(api, Box::new(move |_, _| (503, body.clone())));
    let (title, shown) = scene.verify(rude, &manifest, "");
    assert_eq!(title, "No verdict", "{shown}");
    assert!(shown.contains("\\u{202e}\\u{a}"), "{shown}");
    seen.push(shown);

    for shown in seen {
        assert!(shown.contains("<script>document.title="), "{shown}");
    }
    let made = "document.querySelectorAll('#result script, #result img').length";
    assert_eq!(scene.browser.evaluate(made), json!(0));

    // Were a text to become markup, the page's policy would still hold.
    for text in HOSTILE {
        scene.browser.evaluate(&insert(text));
    }
    scene
        .browser
        .wait_until("[...document.images].every((image) => image.complete)");
    let title = scene.browser.text("document.title");
    assert_eq!(title, "No verdict");
    let script = "const made = document.createElement('script'); made.textContent = \"document.title = 'owned'\"; \
        document.body.append(made);";
    scene.browser.evaluate(script);
    assert_eq!(scene.browser.text("document.title"), "No verdict");
}
