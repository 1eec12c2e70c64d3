//! `initializer check-initdata` as the guest runs it, with the software TEE.

#![allow(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use contrast_attestation::software::SoftwareTee;
use contrast_clock::{SystemWallClock, WallClock as _};
use contrast_initdata::{Initdata, to_device};

struct Guest {
    directory: tempfile::TempDir,
}

impl Guest {
    /// A guest that was started with `document`.
    fn started_with(document: &Initdata) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let tee = SoftwareTee::generate(SystemWallClock.now()).expect("TEE");
        tee.save(&directory.path().join("tee")).expect("saves");
        fs::write(directory.path().join("started"), document.bytes()).expect("writes");
        Self { directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// The host hands over `device`.
    fn check(&self, device: &[u8]) -> Output {
        fs::write(self.path("device"), device).expect("writes");
        Command::new(env!("CARGO_BIN_EXE_initializer"))
            .env_clear()
            .env("CONTRAST_INSECURE_SOFTWARE_TEE", self.path("tee"))
            .env("CONTRAST_INSECURE_INITDATA", self.path("started"))
            .arg("check-initdata")
            .arg("--device")
            .arg(self.path("device"))
            .arg("--output")
            .arg(self.path("output"))
            .output()
            .expect("runs")
    }
}

fn document(policy: &str, more: &str) -> Initdata {
    let text = format!(
        "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"policy.rego\" = '''{policy}'''\n{more}"
    );
    Initdata::parse(text.into_bytes()).expect("document")
}

#[test]
fn policy_of_the_guest_is_written_for_the_agent() {
    let more = "\"aa.toml\" = 'a = 1'\n\"../escape\" = 'x'\n\"other\" = 'y'\n";
    let document = document("package agent_policy\n", more);
    let guest = Guest::started_with(&document);
    let output = guest.check(&to_device(&document).expect("packs"));
    assert!(output.status.success(), "{output:?}");
    let read = |name: &str| fs::read(guest.path("output").join(name)).expect("file");
    assert_eq!(read("policy.rego"), b"package agent_policy\n");
    assert_eq!(read("initdata.toml"), document.bytes());
    assert_eq!(read("aa.toml"), b"a = 1");
    let names = |path: &Path| fs::read_dir(path).expect("list").count();
    assert_eq!(names(&guest.path("output")), 3);
    assert!(!guest.path("escape").exists());
}

#[test]
fn another_document_is_refused_and_nothing_is_written() {
    let own = document("package agent_policy\n", "");
    let other = document("package agent_policy\ndefault AllowAll := true\n", "");
    let guest = Guest::started_with(&own);
    let device = to_device(&own).expect("packs");
    let mut flipped = device.clone();
    if let Some(byte) = flipped.last_mut() {
        *byte ^= 1;
    }
    for (hostile, said) in [
        (to_device(&other).expect("packs"), "another policy"),
        (flipped, "does not hold gzip"),
        (device.get(..40).expect("bytes").to_vec(), "ends after"),
        (Vec::new(), "does not begin with"),
    ] {
        let output = guest.check(&hostile);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(said), "{said}: {text}");
        assert!(!guest.path("output").exists());
    }
}
