//! `contrast lint`: a deployment for every code that has it, and one that nearly has.

use std::{collections::BTreeSet, fs, path::Path};

use contrast_cli::lint::{
    self, Finding, Knowledge, Source,
    rules::{self, Severity},
};
use contrast_images::ImageCache;
use contrast_resources::YamlFile;

use crate::{context::Context, generate::APPLICATION};

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/lint")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn findings(yaml: &str) -> Vec<Finding> {
    let yaml = YamlFile::parse(yaml.to_owned()).expect("parses");
    let source = Source {
        path: Path::new("app.yml"),
        yaml: &yaml,
    };
    let known = Knowledge {
        templates: &[],
        images: &ImageCache::default(),
    };
    lint::check(&[source], known).expect("checks").findings
}

pub(crate) fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn every_code_has_a_deployment_that_has_it_and_one_that_nearly_has() {
    let mut shown = String::new();
    for rule in rules::ALL {
        let code = rule.code.to_ascii_lowercase();
        let found = findings(&data(&format!("{code}.yml")));
        let codes: BTreeSet<&str> = found.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, BTreeSet::from([rule.code]), "{:#?}", lines(&found));
        shown.extend(lines(&found).iter().map(|line| format!("{line}\n")));
        let near = findings(&data(&format!("{code}-near.yml")));
        assert!(near.is_empty(), "{code}: {:#?}", lines(&near));
    }
    insta::assert_snapshot!("every_code", shown);
}

/// Further forms of some codes: a near miss, what is replaced in it, and the code that it then has; none for no finding.
#[test]
fn codes_have_several_forms() {
    let cases = [
        (
            "c011-near",
            "hostNetwork: false",
            "shareProcessNamespace: true",
            "C011",
        ),
        (
            "c013-near",
            "persistentVolumeClaim: {claimName: data}",
            "nfs: {server: a, path: /}",
            "",
        ),
        (
            "c013-near",
            "untrusted-volumes: data",
            "untrusted-volumes: dada",
            "C013 C022",
        ),
        (
            "c015-near",
            "runAsUser: 1000, allowPrivilegeEscalation: false",
            "runAsNonRoot: true",
            "C015",
        ),
        (
            "c015-near",
            "runAsUser: 1000, allowPrivilegeEscalation: false",
            "runAsUser: 0",
            "",
        ),
        ("c017-near", "subPath: web", "subPathExpr: $(POD)", "C017"),
        ("c022-near", "\"9901\"", "\"0\"", "C022"),
        (
            "c022-near",
            "servicemesh-admin-interface-port: \"9901\"",
            "skip-initializer: \"yes\"",
            "C022",
        ),
        (
            "c022-near",
            "servicemesh-admin-interface-port: \"9901\"",
            "pod-role: worker",
            "C022",
        ),
        ("c023-near", "streams: read", "streams: read, write", ""),
        ("c023-near", "streams: read", "streams: all", "C022"),
        (
            "c030-near",
            "allow=default/deployment/web",
            "allow=web,shop/web",
            "C030",
        ),
        (
            "c030-near",
            "allow=default/deployment/web",
            "allow=default/statefulset/web",
            "C030",
        ),
        ("c030-near", "allow=default/deployment/web", "allow=web", ""),
        ("c034-near", "web#8080#true#udp", "DISABLED", "C034"),
        ("c034-near", "web#8080#true#udp", "web#8080", "C031"),
        ("c034-near", "web#8080#true#udp", "web#8080#true", "C034"),
        (
            "c034-near",
            "{port: 8080, protocol: UDP}",
            "{port: 8081}",
            "",
        ),
        (
            "c034-near",
            "{port: 8080, protocol: UDP}",
            "{port: 8080, protocol: SCTP}",
            "C034",
        ),
        (
            "c035-near",
            "web#8080#false",
            "web#8080#false#allow=web",
            "C035",
        ),
        ("c039-near", "#identity=web,canary", "#identity=any", ""),
        (
            "c039-near",
            "#identity=web,canary",
            "#identity=canary2",
            "C030",
        ),
        // Its name is in the certificate of one of them only.
        (
            "c039-near",
            "web.default:8080#identity=web,canary",
            "canary:8080",
            "",
        ),
        (
            "c040-near",
            "web.default.svc:8080",
            "web.shop.svc:8080",
            "C040",
        ),
        ("c040-near", "web.default.svc:8080", "10.0.0.1:8080", "C040"),
        (
            "c041-near",
            "sidecar.istio.io/inject: \"false\"",
            "linkerd.io/inject: enabled",
            "C041",
        ),
        ("c042-near", "default: {memory", "max: {memory", ""),
        (
            "c042-near",
            "default: {memory: 512Mi}",
            "max: {cpu: 2}",
            "C042",
        ),
        ("c043-near", "\"Off\"", "Off", ""),
        ("c043-near", "name: web}", "name: other}", ""),
        ("c061-near", "name: unused", "name: database", "C061"),
        (
            "c062-near",
            "DB_PASSWORD_FILE, value: hunter2",
            "API_KEY, value: hunter2",
            "C062",
        ),
        (
            "c062-near",
            "DB_PASSWORD_FILE, value: hunter2",
            "API_KEY, value: /run/key",
            "",
        ),
    ];
    for (file, from, to, expected) in cases {
        let near = data(&format!("{file}.yml"));
        let yaml = near.replacen(from, to, 1);
        assert_ne!(near, yaml, "{file} has no {from}");
        let found = findings(&yaml);
        let codes: BTreeSet<&str> = found.iter().map(|finding| finding.code).collect();
        let expected: BTreeSet<&str> = expected.split_whitespace().collect();
        assert_eq!(codes, expected, "{file}, {to}: {:#?}", lines(&found));
    }
}

#[test]
fn namespace_that_injects_is_found_unless_its_pods_turn_it_off() {
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: {istio-injection: enabled}\n";
    let found = findings(&format!("{APPLICATION}{namespace}"));
    assert_eq!(lines(&found).len(), 1, "{:#?}", lines(&found));
    assert_eq!(
        (found[0].code, found[0].kind.as_str()),
        ("C041", "Namespace")
    );
    let off = "    metadata:\n      labels: {sidecar.istio.io/inject: \"false\"}\n    spec:\n      runtimeClassName";
    let all_off = APPLICATION
        .replace(
            "      annotations:\n",
            "      labels: {sidecar.istio.io/inject: \"false\"}\n      annotations:\n",
        )
        .replace(
            "  template:\n    spec:\n      runtimeClassName",
            &format!("  template:\n{off}"),
        );
    let found = findings(&format!("{all_off}{namespace}"));
    assert!(found.is_empty(), "{:#?}", lines(&found));
}

#[test]
fn codes_and_names_are_unique_and_ascend() {
    let codes: Vec<&str> = rules::ALL.iter().map(|rule| rule.code).collect();
    let mut sorted = codes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(codes, sorted);
    let names: BTreeSet<&str> = rules::ALL.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), codes.len());
}

#[test]
fn values_of_secrets_are_never_shown() {
    let context = Context::new();
    for code in ["c061", "c062"] {
        context.file("app.yml", &data(&format!("{code}.yml")));
        for arguments in [
            &["lint", "app.yml"][..],
            &["lint", "app.yml", "--json"],
            &[
                "generate",
                "--reference-values",
                "metal-qemu-snp",
                "--output",
                "-",
                "app.yml",
            ],
        ] {
            let output = context.output(arguments);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!stderr.contains("hunter2"), "{stderr}");
            // `generate` writes the resources themselves.
            if arguments[0] == "lint" {
                assert!(report.contains(&code.to_ascii_uppercase()), "{report}");
                assert!(!report.contains("hunter2"), "{report}");
            }
        }
    }
}

#[test]
fn errors_are_a_negative_verdict() {
    let context = Context::new();
    context.file("app.yml", &data("c013.yml"));
    insta::assert_snapshot!(context.run(&["lint", "app.yml"]));
    insta::assert_snapshot!(context.run(&["lint", "app.yml", "--json"]));
    let allowed = context.run(&["lint", "app.yml", "--allow", "c013"]);
    assert!(allowed.contains("exit code: 0"), "{allowed}");
    let by_name = context.run(&["lint", "app.yml", "--allow", "shared-filesystem-mount"]);
    assert!(by_name.contains("exit code: 0"), "{by_name}");
}

#[test]
fn warnings_are_one_if_they_are_denied() {
    let context = Context::new();
    context.file("app.yml", &data("c014.yml"));
    let shown = context.run(&["lint", "app.yml"]);
    assert!(
        shown.contains("exit code: 0") && shown.contains("warning[C014]"),
        "{shown}"
    );
    let denied = context.run(&["lint", "app.yml", "--deny-warnings"]);
    assert!(denied.contains("exit code: 1"), "{denied}");
    context.file("app.yml", &data("c015.yml"));
    let advice = context.run(&["lint", "app.yml", "--deny-warnings"]);
    assert!(
        advice.contains("exit code: 0") && advice.contains("advice[C015]"),
        "{advice}"
    );
}

#[test]
fn bad_input_is_a_usage_error() {
    let context = Context::new();
    context.file("app.yml", "kind: [\n");
    let shown = context.run(&["lint", "app.yml"]);
    assert!(
        shown.contains("exit code: 2") && shown.contains("app.yml"),
        "{shown}"
    );
    context.file("app.yml", APPLICATION);
    insta::assert_snapshot!(context.run(&["lint", "app.yml", "--allow", "C999"]));
    insta::assert_snapshot!(context.run(&["lint", "app.yml"]));
    context.file("app.yml", &APPLICATION.replace("contrast-cc", "runc"));
    insta::assert_snapshot!(context.run(&["lint", "app.yml"]));
}

#[test]
fn tags_that_the_image_cache_knows_are_no_finding() {
    let context = Context::new();
    context.file("app.yml", &data("c001.yml"));
    let digest = format!("sha256:{}", "2".repeat(64));
    let cache = serde_json::json!({
        "Version": 1,
        "Images": {},
        "References": {"registry.example/web:1.0": digest},
    });
    let before = context.run(&["lint", "app.yml"]);
    assert!(before.contains("C001"), "{before}");
    context.file("image-cache.json", &cache.to_string());
    let after = context.run(&["lint", "app.yml"]);
    assert!(
        after.contains("exit code: 0") && !after.contains("C001"),
        "{after}"
    );
}

#[test]
fn templates_of_custom_resources_are_checked_when_they_are_named() {
    let context = Context::new();
    context.file(
        "app.yml",
        &data("c054.yml").replace("command: [/web]", "securityContext: {privileged: true}"),
    );
    let unknown = context.run(&["lint", "app.yml"]);
    assert!(
        unknown.contains("--pod-template-path argoproj.io/Rollout=.spec.template"),
        "{unknown}"
    );
    let named = context.run(&[
        "lint",
        "app.yml",
        "--pod-template-path",
        "argoproj.io/Rollout=.spec.template",
    ]);
    assert!(!named.contains("C054") && named.contains("C014"), "{named}");
}

#[test]
fn findings_of_lists_and_json_have_their_places() {
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
 "spec": {"runtimeClassName": "contrast-cc", "hostPID": true, "containers": []}}"#;
    let list = format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{pod}]}}"#);
    let found = findings(&list);
    let host = found
        .iter()
        .find(|finding| finding.code == "C011")
        .expect("hostPID");
    assert_eq!((host.line, host.column), (2, 46));
}

#[test]
fn generate_warns_of_what_lint_finds() {
    let context = Context::new();
    context.file("app.yml", &data("c014.yml"));
    let output = context.output(&[
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "app.yml",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let warnings: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("C014"))
        .collect();
    assert_eq!(warnings.len(), 1, "{stderr}");
    assert!(warnings[0].starts_with("warning: app.yml:"), "{stderr}");
}

/// The demo, and the how-to pages, together with a Coordinator: as written, and as `generate` leaves them.
#[test]
fn examples_of_this_repository_are_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let context = Context::new();
    for entry in fs::read_dir(root.join("deploy/examples/votes")).expect("the demo") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("text");
        context.file(&format!("votes/{name}"), &text);
    }
    let lint = || {
        let shown = context.run(&["lint", "votes"]);
        let clean = "0 errors, 0 warnings, 0 pieces of advice in 5 confidential workloads";
        assert!(shown.contains(clean), "{shown}");
    };
    let generate = [
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "--inject-image-store",
    ];
    lint();
    let shown = context.run(&[&generate[..], &["votes"]].concat());
    assert!(
        shown.contains("exit code: 0") && shown.contains("pvc-holder"),
        "{shown}"
    );
    lint();

    let (coordinator, _) = APPLICATION.split_once("---\n").expect("two objects");
    let mut examples = 0;
    for (page, text) in crate::howto::pages() {
        for block in text.split("```yaml\n").skip(1) {
            let (yaml, _) = block.split_once("```\n").expect("the block ends");
            if !crate::howto::holds_confidential_pods(yaml) {
                continue;
            }
            let context = Context::new();
            context.file("coordinator.yml", coordinator);
            context.file("example.yml", yaml);
            let files = ["coordinator.yml", "example.yml"];
            let lint = || context.run(&[&["lint"][..], &files].concat());
            let clean = "0 errors, 0 warnings, 0 pieces of advice in ";
            let before = lint();
            assert!(before.contains(clean), "{page}: {before}");
            let shown = context.run(&[&generate[..], &files].concat());
            assert!(shown.contains("exit code: 0"), "{page}: {shown}");
            let after = lint();
            assert!(after.contains(clean), "{page}: {after}");
            examples += 1;
        }
    }
    assert!(examples >= 7, "only {examples} examples were found");
}

/// The reference is generated from the table. With `UPDATE_REFERENCE=1` the test writes it.
#[test]
fn reference_lists_every_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/lint.md");
    let text = fs::read_to_string(&path).expect("the reference");
    let (before, rest) = text.split_once("<!-- codes -->\n").expect("a beginning");
    let (_, after) = rest.split_once("<!-- end of codes -->").expect("an end");
    let count = |severity| {
        rules::ALL
            .iter()
            .filter(|rule| rule.severity == severity)
            .count()
    };
    let mut codes = format!(
        "{} errors, {} warnings, {} pieces of advice.\n\n| code | name | severity |\n| --- | --- | --- |\n",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Advice)
    );
    for rule in rules::ALL {
        let anchor = rule.code.to_ascii_lowercase();
        codes.push_str(&format!(
            "| [{}](#{anchor}) | {} | {} |\n",
            rule.code,
            rule.name,
            rule.severity.word()
        ));
    }
    for rule in rules::ALL {
        codes.push_str(&format!(
            "\n### {}\n\n**{}** ({}). {}\n\n{}\n",
            rule.code,
            rule.name,
            rule.severity.word(),
            rule.summary,
            rule.advice
        ));
    }
    let expected = format!("{before}<!-- codes -->\n{codes}\n<!-- end of codes -->{after}");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &expected).expect("writes");
    } else {
        assert!(
            text == expected,
            "{} is out of date: run this test with UPDATE_REFERENCE=1",
            path.display()
        );
    }
}
