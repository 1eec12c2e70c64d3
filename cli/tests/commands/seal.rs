//! `contrast seal`: what it writes, and what it refuses.

use std::fs;

use contrast_clock::SystemEntropy;
use contrast_manifest::ManifestDocument;
use contrast_pki::{Derivation, RegistryCredential, Salt, SealedFiles, SealingKey, Seed};

use crate::{
    context::Context,
    generate::APPLICATION,
    generate_injection::{GENERATE, images_of},
};

/// `a:b`.
const AUTH: &str = "YTpi";

const PULL_SECRETS: [&str; 3] = ["seal", "pull-secrets", "application.yml"];

fn secret<'a>(name: &'a str, pod: &'a str, file: &'a str) -> Vec<&'a str> {
    vec![
        "seal",
        "secret",
        name,
        "application.yml",
        "--pod",
        pod,
        "--from-file",
        file,
    ]
}

/// Of `ghcr.io`, for the workload `web`.
fn registry(config: &str) -> Vec<&str> {
    vec![
        "seal",
        "registry",
        "ghcr.io",
        "application.yml",
        "--pod",
        "web",
        "--docker-config",
        config,
    ]
}

/// A workspace with a manifest and the key of its deployment.
struct Deployment {
    context: Context,
    key: SealingKey,
}

fn deployment(yaml: &str) -> Deployment {
    let context = Context::new();
    context.file("application.yml", yaml);
    context.file("image-cache.json", &images_of(yaml));
    let made = context.output(&GENERATE);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let (seed, salt) = (
        Seed::generate(&SystemEntropy),
        Salt::generate(&SystemEntropy),
    );
    let (seed, salt) = (seed.expect("seed"), salt.expect("salt"));
    let key = Derivation::new(&seed, &salt).sealing_key().expect("key");
    let pem = key.public().to_pem().expect("PEM");
    context.file("sealing-key.pem", &pem);
    Deployment { context, key }
}

impl Deployment {
    /// Opens what the manifest has under a name.
    fn opened(&self, kind: &str, name: &str) -> Vec<u8> {
        let bytes = fs::read(self.context.path("manifest.json")).expect("manifest");
        let manifest = ManifestDocument::from_json(&bytes).expect("manifest");
        let secret = manifest.sealed_secrets.get(name).expect("secret");
        assert_eq!(secret.kind, kind);
        let ciphertext = hex::decode(&secret.ciphertext).expect("hex");
        self.key
            .open(kind, name, &ciphertext)
            .expect("opens")
            .to_vec()
    }

    fn yaml(&self) -> String {
        fs::read_to_string(self.context.path("application.yml")).expect("YAML")
    }
}

/// The application with pull secrets, and a Secret with a Docker configuration.
fn with_pull_secret(config: &str) -> String {
    let from = "  name: web\nspec:\n  template:\n    spec:\n";
    let to = format!("{from}      imagePullSecrets: [{{name: regcred}}]\n");
    let text = APPLICATION.replace(from, &to);
    assert_ne!(text, APPLICATION);
    format!(
        "{text}---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: regcred\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{config}'\n"
    )
}

#[test]
fn files_are_sealed_for_a_workload() {
    let deployment = deployment(APPLICATION);
    deployment.context.file("password", "correct horse");
    let seal = secret("db", "web", "password=password");
    let first = deployment.context.run(&seal);
    let again = deployment.context.run(&seal);
    insta::assert_snapshot!(format!("{first}\n{again}"));
    let files = SealedFiles::from_bytes(&deployment.opened("Files", "db")).expect("files");
    let files: Vec<(&str, &[u8])> = files.iter().collect();
    assert_eq!(files, [("password", &b"correct horse"[..])]);
    assert_eq!(deployment.yaml().matches("sealed-secrets: db\n").count(), 1);
    assert!(!deployment.yaml().contains("horse"));
}

#[test]
fn nothing_is_written_when_a_secret_cannot_be_sealed() {
    let deployment = deployment(APPLICATION);
    deployment.context.file("password", "correct horse");
    deployment.context.file("config.json", "{\"auths\": {}}");
    let manifest = fs::read(deployment.context.path("manifest.json")).expect("manifest");
    let yaml = deployment.yaml();
    let refused = [
        secret("db/x", "web", "a=password"),
        secret("db", "wob", "a=password"),
        secret("db", "coordinator", "a=password"),
        secret("db", "web", "password"),
        secret("db", "web", "../a=password"),
        secret("db", "web", "a=passwort"),
        registry("config.json"),
        registry("password"),
        PULL_SECRETS.to_vec(),
    ];
    let shown: Vec<String> = refused
        .iter()
        .map(|arguments| deployment.context.run(arguments))
        .collect();
    fs::remove_file(deployment.context.path("sealing-key.pem")).expect("remove");
    let without_key = deployment.context.run(&PULL_SECRETS);
    insta::assert_snapshot!(format!("{}\n{without_key}", shown.join("\n")));
    assert_eq!(
        fs::read(deployment.context.path("manifest.json")).expect("manifest"),
        manifest
    );
    assert_eq!(deployment.yaml(), yaml);
}

#[test]
fn pull_secrets_become_sealed_credentials() {
    let config = format!(
        "{{\"auths\": {{\"https://index.docker.io/v1/\": {{\"auth\": \"{AUTH}\"}}, \"registry.example:5000\": {{\"username\": \"a\", \"password\": \"b\"}}}}}}"
    );
    let deployment = deployment(&with_pull_secret(&config));
    insta::assert_snapshot!(deployment.context.run(&PULL_SECRETS));
    for registry in ["docker.io", "registry.example:5000"] {
        let credential = deployment.opened("Registry", registry);
        let credential = RegistryCredential::from_bytes(&credential).expect("credential");
        assert_eq!(credential.auth, AUTH);
    }
    let yaml = deployment.yaml();
    assert!(!yaml.contains("imagePullSecrets"), "{yaml}");
    let listed = "contrast.edgeless.systems/sealed-secrets: \"docker.io,registry.example:5000\"";
    assert!(yaml.contains(listed), "{yaml}");
    let again = deployment.context.output(&GENERATE);
    let said = String::from_utf8(again.stderr).expect("UTF-8");
    assert_eq!(again.status.code(), Some(0), "{said}");
    assert!(!said.contains("pull"), "{said}");
    // Whoever takes the credentials away again is told what stays.
    let listed = |line: &&str| !line.contains("sealed-secrets");
    let without: String = deployment
        .yaml()
        .split_inclusive('\n')
        .filter(listed)
        .collect();
    assert_ne!(without, deployment.yaml());
    deployment.context.file("application.yml", &without);
    let again = deployment.context.output(&GENERATE);
    let said = String::from_utf8(again.stderr).expect("UTF-8");
    assert!(
        said.contains("volume `contrast-pull-credentials` is still there"),
        "{said}"
    );
}

#[test]
fn credentials_that_were_sealed_stay_when_pull_secrets_are_converted() {
    let config = format!("{{\"auths\": {{\"ghcr.io\": {{\"auth\": \"{AUTH}\"}}}}}}");
    let deployment = deployment(&with_pull_secret(&config));
    let newer = "{\"auths\": {\"ghcr.io\": {\"username\": \"a\", \"password\": \"newer\"}}}";
    deployment.context.file("newer.json", newer);
    let sealed = deployment.context.output(&registry("newer.json"));
    assert_eq!(sealed.status.code(), Some(0), "{sealed:?}");
    let before = deployment.opened("Registry", "ghcr.io");
    let converted = deployment.context.run(&PULL_SECRETS);
    assert!(
        converted.contains("`ghcr.io` that were sealed before stay"),
        "{converted}"
    );
    assert_eq!(deployment.opened("Registry", "ghcr.io"), before);
}

#[test]
fn pull_secrets_that_no_guest_can_use_are_named() {
    let configs = [
        "no JSON",
        "{\"auths\": {}}",
        "{\"auths\": {\"ghcr.io\": {\"auth\": \"secret\"}}}",
        "{\"auths\": {\"ghcr.io/team\": {\"auth\": \"YTpi\"}}}",
    ];
    let shown: Vec<String> = configs
        .iter()
        .map(|config| {
            let yaml = with_pull_secret(config);
            let deployment = deployment(&yaml);
            let before = deployment.yaml();
            let shown = deployment.context.run(&PULL_SECRETS);
            assert_eq!(deployment.yaml(), before);
            shown
        })
        .collect();
    let elsewhere = deployment(&with_pull_secret("{}").replace("name: regcred}]", "name: other}]"));
    let elsewhere =
        elsewhere
            .context
            .run(&["seal", "pull-secrets", "application.yml", "--pod", "web"]);
    insta::assert_snapshot!(format!("{}\n{elsewhere}", shown.join("\n")));
}
