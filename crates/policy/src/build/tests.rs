use contrast_images::{Accounts, GroupAccount, UserAccount};
use serde_json::json;

use super::*;
use crate::{
    CIPHERTEXT_PATH, Content, CopyPolicy, EnvFact, INITIALIZER, MountKind, Part, Template,
};

fn digest() -> String {
    format!("sha256:{}", "0a".repeat(32))
}

fn policy_with(container: &Value, images: &ImageCache) -> Result<PodPolicy, BuildError> {
    let mut container = container.clone();
    container["name"] = json!("web");
    container["image"] = json!(format!("web@{}", digest()));
    let template = json!({"spec": {"containers": [container]}});
    let source = PodSource {
        kind: "Deployment",
        name: PodName::Fixed("web"),
        namespace: Some("shop"),
        template: &template,
        claims: &[],
        images,
        config: &ConfigObjects::default(),
    };
    source.policy()
}

fn container(value: &Value) -> ContainerPolicy {
    policy_with(value, &ImageCache::default())
        .expect("a policy")
        .containers
        .remove(0)
}

#[test]
fn arguments_are_expanded_as_kubernetes_does() {
    let built = container(&json!({
        "command": ["/web", "--port=$(PORT)"],
        "args": ["$$(PORT)", "$(UNKNOWN)", "a$b", "$(PATH)"],
        "env": [{"name": "PORT", "value": "80"}],
    }));
    let expected = [
        "/web",
        "--port=80",
        "$(PORT)",
        "$(UNKNOWN)",
        "a$b",
        "$(PATH)",
    ];
    assert_eq!(
        built.args,
        expected.map(|word| Template::Fixed(word.into()))
    );
}

#[test]
fn values_that_only_the_cluster_knows_stay_open_where_they_are_used() {
    let built = container(&json!({
        "command": ["/web", "--bind=$(URL)/"],
        "env": [
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL", "value": "http://$(IP):80"},
        ],
    }));
    let ip = || Part::Variable { env: "IP".into() };
    let url = vec![Part::Text("http://".into()), ip(), Part::Text(":80".into())];
    assert_eq!(built.env_facts["IP"], EnvFact::Kind("pod-ip".into()));
    assert_eq!(built.env_facts["URL"], EnvFact::Parts(url));
    let bind = vec![
        Part::Text("--bind=http://".into()),
        ip(),
        Part::Text(":80/".into()),
    ];
    assert_eq!(built.args[1], Template::Parts(bind));
}

#[test]
fn program_comes_from_the_image_cache_or_is_asked_for() {
    let error = policy_with(&json!({}), &ImageCache::default()).expect_err("no command");
    assert!(
        error
            .to_string()
            .contains("write `command` and `args`, or add sha256:0a0a"),
        "{error}"
    );
    let mut images = ImageCache::default();
    let config = ImageConfig {
        entrypoint: vec!["/web".into()],
        cmd: vec!["serve".into()],
        env: vec!["PATH=/bin".into()],
        user: "65532".into(),
        ..ImageConfig::default()
    };
    images.insert(&digest(), config);
    let built = policy_with(&json!({"args": ["x"]}), &images)
        .expect("a policy")
        .containers
        .remove(0);
    assert_eq!(
        built.args,
        ["/web", "x"].map(|word| Template::Fixed(word.into()))
    );
    assert_eq!(built.env, ["PATH=/bin"]);
    assert_eq!((built.uid, built.process.cwd.as_str()), (65532, "/"));
    let built = policy_with(&json!({}), &images)
        .expect("a policy")
        .containers
        .remove(0);
    assert_eq!(
        built.args,
        ["/web", "serve"].map(|word| Template::Fixed(word.into()))
    );
}

#[test]
fn pod_that_shares_with_its_host_is_refused() {
    for spec in [
        json!({"hostNetwork": true}),
        json!({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}),
    ] {
        let mut template = json!({"spec": spec});
        template["spec"]["containers"] = json!([]);
        let source = PodSource {
            kind: "Pod",
            name: PodName::Fixed("p"),
            namespace: None,
            template: &template,
            claims: &[],
            images: &ImageCache::default(),
            config: &ConfigObjects::default(),
        };
        assert!(matches!(
            source.policy(),
            Err(BuildError::Unsupported { .. })
        ));
    }
}

#[test]
fn image_without_a_digest_is_named_with_its_container() {
    let template = json!({"spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    let images = ImageCache::default();
    let source = PodSource {
        kind: "Pod",
        name: PodName::Fixed("p"),
        namespace: None,
        template: &template,
        claims: &[],
        images: &images,
        config: &ConfigObjects::default(),
    };
    let error = source.policy().expect_err("no digest");
    assert_eq!(error.to_string(), "container `web`");
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("image `web:1` has no digest"), "{cause}");
}

#[test]
fn capabilities_follow_the_security_context() {
    let with = |context: Value| container(&json!({"command": ["/x"], "securityContext": context}));
    let added = with(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}));
    assert_eq!(added.capabilities, ["CAP_NET_ADMIN"]);
    assert!(with(json!({"privileged": true})).privileged);
    assert_eq!(with(json!({"privileged": true})).capabilities.len(), 41);
    assert_eq!(with(json!({})).capabilities.len(), 14);
}

fn spec_with(spec: &Value, config: &ConfigObjects) -> Result<PodPolicy, BuildError> {
    let template = json!({"metadata": {"annotations": spec["annotations"]}, "spec": spec});
    let source = PodSource {
        kind: "Pod",
        name: PodName::Fixed("p"),
        namespace: None,
        template: &template,
        claims: &[],
        images: &ImageCache::default(),
        config,
    };
    source.policy()
}

fn settings() -> ConfigObjects {
    let mut config = ConfigObjects::default();
    config.insert(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"COLOR": "blue", "SIZE": "1"},
    }));
    config.insert(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "data": {"password": "c2VjcmV0"}, "stringData": {"user": "root"},
    }));
    config
}

fn mounting(volume: &Value, annotations: &Value) -> Value {
    json!({
        "annotations": annotations,
        "volumes": [volume],
        "containers": [{
            "name": "web", "image": format!("web@{}", digest()), "command": ["/web"],
            "volumeMounts": [{"name": volume["name"], "mountPath": "/etc/app"}],
        }],
    })
}

#[test]
fn variables_of_config_maps_and_secrets_are_bound_by_value() {
    let spec = json!({"containers": [{
        "name": "web", "image": format!("web@{}", digest()), "command": ["/web"],
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "APP_"}],
        "env": [
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
            {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "other", "key": "x", "optional": true}}},
        ],
    }]});
    let policy = spec_with(&spec, &settings()).expect("policy");
    let env = &policy.containers[0].env;
    assert_eq!(
        env[..3],
        ["APP_COLOR=blue", "APP_SIZE=1", "PASSWORD=secret"]
    );
    assert_eq!(env.len(), 4, "and PATH");
    let error = spec_with(&spec, &ConfigObjects::default()).expect_err("unknown");
    assert!(
        error
            .to_string()
            .contains("the ConfigMap `settings`, which is not among the inputs"),
        "{error}"
    );
}

#[test]
fn files_of_config_maps_are_bound_by_content_unless_the_pod_gives_that_up() {
    let volume = json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "COLOR", "path": "a/color"}]}});
    let spec = mounting(&volume, &json!({}));
    let policy = spec_with(&spec, &settings()).expect("policy");
    let content = Content {
        size: 4,
        sha256: "16477688c0e00699c6cfa4497a3612d7e83c532062b64b250fed8908128ed548".into(),
    };
    let files = [("a/color".to_owned(), Some(content))].into();
    assert_eq!(
        policy.copies["app"],
        [CopyPolicy::Directory { files: Some(files) }]
    );

    let mutable = json!({"contrast.edgeless.systems/mutable-volumes": "v"});
    let policy =
        spec_with(&mounting(&volume, &mutable), &ConfigObjects::default()).expect("policy");
    assert_eq!(
        policy.copies["app"],
        [CopyPolicy::Directory { files: None }]
    );

    let typo = json!({"contrast.edgeless.systems/mutable-volumes": "w"});
    let error = spec_with(&mounting(&volume, &typo), &settings()).expect_err("typo");
    assert!(
        error.to_string().contains("found `w`, which is none"),
        "{error}"
    );
}

#[test]
fn volume_of_the_host_must_be_called_untrusted() {
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
    let error = spec_with(&mounting(&volume, &json!({})), &settings()).expect_err("refused");
    assert!(error.to_string().contains("untrusted-volumes"), "{error}");
    let named = json!({"contrast.edgeless.systems/untrusted-volumes": "v"});
    let policy = spec_with(&mounting(&volume, &named), &settings()).expect("policy");
    assert_eq!(policy.containers[0].mounts[0].kind, MountKind::Untrusted);
}

#[test]
fn only_the_initializer_has_the_file_of_the_encrypted_volume() {
    let built = |list: &str, container: &str, path: &str| {
        let spec = json!({
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
            list: [{
                "name": container, "image": format!("web@{}", digest()), "command": ["/x"],
                "volumeMounts": [{"name": "v", "mountPath": path}],
            }],
        });
        spec_with(&spec, &settings()).map(|policy| policy.containers[0].mounts[0].kind)
    };
    assert_eq!(
        built("initContainers", INITIALIZER, CIPHERTEXT_PATH).ok(),
        Some(MountKind::Untrusted)
    );
    assert!(built("initContainers", INITIALIZER, "/state").is_err());
    assert!(built("initContainers", "app", CIPHERTEXT_PATH).is_err());
    assert!(built("containers", INITIALIZER, CIPHERTEXT_PATH).is_err());
}

#[test]
fn user_and_groups_come_from_pod_image_and_its_files() {
    let account = |name: &str, uid| UserAccount {
        name: name.into(),
        uid,
        gid: 100,
    };
    let accounts = Accounts {
        users: vec![account("redis", 999)],
        groups: vec![GroupAccount {
            name: "tls".into(),
            gid: 7,
            members: vec!["redis".into()],
        }],
    };
    let mut images = ImageCache::default();
    let config = ImageConfig {
        user: "redis".into(),
        accounts: Some(accounts),
        ..ImageConfig::default()
    };
    images.insert(&digest(), config.clone());
    let built = |container: Value, images: &ImageCache| {
        policy_with(&container, images).map(|mut policy| policy.containers.remove(0))
    };
    let own = built(json!({"command": ["/x"]}), &images).expect("policy");
    assert_eq!((own.uid, own.gid, own.groups), (999, 100, vec![7, 100]));
    let set = built(
        json!({"command": ["/x"], "securityContext": {"runAsUser": 5, "runAsGroup": 6}}),
        &images,
    )
    .expect("policy");
    assert_eq!((set.uid, set.gid, set.groups), (5, 6, vec![6]));
    images.insert(
        &digest(),
        ImageConfig {
            accounts: None,
            ..config
        },
    );
    let error = built(json!({"command": ["/x"]}), &images).expect_err("unknown name");
    assert!(
        error
            .to_string()
            .contains("runs as the image's user `redis`"),
        "{error}"
    );
}

#[test]
fn names_of_pods_follow_their_kind_and_are_bounded() {
    let matches = |kind: &str, name: PodName<'_>, pod: &str| {
        let mut engine = regorus::Engine::new();
        let module = format!(
            "package x\nallowed := regex.match(`{}`, `{pod}`)",
            name.pattern(kind)
        );
        engine.add_policy("x".into(), module).expect("module");
        engine
            .eval_rule("data.x.allowed".into())
            .expect("evaluates")
            == regorus::Value::from(true)
    };
    let web = PodName::Fixed("web");
    assert!(matches("Deployment", web, "web-7b4c5d6f7-x2x4z"));
    assert!(!matches("Deployment", web, "web-7b4c5d6f7-x2x4z-x2x4z"));
    assert!(!matches("Deployment", web, "evil-web-7b4c5d6f7-x2x4z"));
    assert!(!matches("Deployment", web, "web-7b4c5d6f77777-x2x4z"));
    assert!(matches("Rollout", web, "web-7b4c5d6f7-x2x4z"));
    assert!(matches("Rollout", web, "web-x2x4z"));
    assert!(!matches("ReplicaSet", web, "web-7b4c5d6f7-x2x4z"));
    assert!(matches("StatefulSet", web, "web-0"));
    assert!(!matches("StatefulSet", web, "web-x2x4z"));
    assert!(matches("CronJob", web, "web-29384756-x2x4z"));
    assert!(matches("Job", web, "web-3-x2x4z"));
    assert!(matches("Pod", PodName::Generated("web-"), "web-x2x4z"));
    assert!(!matches("Pod", PodName::Fixed("w.b"), "wxb"));
    let long = "a".repeat(60);
    assert!(matches(
        "Deployment",
        PodName::Fixed(&long),
        &format!("{}x2x4z", "a".repeat(58))
    ));
    let almost = "a".repeat(50);
    assert!(matches(
        "Deployment",
        PodName::Fixed(&almost),
        &format!("{almost}-7b4c5d6x2x4z")
    ));
}

#[test]
fn copies_that_could_be_taken_for_each_other_are_refused() {
    let image = format!("registry.example/app@sha256:{}", "0".repeat(64));
    let with = |mounts: Value| {
        let spec = json!({
            "volumes": [
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "login", "secret": {"secretName": "login"}},
                {"name": "again", "configMap": {"name": "settings"}},
            ],
            "containers": [{"name": "app", "image": image, "command": ["/app"], "volumeMounts": mounts}],
        });
        spec_with(&spec, &settings())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let same = with(json!([
        {"name": "settings", "mountPath": "/a/config"}, {"name": "login", "mountPath": "/b/config"},
    ]));
    assert!(
        same.expect_err("refused")
            .contains("paths that end in `config`")
    );
    let kubelet =
        with(json!([{"name": "settings", "mountPath": "/app/hosts", "subPath": "COLOR"}]));
    assert!(
        kubelet
            .expect_err("refused")
            .contains("paths that end in `hosts`")
    );
    let alike = json!([
        {"name": "settings", "mountPath": "/a/config"}, {"name": "again", "mountPath": "/b/config"},
    ]);
    assert_eq!(with(alike), Ok(()));
}
