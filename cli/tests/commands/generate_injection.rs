//! What `contrast generate` puts into pods, as diffs, and what it says about fields that it overwrites.

use std::fs;

use crate::{context::Context, generate::APPLICATION};

/// Digests of the images that are injected.
const INJECTED: [&str; 2] = [
    "9b1c7f0a4c3e5d2f6a8b0c1d2e3f405162738495a6b7c8d9eaf0b1c2d3e4f506",
    "8a0b6e9f3b2d4c1e597a9fb0c1d2e3f4051627384a5b6c7d8e9fa0b1c2d3e4f5",
];

pub(crate) const GENERATE: [&str; 4] = [
    "generate",
    "--reference-values",
    "metal-qemu-snp",
    "application.yml",
];

/// Web server whose data is on an encrypted disk, as a user writes it.
pub(crate) const DATABASE: &str = "\
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: db
  namespace: shop
spec:
  template:
    metadata:
      annotations:
        contrast.edgeless.systems/secure-pv: data:state
    spec:
      runtimeClassName: contrast-cc
      containers:
        - name: db
          image: registry.example/db@sha256:2222222222222222222222222222222222222222222222222222222222222222
          command: [/db]
          volumeMounts:
            - {name: state, mountPath: /var/lib/db, mountPropagation: HostToContainer}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        volumeMode: Block
        accessModes: [ReadWriteOnce]
        resources:
          requests:
            storage: 10Gi
";

pub(crate) fn with_coordinator(workload: &str) -> String {
    let (coordinator, _) = APPLICATION.split_once("---\n").expect("two documents");
    format!("{coordinator}---\n{workload}")
}

/// The workload of the application, with annotations.
fn annotated(annotations: &str) -> String {
    let from = "  name: web\nspec:\n  template:\n    spec:\n";
    let to = format!(
        "  name: web\nspec:\n  template:\n    metadata:\n      annotations:\n{annotations}    spec:\n"
    );
    let text = APPLICATION.replace(from, &to);
    assert_ne!(text, APPLICATION);
    text
}

fn annotation(name: &str, value: &str) -> String {
    annotated(&format!(
        "        contrast.edgeless.systems/{name}: {value}\n"
    ))
}

pub(crate) struct Generated {
    pub(crate) context: Context,
    /// What changed in the application, without the policies.
    diff: String,
    /// Warnings.
    pub(crate) said: String,
}

/// A cache in which the images of `text` are, without configuration.
pub(crate) fn images_of(text: &str) -> String {
    let digests = text
        .split("@sha256:")
        .skip(1)
        .filter_map(|rest| rest.get(..64));
    let images: Vec<String> = digests
        .chain(INJECTED)
        .map(|digest| format!("\"sha256:{digest}\": {{}}"))
        .collect();
    format!("{{\"Version\": 2, \"Images\": {{{}}}}}", images.join(", "))
}

/// Generates, and checks that doing it again says and changes nothing, unless something stays to be said.
pub(crate) fn generated(yaml: &str, more: &[&str], silent: bool) -> Generated {
    let context = Context::new();
    context.file("application.yml", yaml);
    context.file("image-cache.json", &images_of(yaml));
    let arguments = [&GENERATE, more].concat();
    let output = context.output(&[&arguments[..], &["--diff"]].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let said = text(output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    // Without the keys, which `--diff` does not make.
    let said = said.split_inclusive('\n');
    let said: String = said.filter(|line| !line.contains("-owner.pem")).collect();
    let diff = text(output.stdout);
    let start = diff
        .find("--- application.yml")
        .expect("a changed application");
    let (own, _) = diff
        .get(start..)
        .expect("a character")
        .split_once("--- /dev/null")
        .expect("the keys behind it");
    let lines = own
        .lines()
        .map(|line| match line.split_once("cc_init_data: ") {
            Some((key, _)) => format!("{key}cc_init_data: [POLICY]"),
            None => line.to_owned(),
        });
    let lines = lines.take_while(|line| !line.starts_with("new private file"));
    let diff = lines.collect::<Vec<_>>().join("\n");
    let version = format!(":{}@", env!("CARGO_PKG_VERSION"));
    let diff = diff.replace(&version, ":[VERSION]@");

    assert!(context.output(&arguments).status.success());
    let before = fs::read(context.path("application.yml")).expect("reads");
    let again = context.output(&arguments);
    assert!(again.status.success());
    if silent {
        assert_eq!(text(again.stderr), "", "the second run said something");
    }
    assert!(text(again.stdout).contains("everything is up to date"));
    assert_eq!(
        fs::read(context.path("application.yml")).expect("reads"),
        before
    );
    Generated {
        context,
        diff,
        said,
    }
}

/// What a policy says, without its hash and size, which change with the rules.
fn policy(context: &Context, pod: &str) -> String {
    let shown = context.run(&["policy", "show", pod, "application.yml"]);
    let lines = shown
        .lines()
        .filter(|line| !line.starts_with("policy ") && !line.starts_with("annotation "));
    lines.collect::<Vec<_>>().join("\n")
}

fn refused(yaml: &str) -> String {
    let context = Context::new();
    context.file("application.yml", yaml);
    let output = context.output(&GENERATE);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(
        fs::read_to_string(context.path("application.yml")).expect("reads"),
        yaml
    );
    said
}

#[test]
fn encrypted_volume_is_opened_by_the_initializer() {
    let database = generated(&with_coordinator(DATABASE), &[], true);
    assert_eq!(database.said, "");
    insta::assert_snapshot!(database.diff);
    let policy = policy(&database.context, "db");
    insta::assert_snapshot!("policy_of_encrypted_volume", policy);
}

#[test]
fn encrypted_volume_needs_a_block_device_and_an_initializer() {
    let with = |from: &str, to: &str| {
        let text = with_coordinator(&DATABASE.replace(from, to));
        assert_ne!(text, with_coordinator(DATABASE));
        refused(&text)
    };
    let all = [
        with("data:state", "data"),
        with("data:state", "data:state:more"),
        with("data:state", "dota:state"),
        with("volumeMode: Block", "volumeMode: Filesystem"),
        with(
            "      runtimeClassName",
            "      volumes: [{name: state, configMap: {name: x}}]\n      runtimeClassName",
        ),
        with(
            "secure-pv: data:state\n",
            "secure-pv: data:state\n        contrast.edgeless.systems/skip-initializer: \"true\"\n",
        ),
        refused(&APPLICATION.replace(
            "pod-role: coordinator\n",
            "pod-role: coordinator\n        contrast.edgeless.systems/secure-pv: data:state\n",
        )),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn encrypted_volume_is_a_file_where_the_claim_is_a_file_system() {
    let yaml = DATABASE.replace("        volumeMode: Block\n", "").replace(
        "secure-pv: data:state\n",
        "secure-pv: data:state\n        contrast.edgeless.systems/secure-pv-size: 9Gi\n",
    );
    let sized = generated(&with_coordinator(&yaml), &[], true);
    assert_eq!(sized.said, "");
    insta::assert_snapshot!(sized.diff);
    let linted = sized.context.output(&["lint", "application.yml"]);
    assert_eq!(linted.status.code(), Some(0), "{linted:?}");
    let mounted_by_the_application = yaml.replace(
        "{name: state, mountPath",
        "{name: data, mountPath: /raw}\n            - {name: state, mountPath",
    );
    let said = refused(&with_coordinator(&mounted_by_the_application));
    assert!(
        said.contains("the host can read and change its files"),
        "{said}"
    );
}

#[test]
fn encrypted_volume_that_nobody_sees_is_named() {
    let unseen = with_coordinator(&DATABASE.replace(", mountPropagation: HostToContainer", ""));
    let said = generated(&unseen, &[], false).said;
    assert!(
        said.contains("without `mountPropagation: HostToContainer`"),
        "{said}"
    );
    let unused = with_coordinator(
        &DATABASE
            .replace("{name: state, mountPath", "{name: other, mountPath")
            .replace(
                "      runtimeClassName",
                "      volumes: [{name: other, emptyDir: {}}]\n      runtimeClassName",
            ),
    );
    let said = generated(&unused, &[], false).said;
    assert!(said.contains("no container mounts `state`"), "{said}");
}

#[test]
fn claims_among_the_inputs_are_looked_at() {
    let deployment = DATABASE.replace("kind: StatefulSet", "kind: Deployment");
    let (deployment, _) = deployment
        .split_once("  volumeClaimTemplates:")
        .expect("claims");
    let deployment = deployment.replace(
        "      runtimeClassName",
        "      volumes: [{name: data, persistentVolumeClaim: {claimName: disk}}]\n      runtimeClassName",
    );
    let claim = |mode: &str| {
        format!(
            "{deployment}---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: disk, namespace: shop}}\nspec: {{{mode}}}\n"
        )
    };
    assert_eq!(
        generated(&with_coordinator(&deployment), &[], true).said,
        ""
    );
    assert_eq!(
        generated(&with_coordinator(&claim("volumeMode: Block")), &[], true).said,
        ""
    );
    let said = refused(&with_coordinator(&claim("accessModes: [ReadWriteOnce]")));
    assert!(
        said.contains("expected a claim with `volumeMode: Block` behind `data`"),
        "{said}"
    );
}

#[test]
fn image_store_is_a_disk_that_a_sidecar_holds() {
    let store = generated(
        &annotation("image-store-size", "20Gi"),
        &["--inject-image-store"],
        true,
    );
    assert_eq!(store.said, "");
    insta::assert_snapshot!(store.diff);
    let policy = policy(&store.context, "web");
    insta::assert_snapshot!("policy_of_image_store", policy);
}

#[test]
fn image_store_has_a_default_size_and_can_be_left_out() {
    let default = generated(APPLICATION, &["--inject-image-store"], true).diff;
    assert_eq!(default.matches("storage: \"10Gi\"").count(), 2, "{default}");
    let none = generated(
        &annotation("image-store-size", "\"0\""),
        &["--inject-image-store"],
        true,
    )
    .diff;
    assert_eq!(
        none.matches("+        - name: pvc-holder").count(),
        1,
        "{none}"
    );
    let off = generated(&annotation("image-store-size", "1Gi"), &[], false);
    assert!(!off.diff.contains("pvc-holder"), "{}", off.diff);
    assert!(
        off.said
            .contains("image-store-size has no effect without `--inject-image-store`"),
        "{}",
        off.said
    );
}

/// The web server with containers and volumes that have the names of ours.
pub(crate) const OWN: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    metadata:
      annotations:
        contrast.edgeless.systems/servicemesh-ingress: web#80#false
    spec:
      runtimeClassName: contrast-cc
      initContainers:
        - name: contrast-initializer
          image: registry.example/mine:1
          # The user's own.
          env:
            - {name: RUST_LOG, value: debug}
            - {name: COORDINATOR_HOST, value: elsewhere}
          resources: {limits: {memory: 1Gi}}
        - name: contrast-service-mesh
          securityContext: {privileged: true}
      containers:
        - name: web
          image: registry.example/web@sha256:2222222222222222222222222222222222222222222222222222222222222222
          command: [/web]
          ports: [{containerPort: 80}]
          volumeMounts: [{name: files, mountPath: /contrast}]
      volumes:
        - name: files
          emptyDir: {}
        - name: contrast-secrets
          emptyDir: {medium: \"\", sizeLimit: 1Mi}
        - name: image-store
          ephemeral: {volumeClaimTemplate: {spec: {storageClassName: fast, volumeMode: Filesystem, accessModes: [ReadWriteOnce]}}}
";

#[test]
fn telemetry_is_part_of_the_policy() {
    let telemetry = "        contrast.edgeless.systems/log-exposure: public
        contrast.edgeless.systems/traces-endpoint: http://otel-collector:4317\n";
    let mesh = "        contrast.edgeless.systems/servicemesh-ingress: \"\"\n";
    let told = generated(&annotated(&format!("{telemetry}{mesh}")), &[], true);
    let added = told.diff.lines().filter(|line| line.starts_with('+'));
    let lines: Vec<_> = added.map(|line| line[1..].trim()).collect();
    let count = |line: &str| lines.iter().filter(|other| **other == line).count();
    assert_eq!(count("- name: CONTRAST_LOG_EXPOSURE"), 2, "{}", told.diff);
    assert_eq!(count("- name: OTEL_EXPORTER_OTLP_ENDPOINT"), 1);
    assert_eq!(
        count("value: \"http://otel-collector:4317\""),
        1,
        "{}",
        told.diff
    );
    let text = policy(&told.context, "web");
    for bound in [
        "CONTRAST_LOG_EXPOSURE=public",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://otel-collector:4317",
    ] {
        assert!(text.contains(bound), "{bound} in {text}");
    }

    let skips = "        contrast.edgeless.systems/skip-initializer: \"true\"\n";
    let needless = refused(&annotated(&format!("{telemetry}{skips}")));
    assert!(
        needless.contains("the annotation traces-endpoint needs the Initializer"),
        "{needless}"
    );
}

#[test]
fn fields_that_are_overwritten_are_named_once() {
    let own = generated(&with_coordinator(OWN), &["--inject-image-store"], false);
    insta::assert_snapshot!(own.said.replace(env!("CARGO_PKG_VERSION"), "[VERSION]"));
    let written = fs::read_to_string(own.context.path("application.yml")).expect("reads");
    for kept in ["sizeLimit: 1Mi", "storageClassName: fast"] {
        assert!(written.contains(kept), "{written}");
    }
    let again = own
        .context
        .output(&[&GENERATE[..], &["--inject-image-store"]].concat());
    let said = String::from_utf8(again.stderr).expect("UTF-8");
    // What the user's own container lacks is still true; nothing is overwritten any more.
    assert!(
        !said.contains("replaced") && !said.contains("removed"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn names_of_ours_are_refused_where_they_would_clash() {
    let container = APPLICATION.replace("- name: web\n", "- name: contrast-initializer\n");
    let volume = with_coordinator(&OWN.replace(
        "emptyDir: {medium: \"\", sizeLimit: 1Mi}",
        "secret: {secretName: x}",
    ));
    let said = [refused(&container), refused(&volume)].join("\n");
    insta::assert_snapshot!(said);
}

#[test]
fn annotations_that_nobody_reads_are_refused() {
    let all = [
        annotation("skip-initialiser", "\"true\""),
        annotation("skip-initializer", "\"yes\""),
        annotation("skip-initializer", "true"),
        annotation("servicemesh-ingress", "web#eighty#false"),
        annotation("image-store-size", "10GB"),
        annotation("role", "coordinator"),
        APPLICATION.replace(
            "  name: web\n",
            "  name: web\n  annotations: {contrast.edgeless.systems/streams: read}\n",
        ),
        annotated(
            "        contrast.edgeless.systems/one: x\n        contrast.edgeless.systems/streems: read\n",
        ),
    ];
    let said: Vec<String> = all.iter().map(|yaml| refused(yaml)).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn role_may_be_a_label() {
    let label = APPLICATION.replace(
        "      annotations:\n        contrast.edgeless.systems/pod-role",
        "      labels:\n        contrast.edgeless.systems/pod-role",
    );
    assert_ne!(label, APPLICATION);
    assert_eq!(generated(&label, &[], true).said, "");
}

#[test]
pub(crate) fn images_of_another_version_are_refused() {
    let old = APPLICATION.replace(
        "registry.example/coordinator@",
        "registry.example/coordinator:0.0.9@",
    );
    let own = format!(
        "registry.example/coordinator:{}@",
        env!("CARGO_PKG_VERSION")
    );
    let same = APPLICATION.replace("registry.example/coordinator@", &own);
    assert_eq!(generated(&same, &[], true).said, "");
    let said = refused(&old).replace(env!("CARGO_PKG_VERSION"), "[VERSION]");
    insta::assert_snapshot!(said);

    let context = Context::new();
    context.file("application.yml", APPLICATION);
    let injected = generated(APPLICATION, &[], true).diff;
    let image = injected
        .lines()
        .find_map(|line| {
            line.split_once("image: ")
                .filter(|(_, image)| image.contains("/initializer:"))
        })
        .map(|(_, image)| {
            image
                .trim_matches('"')
                .replace("[VERSION]", env!("CARGO_PKG_VERSION"))
        })
        .expect("the Initializer's image");
    let (_, digest) = image.split_once('@').expect("a digest");
    context.file(
        "replacements",
        &format!("{image} = registry.example/initializer:0.0.9@{digest}\n"),
    );
    let output =
        context.output(&[&GENERATE[..], &["--image-replacements", "replacements"]].concat());
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("`contrast-initializer` has version 0.0.9"),
        "{said}"
    );
}
