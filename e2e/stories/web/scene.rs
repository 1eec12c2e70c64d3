use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use contrast_e2e::harness::{Cluster, CoordinatorPod};
use serde_json::Value;

use crate::browser::{Browser, chromium};

/// A deployment, and the page in a browser.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) coordinator: CoordinatorPod,
    pub(crate) browser: Browser,
    pub(crate) page: String,
    // Dropped last: the others have their files there.
    pub(crate) directory: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new(number: u8) -> Option<Self> {
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

    pub(crate) fn set(&self) {
        let address = self.coordinator.user_api();
        let set = ["set", "-c", &address, "resources"];
        self.cluster.owner().contrast(&set).expect("sets");
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.cluster.owner().file("manifest.json")
    }

    pub(crate) fn copy_of_manifest(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let text = fs::read(self.manifest()).expect("reads");
        let mut manifest = serde_json::from_slice(&text).expect("JSON");
        change(&mut manifest);
        let path = self.directory.path().join(name);
        fs::write(&path, manifest.to_string()).expect("writes");
        path
    }

    /// Fills in the form, presses the button, and returns the title, which is the verdict, and the text of the result.
    pub(crate) fn verify(
        &mut self,
        address: SocketAddr,
        manifest: &Path,
        note: &str,
    ) -> (String, String) {
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
    pub(crate) fn colour(&mut self) -> String {
        let class = "document.getElementById('verdict').parentElement.className";
        self.browser.text(class)
    }
}
