//! The module in a real runtime of WebAssembly, with the page's JavaScript: it says what the SDK says.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that meets the unexpected has to stop, and says why it is skipped"
)]

#[path = "../../sdk/tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use contrast_attestation::Tee;
use contrast_sdk::{
    Nonce,
    history::{KnownTransition, Memory},
    report::Report,
    transition::TransitionHash,
};
use serde_json::{Value, json};
use support::{COORDINATOR, Deployment, NONCE, WEB, latest};

/// What a person types, and who is asked: as the SDK's `AttestUrl` completes it.
const URLS: [(&str, &str); 9] = [
    ("host", "http://host:1314/v1/attest"),
    (" host:80 ", "http://host/v1/attest"),
    ("[::1]", "http://[::1]:1314/v1/attest"),
    ("http://host", "http://host/v1/attest"),
    ("https://host/a?b=c#d", "https://host/a"),
    ("host/a", "http://host:1314/a"),
    ("http://user@host", "BAD_ADDRESS"),
    ("javascript://host", "BAD_ADDRESS"),
    ("http://", "BAD_ADDRESS"),
];

/// One question to both.
struct Case {
    name: &'static str,
    answer: Vec<u8>,
    manifest: Vec<u8>,
    nonce: Nonce,
    now: SystemTime,
    remembered: Option<TransitionHash>,
}

impl Case {
    fn milliseconds(&self) -> u64 {
        let since = self.now.duration_since(SystemTime::UNIX_EPOCH);
        since.expect("after 1970").as_millis() as u64
    }

    fn inputs(&self) -> Value {
        let base64 = |bytes: &[u8]| contrast_attest_document::Blob(bytes.to_vec());
        let memory = self.remembered.map(|hash| json!({"transitions": [hash]}));
        let mut inputs = json!({
            "answer": base64(&self.answer),
            "manifest": base64(&self.manifest),
            "nonce": base64(&self.nonce.0),
            "now": self.milliseconds(),
        });
        if let Some(memory) = memory {
            inputs["memory"] = memory;
        }
        inputs
    }

    /// What the SDK of this machine says.
    fn native(&self) -> Value {
        let known = |hash| KnownTransition {
            hash,
            source: "your notes".to_owned(),
        };
        let memory = Memory {
            transitions: self.remembered.into_iter().map(known).collect(),
            root_ca: None,
        };
        // JavaScript has no more than milliseconds.
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.milliseconds());
        match Report::of_answer(&self.answer, &self.nonce, &self.manifest, &memory, now) {
            Ok(report) => serde_json::to_value(report).expect("JSON"),
            Err(error) => json!({"code": error.code()}),
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kind, initdata, omit) in [
        ("SEV-SNP", Tee::Snp, COORDINATOR, false),
        ("TDX", Tee::Tdx, COORDINATOR, true),
        ("evidence of a workload", Tee::Snp, WEB, false),
    ] {
        let deployment = Deployment::new(kind);
        let answer = deployment.answer(initdata, omit);
        cases.push(Case {
            name,
            answer: answer.to_json().expect("answer"),
            manifest: deployment.manifest.clone(),
            nonce: NONCE,
            now: deployment.now,
            remembered: Some(latest(&deployment.history)),
        });
    }
    let deployment = Deployment::new(Tee::Snp);
    let answer = deployment.answer(COORDINATOR, false);
    let mut altered = answer.clone();
    altered.statement.0.push(b' ');
    let json = answer.to_json().expect("answer");
    let mut case = |name, change: &dyn Fn(&mut Case)| {
        let mut case = Case {
            name,
            answer: json.clone(),
            manifest: deployment.manifest.clone(),
            nonce: NONCE,
            now: deployment.now,
            remembered: None,
        };
        change(&mut case);
        cases.push(case);
    };
    case("altered statement", &|case| {
        case.answer = altered.to_json().expect("answer");
    });
    case("another manifest", &|case| case.manifest.push(b'\n'));
    case("no manifest", &|case| {
        case.manifest = b"{\"\\u202e<script>\":1}".to_vec();
    });
    case("another nonce", &|case| case.nonce = Nonce([8; 32]));
    case("no answer", &|case| case.answer.truncate(100));
    case("rolled back", &|case| {
        case.remembered = Some(TransitionHash([9; 32]));
    });
    case("certificates that ended", &|case| {
        case.now += Duration::from_secs(60 * 365 * 24 * 3600);
    });
    cases
}

#[test]
fn module_reports_what_the_sdk_reports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = |name: &str| -> PathBuf { root.join("target/web").join(name) };
    if !built("verify.wasm").is_file() {
        eprintln!("SKIPPED the module: run `cargo xtask web` first");
        return;
    }
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("SKIPPED the module: there is no `node` (Debian: nodejs)");
        return;
    }
    let cases = cases();
    let directory = tempfile::tempdir().expect("directory");
    let inputs: Vec<Value> = cases.iter().map(Case::inputs).collect();
    let file = directory.path().join("cases.json");
    let typed = URLS.map(|(typed, _)| typed);
    let given = json!({"cases": inputs, "typed": typed});
    fs::write(&file, given.to_string()).expect("writes");
    let output = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judge.mjs"))
        .args([built("verify.mjs"), built("verify.wasm"), file])
        .output()
        .expect("node runs");
    assert!(output.status.success(), "{output:?}");
    let output: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        output["imports"], 0,
        "the module asks its host for something"
    );
    let urls = URLS.map(|(_, url)| match url {
        "BAD_ADDRESS" => url.to_owned(),
        url => format!("{url}?nonce=__________________________________________8"),
    });
    assert_eq!(output["urls"], json!(urls));
    let outcomes = output["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), cases.len());
    let mut verdicts = Vec::new();
    for (case, outcome) in cases.iter().zip(outcomes) {
        let native = case.native();
        match native.get("code") {
            Some(code) => assert_eq!(&outcome["code"], code, "{}", case.name),
            None => assert_eq!(outcome, &native, "{}", case.name),
        }
        let verdict = native.get("verdict").or_else(|| native.get("code"));
        verdicts.push(verdict.and_then(Value::as_str).expect("one").to_owned());
    }
    let wanted = [
        "verified",
        "verified",
        "refused",
        "refused",
        "refused",
        "refused",
        "OTHER_NONCE",
        "NOT_AN_ANSWER",
        "refused",
        "refused",
    ];
    assert_eq!(verdicts, wanted);
}
