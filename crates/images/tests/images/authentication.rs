use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use contrast_images::{CredentialFile, Resolver};

use crate::{
    fixture::Image,
    registry::{Registry, Reply, Request, content},
    resolve,
};

const TOKEN: &str = "Bearer the-token";

fn challenge(value: String) -> Reply {
    Reply::Status(
        401,
        vec![("WWW-Authenticate".into(), value)],
        br#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#.to_vec(),
    )
}

/// A registry whose tokens come from a server of its own, for whoever that server accepts.
fn with_tokens(image: &Image, accept: fn(&Request) -> bool) -> (Registry, Registry) {
    let tokens = Registry::serve(move |request| match accept(request) {
        true => Reply::Whole(br#"{"token":"the-token","expires_in":300}"#.to_vec()),
        false => Reply::Status(401, vec![], vec![]),
    });
    let realm = format!("http://{}/token", tokens.address);
    let (blobs, top) = (image.blobs(), image.manifest.clone());
    let registry = Registry::serve(move |request| match request.authorization() {
        Some(TOKEN) => content(&blobs, &top, &request.path),
        _ => challenge(format!(
            r#"Bearer realm="{realm}",service="the registry",scope="repository:app/web:pull,push""#
        )),
    });
    (registry, tokens)
}

fn credentials(directory: &Path, text: &str) -> Option<CredentialFile> {
    let path = directory.join("config.json");
    fs::write(&path, text).expect("writes");
    Some(CredentialFile::new(&path))
}

#[test]
fn anonymous_token_is_fetched_once_and_is_for_pulling_only() {
    let image = Image::web();
    let (registry, tokens) = with_tokens(&image, |request| request.authorization().is_none());
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    resolve(&resolver, &registry.name("app/web:1")).expect("resolves");
    assert_eq!(
        tokens.paths(),
        ["/token?service=the%20registry&scope=repository%3Aapp%2Fweb%3Apull"]
    );
    assert_eq!(
        registry
            .seen()
            .iter()
            .filter(|request| request.authorization().is_none())
            .count(),
        1
    );
}

#[test]
fn password_goes_to_the_token_server_only() {
    let image = Image::web();
    let (registry, tokens) = with_tokens(&image, |request| {
        request.authorization() == Some("Basic bWU6c2VjcmV0")
    });
    let directory = tempfile::tempdir().expect("directory");
    let mut options = registry.options();
    options.credentials = credentials(
        directory.path(),
        &format!(
            r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#,
            registry.address
        ),
    );
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    resolve(&resolver, &registry.name("app/web:1")).expect("resolves");
    assert_eq!(tokens.paths().len(), 1);
    assert!(registry.seen().iter().all(|request| {
        !request
            .authorization()
            .unwrap_or_default()
            .contains("Basic")
    }));
    assert!(!format!("{resolver:?}").contains("bWU6c2VjcmV0"));

    options.credentials = credentials(directory.path(), r#"{"auths":{}}"#);
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let error = resolve(&resolver, &registry.name("app/web:1")).expect_err("not logged in");
    assert!(
        error.ends_with("no credentials are stored for it, and it wants some"),
        "{error}"
    );

    options.credentials = credentials(
        directory.path(),
        &format!(
            r#"{{"auths":{{"{}":{{"username":"me","password":"wrong"}}}}}}"#,
            registry.address
        ),
    );
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let error = resolve(&resolver, &registry.name("app/web:1")).expect_err("wrong password");
    assert!(
        error.contains("does not accept the credentials") && !error.contains("wrong"),
        "{error}"
    );
}

#[test]
fn refresh_token_is_posted() {
    let image = Image::web();
    let (registry, tokens) = with_tokens(&image, |request| {
        request.method == "POST" && request.body.contains("refresh_token=r-token")
    });
    let directory = tempfile::tempdir().expect("directory");
    let mut options = registry.options();
    options.credentials = credentials(
        directory.path(),
        &format!(
            r#"{{"auths":{{"{}":{{"identitytoken":"r-token"}}}}}}"#,
            registry.address
        ),
    );
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    resolve(&resolver, &registry.name("app/web:1")).expect("resolves");
    assert!(tokens.seen()[0].body.contains("grant_type=refresh_token"));
}

#[test]
fn basic_authentication_works_without_a_token_server() {
    let image = Image::web();
    let (blobs, top) = (image.blobs(), image.manifest);
    let registry = Registry::serve(move |request| match request.authorization() {
        Some("Basic bWU6c2VjcmV0") => content(&blobs, &top, &request.path),
        _ => challenge(r#"Basic realm="private""#.into()),
    });
    let directory = tempfile::tempdir().expect("directory");
    let mut options = registry.options();
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let error = resolve(&resolver, &registry.name("web:1")).expect_err("not logged in");
    assert!(error.contains("no credentials are stored"), "{error}");
    options.credentials = credentials(
        directory.path(),
        &format!(
            r#"{{"auths":{{"{}":{{"username":"me","password":"secret"}}}}}}"#,
            registry.address
        ),
    );
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    resolve(&resolver, &registry.name("web:1")).expect("resolves");
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let image = Image::web();
    let blobs = image.blobs();
    let elsewhere = Registry::serve(move |request| content(&blobs, b"", &request.path));
    let address = elsewhere.address;
    let (top, config) = (image.manifest.clone(), image.blobs());
    let registry = Registry::serve(move |request| match request.authorization() {
        Some("Basic bWU6c2VjcmV0") if request.path.contains("/manifests/") => {
            content(&config, &top, &request.path)
        }
        Some(_) => Reply::Status(
            307,
            vec![(
                "Location".into(),
                format!("http://{address}{}", request.path),
            )],
            vec![],
        ),
        None => challenge(r#"Basic realm="private""#.into()),
    });
    let directory = tempfile::tempdir().expect("directory");
    let mut options = registry.options();
    options.credentials = credentials(
        directory.path(),
        &format!(
            r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#,
            registry.address
        ),
    );
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    resolve(&resolver, &registry.name("web:1")).expect("resolves");
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter().all(|request| request.authorization().is_none()),
        "{seen:?}"
    );
}

#[test]
fn helper_is_asked_and_its_failure_does_not_print_what_it_said() {
    let image = Image::web();
    let (registry, _tokens) = with_tokens(&image, |request| {
        request.authorization() == Some("Basic bWU6c2VjcmV0")
    });
    let directory = tempfile::tempdir().expect("directory");
    let helper = |name: &str, script: &str| {
        let path = directory.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        path
    };
    // The crate looks for `docker-credential-NAME` in PATH; a name with a path is found as well.
    let good = helper(
        "good",
        &format!(
            r#"[ "$(cat)" = "{}" ] && echo '{{"ServerURL":"x","Username":"me","Secret":"secret"}}'"#,
            registry.address
        ),
    );
    let bad = helper(
        "bad",
        "cat >/dev/null; echo top-secret; echo broken >&2; exit 1",
    );
    let none = helper(
        "none",
        "cat >/dev/null; echo 'credentials not found in native keychain'; exit 1",
    );
    let path = std::env::var_os("PATH").expect("PATH");
    let mut paths = vec![directory.path().to_owned()];
    paths.extend(std::env::split_paths(&path));
    let joined = std::env::join_paths(paths).expect("paths");
    let _ = (good, bad, none);
    for (name, expected) in [
        ("good", None),
        ("bad", Some("broken")),
        ("none", Some("no credentials are stored")),
        ("absent", Some("helper")),
    ] {
        let file = directory.path().join(format!("{name}.json"));
        fs::write(
            &file,
            format!(r#"{{"credHelpers":{{"{}":"{name}"}}}}"#, registry.address),
        )
        .expect("writes");
        let outcome = in_child(&registry, &file, &joined);
        match expected {
            None => assert_eq!(outcome, "resolved"),
            Some(expected) => assert!(
                outcome.contains(expected) && !outcome.contains("top-secret"),
                "{name}: {outcome}"
            ),
        }
    }
}

/// Runs `child` with another PATH.
fn in_child(registry: &Registry, file: &Path, path: &std::ffi::OsStr) -> String {
    let executable = std::env::current_exe().expect("this test");
    let output = std::process::Command::new(executable)
        .args([
            "--exact",
            "authentication::child",
            "--ignored",
            "--nocapture",
        ])
        .env("PATH", path)
        .env("TEST_REGISTRY", registry.address.to_string())
        .env("TEST_CREDENTIALS", file)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, outcome) = text
        .split_once("OUTCOME ")
        .unwrap_or_else(|| panic!("{text}"));
    outcome.lines().next().unwrap_or_default().to_owned()
}

/// Is run by `helper_is_asked_and_its_failure_does_not_print_what_it_said` as a process of its own.
#[test]
#[ignore = "is no test by itself"]
fn child() {
    let address = std::env::var("TEST_REGISTRY").expect("address");
    let file = std::env::var("TEST_CREDENTIALS").expect("file");
    let conf = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true");
    let options = contrast_images::RegistryOptions {
        credentials: Some(CredentialFile::new(Path::new(&file))),
        conf: contrast_images::RegistriesConf::parse(&conf).expect("conf"),
        ..contrast_images::RegistryOptions::default()
    };
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let name = contrast_images::ImageName::parse(&format!("{address}/app/web:1")).expect("image");
    match resolve(&resolver, &name) {
        Ok(_) => println!("OUTCOME resolved"),
        Err(error) => println!("OUTCOME {error}"),
    }
}

#[test]
fn unusable_challenges_are_refused() {
    for (value, expected) in [
        ("Negotiate", "expected Bearer or Basic, found `Negotiate`"),
        ("Bearer service=\"x\"", "no realm"),
        ("Bearer realm=\"ftp://x/y\"", "ftp://x/y"),
    ] {
        let registry = Registry::serve(move |_| challenge(value.to_owned()));
        let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
        let error = resolve(&resolver, &registry.name("web:1")).expect_err("unusable");
        assert!(error.contains(expected), "{error}");
    }
    let tokens = Registry::serve(|_| Reply::Whole(b"{}".to_vec()));
    let realm = format!("Bearer realm=\"http://{}/\"", tokens.address);
    let registry = Registry::serve(move |_| challenge(realm.clone()));
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let error = resolve(&resolver, &registry.name("web:1")).expect_err("no token");
    assert!(error.contains("without a token"), "{error}");
}
