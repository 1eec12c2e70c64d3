use serde_json::json;

use super::*;

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
        name: "web",
        namespace: "shop",
        template: &template,
        images,
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
        "args": ["$$(PORT)", "$(UNKNOWN)", "a$b"],
        "env": [{"name": "PORT", "value": "80"}],
    }));
    assert_eq!(
        built.args,
        ["/web", "--port=80", "$(PORT)", "$(UNKNOWN)", "a$b"]
    );
}

#[test]
fn argument_from_a_value_of_the_cluster_is_refused() {
    let error = policy_with(
        &json!({
            "command": ["/web", "$(IP)"],
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        }),
        &ImageCache::default(),
    );
    let error = error.expect_err("unknown value").to_string();
    assert!(
        error.starts_with("$(IP) of `web` is not supported"),
        "{error}"
    );
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
    assert_eq!(built.args, ["/web", "x"]);
    assert_eq!(built.env, [fixed("PATH", "/bin")]);
    assert_eq!((built.uid, built.cwd.as_deref()), (Some(65532), Some("/")));
    let built = policy_with(&json!({}), &images)
        .expect("a policy")
        .containers
        .remove(0);
    assert_eq!(built.args, ["/web", "serve"]);
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
            name: "p",
            namespace: "default",
            template: &template,
            images: &ImageCache::default(),
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
        name: "p",
        namespace: "default",
        template: &template,
        images: &images,
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
    assert_eq!(added.capabilities, ["NET_ADMIN"]);
    assert!(with(json!({"privileged": true})).privileged);
    assert_eq!(with(json!({})).capabilities.len(), 14);
}
