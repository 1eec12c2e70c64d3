//! What is in the logs, and what is left when all is over.

use std::{
    fs,
    path::{Path, PathBuf},
};

use contrast_pki::{
    Derivation, Salt, Seed,
    shares::{SeedSharesDocument, decrypt_share},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;

use crate::{ledger::Ledger, scene::Scene};

#[allow(dead_code, reason = "the other story looks into memory, too")]
#[path = "../leaks/needles.rs"]
mod needles;
use needles::Needle;

/// Bytes of a scalar of P-256 and P-384 in PKCS#8 come after this.
const SCALAR_TAG: u8 = 0x04;

fn log_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            log_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "log") {
            found.push(path);
        }
    }
}

fn secrets(scene: &Scene) -> Vec<Needle> {
    let owner = scene.cluster.owner();
    let shares = owner.read("seed-shares.json").expect("reads");
    let shares = SeedSharesDocument::from_json(shares.as_bytes()).expect("parses");
    let share = decrypt_share(&shares, &owner.read("seedshare-owner.pem").expect("reads"));
    let seed = Seed::from_slice(share.expect("own share").expose()).expect("a seed");
    let derivation = Derivation::new(&seed, &Salt::from_slice(&shares.salt).expect("a salt"));
    let manifest: Value =
        serde_json::from_str(&owner.read("manifest.json").expect("reads")).expect("JSON");
    let mut needles = vec![Needle::new("seed", seed.expose())];
    for workload in &scene.workloads {
        let entry = &manifest["Policies"][&workload.policy];
        let id = entry["WorkloadSecretID"].as_str().unwrap_or_default();
        if !id.is_empty() {
            let secret = derivation.workload_secret(id).expect("derives");
            needles.push(Needle::new("workload secret", secret.expose()));
        }
        let key = PrivateKeyDer::from_pem_file(workload.pod().file("tls-config/key.pem"));
        let key = key.expect("a key").secret_der().to_vec();
        needles.push(Needle::new("key of a workload", scalar(&key)));
    }
    needles
}

/// The secret number in the PKCS#8 form of a key: the octet string after the version of the inner structure.
fn scalar(key: &[u8]) -> &[u8] {
    let at = |index: usize| key.get(index).copied().map(usize::from);
    let found = (0..key.len()).find(|index| {
        let version = key.get(index.saturating_sub(3)..*index) == Some(&[2, 1, 1]);
        version && at(*index) == Some(SCALAR_TAG.into())
    });
    let start = found.expect("a key on a curve") + 2;
    let length = at(start - 1).expect("a length");
    &key[start..start + length]
}

/// No panic, no secret, and no record of an alarm that nobody looked at.
pub(crate) fn judge(scene: &Scene, ledger: &Ledger, dashboard: &Value) -> usize {
    let mut files = Vec::new();
    log_files(scene.path(), &mut files);
    let needles = secrets(scene);
    let mut texts: Vec<(String, Vec<u8>)> = files
        .iter()
        .map(|file| {
            let text = fs::read(file).expect("reads");
            (file.display().to_string(), text)
        })
        .collect();
    texts.push((
        "the dashboard".to_owned(),
        dashboard.to_string().into_bytes(),
    ));
    for (name, text) in &texts {
        for word in ["panicked at", "stack backtrace"] {
            let found = memchr::memmem::find(text, word.as_bytes()).is_some();
            ledger.require(!found, || format!("`{word}` in {name}"));
        }
        for needle in &needles {
            let forms = needle.found_in(text);
            ledger.require(forms.is_empty(), || {
                format!("the {} is in {name}, as {forms:?}", needle.name)
            });
        }
    }
    texts.len()
}

/// No namespace and no process of this run.
pub(crate) fn nothing_is_left(directory: &tempfile::TempDir) {
    let end = format!("-{}", std::process::id());
    for place in ["/run/netns", "/etc/netns"] {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let left: Vec<String> = names
            .filter(|name| name.starts_with("contrast-") && name.ends_with(&end))
            .collect();
        assert!(left.is_empty(), "left in {place}: {left:?}");
    }
    let path = directory.path().to_string_lossy().into_owned().into_bytes();
    let processes = fs::read_dir("/proc").expect("lists").flatten();
    let ours = processes.filter(|process| {
        let name = process.file_name();
        let another = name != std::process::id().to_string().as_str();
        let mentions = |file: &str| {
            let text = fs::read(process.path().join(file)).unwrap_or_default();
            memchr::memmem::find(&text, &path).is_some()
        };
        another && (mentions("environ") || mentions("cmdline"))
    });
    let left: Vec<_> = ours.map(|process| process.file_name()).collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
}
