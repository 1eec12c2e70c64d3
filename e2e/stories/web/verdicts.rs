//! What the page says to whom, and that it asks nobody else.

use std::{
    fs,
    net::TcpListener,
    thread::sleep,
    time::{Duration, Instant},
};

use contrast_attest_document::{Answer, Nonce};
use serde_json::{Value, json};

use crate::{proxy, scene::Scene};

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
    let start = Instant::now();
    while fs::read_to_string(&saved).ok().as_deref() != Some(&mesh_ca) {
        assert!(
            start.elapsed().as_secs() < 30,
            "{} is not there",
            saved.display()
        );
        sleep(Duration::from_millis(20));
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

    let nonce = Nonce([7; 32]).to_base64url();
    let (_, old) = proxy::get(api, &format!("/v1/attest?nonce={nonce}"));
    let kept = proxy::start(api, Box::new(move |status, _| (status, old.clone())));
    let (title, shown) = scene.verify(kept, &manifest, "");
    assert_eq!(title, "No verdict", "{shown}");
    assert!(shown.contains("OTHER_NONCE"), "{shown}");

    let page = proxy::start(api, Box::new(|_, _| (200, b"<html>hello</html>".to_vec())));
    let (title, shown) = scene.verify(page, &manifest, "");
    assert_eq!(title, "No verdict", "{shown}");
    assert!(shown.contains("NOT_AN_ANSWER"), "{shown}");

    let closed = TcpListener::bind("127.0.0.1:0").expect("binds");
    let nobody = closed.local_addr().expect("address");
    drop(closed);
    let (title, shown) = scene.verify(nobody, &manifest, "");
    assert_eq!(title, "No verdict", "{shown}");
    assert!(shown.contains("NO_ANSWER"), "{shown}");
}
