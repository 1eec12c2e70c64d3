//! Texts of strangers in the page.

use std::fs;

use serde_json::json;

use crate::{proxy, scene::Scene};

/// Tries to run a script in the ways that a page which quotes it would allow; all of it visible ASCII, so that it may be a name in a manifest.
const HOSTILE: [&str; 3] = [
    "<script>document.title='owned'</script>",
    "\"><img/src=\"x\"/onerror=\"document.title='owned'\">",
    "</td></table></script></style><img/src=\"y\"/onerror=\"document.title='owned'\">",
];

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
