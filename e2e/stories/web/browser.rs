//! A headless Chromium that does what a person would: opens a page, chooses files, types, presses a button, reads.
//!
//! It is asked over two pipes with the protocol of its developer tools, in messages of JSON that end with a zero byte.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// After so many seconds it is ended, so that no test waits for ever.
const LIFETIME: &str = "180";
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page open.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    number: u64,
    session: Option<String>,
    events: Vec<Value>,
}

/// The program, if there is one.
pub(crate) fn chromium() -> Option<&'static str> {
    PROGRAMS
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok())
}

impl Browser {
    /// Starts `chromium` with its files in `profile`; what is saved lands in `profile/saved`.
    pub(crate) fn start(chromium: &str, profile: &Path) -> Self {
        let saved = profile.join("saved");
        fs::create_dir_all(&saved).expect("directory");
        let log = fs::File::create(profile.join("chromium.log")).expect("log");
        // It reads messages from descriptor 3 and writes them to 4.
        let mut child = Command::new("sh")
            .args([
                "-c",
                r#"exec timeout "$@" 3<&0 4>&1 </dev/null >/dev/null"#,
                "sh",
            ])
            .args(["--kill-after=5", LIFETIME, chromium])
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("HOME", profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("starts");
        let to = child.stdin.take().expect("piped");
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let mut browser = Self {
            child,
            to,
            from,
            number: 0,
            session: None,
            events: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach);
        let behaviour = json!({"behavior": "allow", "downloadPath": saved});
        browser.call("Browser.setDownloadBehavior", behaviour);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a page and waits until it is ready.
    pub(crate) fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url}));
        assert!(answer.get("errorText").is_none(), "{answer}");
        let there = format!(
            "document.readyState === 'complete' && location.href === {}",
            json!(url)
        );
        self.wait_until(&there);
    }

    /// Value of an expression in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let question =
            json!({"expression": expression, "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", question);
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.evaluate(expression);
        value.as_str().expect("a text").to_owned()
    }

    pub(crate) fn wait_until(&mut self, condition: &str) {
        let start = Instant::now();
        while self.evaluate(condition) != json!(true) {
            assert!(start.elapsed() < PATIENCE, "still waiting for {condition}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Chooses a file, as a person does in the dialogue.
    pub(crate) fn choose(&mut self, id: &str, file: &Path) {
        let expression = format!("document.getElementById({})", json!(id));
        let answer = self.call("Runtime.evaluate", json!({"expression": expression}));
        let object = &answer["result"]["objectId"];
        assert!(object.is_string(), "no element {id}");
        let files = json!({"files": [file], "objectId": object});
        self.call("DOM.setFileInputFiles", files);
    }

    /// Types into a field, whatever was there.
    pub(crate) fn type_into(&mut self, id: &str, text: &str) {
        let field = format!("document.getElementById({})", json!(id));
        self.evaluate(&format!("{field}.focus(), {field}.select()"));
        match text {
            "" => {
                self.evaluate(&format!("{field}.value = ''"));
            }
            text => {
                self.call("Input.insertText", json!({"text": text}));
            }
        }
    }

    /// Addresses that the pages asked since the last time, but for parts of themselves.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        // Events that came before the answer have been read.
        self.evaluate("1");
        let events = std::mem::take(&mut self.events);
        let requests = events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .filter_map(|event| event["params"]["request"]["url"].as_str())
            .filter(|url| !url.starts_with("blob:") && !url.starts_with("data:"))
            .map(str::to_owned)
            .collect()
    }

    /// A picture of the page's first so many pixels, PNG.
    pub(crate) fn picture(&mut self, width: u32, height: u32) -> Vec<u8> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let text = answer["data"].as_str().expect("a picture");
        STANDARD.decode(text).expect("base64")
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("Chromium listens");
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).expect("reads");
            assert_eq!(answer.pop(), Some(0), "Chromium has ended, after {method}");
            let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == self.number {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // `Browser.close` would end it as well, but not one that no longer listens.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}
