//! `initializer serve-images`, asked as an agent asks.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use contrast_images::{Bundle, Digest, PulledImage};

use crate::{
    agent::{Puller, Refusal, message},
    support::{Clean, directory, is_possible, push, registry, registry_that, runs, write_layers},
};

const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;
const DATA_LOSS: i32 = 15;

const LAYERS: [(&str, &str); 3] = [("0.tar.gz", "+gzip"), ("1.tar.zst", "+zstd"), ("2.tar", "")];

/// htpasswd(1) of `guest` with the password below.
pub(crate) const HTPASSWD: &str =
    "guest:$2b$04$vF/fxOC29AvW5FaSTXVzde3yAvbjzloUv0sJ6BxAyXw/8Oe2a/nUa\n";
const PASSWORD: &str = "pull-password-3141";
/// `guest:pull-password-3141` in base64, as `config.json` has it.
const AUTH: &str = "Z3Vlc3Q6cHVsbC1wYXNzd29yZC0zMTQx";

fn refused(outcome: Result<String, Refusal>, code: i32, says: &str) {
    let Refusal(found, message) = outcome.expect_err(says);
    assert_eq!(found, code, "{message}");
    assert!(message.contains(says), "{message}");
}

fn digest_of(image: &str) -> &str {
    image.split_once('@').expect("a digest").1
}

/// A registry with an image, and a puller.
struct Guest {
    _registry: Clean,
    image: String,
    puller: Puller,
    directory: tempfile::TempDir,
}

impl Guest {
    fn new() -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let directory = directory();
        let (registry, address) = registry(directory.path());
        write_layers(directory.path());
        let image = push(directory.path(), &address, &LAYERS, "oci");
        let puller = Puller::start(directory.path(), &address);
        Some(Self {
            _registry: registry,
            image,
            puller,
            directory,
        })
    }

    fn pull(&self, bundle: &str) -> Result<String, Refusal> {
        self.puller.pull(&self.image, bundle)
    }
}

#[test]
fn agent_gets_root_file_systems() {
    let Some(mut guest) = Guest::new() else {
        return;
    };
    let socket = guest.puller.socket();
    let mode = fs::metadata(&socket).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let store = fs::metadata(guest.directory.path().join("store"));
    let mode = store.expect("store").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it has set-user-id programs");
    // As the agent leaves it.
    fs::create_dir_all(guest.puller.bundle("first")).expect("directory");
    for bundle in ["first", "second", "third/images"] {
        let digest = guest.pull(bundle).expect(bundle);
        assert_eq!(digest, digest_of(&guest.image));
        let rootfs = guest.puller.bundle(bundle).join("rootfs");
        let read = |name: &str| fs::read_to_string(rootfs.join(name)).expect(name);
        assert_eq!(read("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n");
        assert_eq!(read("data/new/file"), "new");
        assert!(!rootfs.join("gone").exists());
        fs::write(rootfs.join("etc/passwd"), "changed").expect("writes");
    }
    assert_eq!(guest.puller.layers(), 3, "layers are shared");
    let log = guest.puller.log();
    assert_eq!(log.matches("transferred_bytes=0").count(), 2, "{log}");
    assert_eq!(guest.puller.end(), Some(0));
    assert!(guest.puller.is_mounted("first"), "containers outlive it");
}

#[test]
fn whatever_is_not_pinned_or_not_what_its_digest_says_is_refused() {
    let Some(guest) = Guest::new() else {
        return;
    };
    let (repository, _) = guest.image.split_once('@').expect("a digest");
    let pull = |image: &str| guest.puller.pull(image, "bundle");
    let tagged = format!("{repository}:1");
    refused(
        pull(&tagged),
        INVALID_ARGUMENT,
        "has no digest, so the host could run anything",
    );
    refused(pull(""), INVALID_ARGUMENT, "");
    let absent = format!("{repository}@{}", Digest::of(b""));
    refused(pull(&absent), NOT_FOUND, "it is not in registries");
    // The registry changes a layer.
    let blobs = guest
        .directory
        .path()
        .join("registry/docker/registry/v2/blobs/sha256");
    let layer = fs::read(guest.directory.path().join("0.tar.gz")).expect("layer");
    change(&blobs, &Digest::of(&layer).to_string());
    refused(
        pull(&guest.image),
        DATA_LOSS,
        &Digest::of(&layer).to_string(),
    );
    assert!(!guest.puller.is_mounted("bundle"));
    let left = fs::read_dir(guest.puller.bundle("bundle")).expect("bundle");
    assert_eq!(left.count(), 0, "a failure leaves nothing behind");
}

/// Changes the last byte of a blob in a registry's storage.
fn change(blobs: &Path, digest: &str) {
    let hex = digest.trim_start_matches("sha256:");
    let path = blobs.join(&hex[..2]).join(hex).join("data");
    let mut content = fs::read(&path).expect("blob");
    *content.last_mut().expect("content") ^= 1;
    fs::write(&path, content).expect("writes");
}

#[test]
fn nothing_is_mounted_elsewhere() {
    let Some(guest) = Guest::new() else {
        return;
    };
    let root = guest.puller.bundle("");
    let root = root.to_str().expect("text").trim_end_matches('/');
    let outside = guest.directory.path().join("outside");
    fs::create_dir(&outside).expect("directory");
    symlink(&outside, guest.puller.bundle("link")).expect("links");
    let mut agent = guest.puller.connect();
    let says = "expected an absolute path below";
    for path in [
        "",
        "bundle",
        "/outside",
        root,
        &format!("{root}/"),
        &format!("{root}/../outside/x"),
        &format!("{root}/a/../../outside"),
        &format!("{root}//a"),
        &format!("{root}x/a"),
    ] {
        refused(agent.pull(&guest.image, path), INVALID_ARGUMENT, says);
    }
    for path in ["link", "link/bundle"] {
        let says = "without following a link";
        refused(guest.pull(path), FAILED_PRECONDITION, says);
    }
    assert_eq!(fs::read_dir(&outside).expect("directory").count(), 0);
    let used = guest.puller.bundle("used");
    fs::create_dir(&used).expect("directory");
    fs::write(used.join("config.json"), "{}").expect("writes");
    refused(
        guest.pull("used"),
        FAILED_PRECONDITION,
        "has something in it (`config.json`)",
    );
    guest.pull("good").expect("pulls");
    refused(
        guest.pull("good"),
        FAILED_PRECONDITION,
        "has something in it",
    );
    // Inside of what another container may write to. What it makes in its root file system is in `upper` as well.
    fs::create_dir(guest.puller.bundle("good/rootfs/x")).expect("directory");
    assert!(guest.puller.bundle("good/upper/x").is_dir());
    for (path, part) in [
        ("good/rootfs/x", "rootfs"),
        ("good/upper/x", "upper"),
        ("shared/containers/id-volume/local", "shared"),
        ("sandbox/ephemeral/x", "sandbox"),
    ] {
        let says = format!("goes through `{part}`, where containers write");
        refused(guest.pull(path), INVALID_ARGUMENT, &says);
        assert!(!guest.puller.is_mounted(path));
    }
    let volume = guest.puller.bundle("volume");
    fs::create_dir(&volume).expect("directory");
    let mount = ["-t", "tmpfs", "none", volume.to_str().expect("text")];
    runs("mount", &mount);
    for path in ["volume", "volume/x"] {
        refused(
            guest.pull(path),
            FAILED_PRECONDITION,
            "leaving the file system",
        );
    }
    assert_eq!(
        agent
            .pull(&guest.image, &format!("{root}/last"))
            .expect("pulls"),
        digest_of(&guest.image)
    );
}

#[test]
fn other_services_are_not_there() {
    let Some(guest) = Guest::new() else {
        return;
    };
    let mut agent = guest.puller.connect();
    let expected = "expected `PullImage` in `api.ImagePullService`";
    for (service, method, says) in [
        ("api.SealedSecretService", "UnsealSecret", expected),
        ("api.SecureMountService", "SecureMount", expected),
        (
            "api.SecureMountService",
            "SecureMount",
            "`emptydir_mode` to another one",
        ),
        ("api.ImagePullService", "pullImage", expected),
        ("", "", expected),
    ] {
        let number = agent.send(service, method, Vec::new(), Duration::ZERO);
        let (answered, outcome) = agent.answer().expect("answer");
        assert_eq!(answered, number);
        refused(outcome, UNIMPLEMENTED, says);
    }
    let number = agent.send(
        "api.ImagePullService",
        "PullImage",
        vec![0xff; 9],
        Duration::ZERO,
    );
    let (answered, outcome) = agent.answer().expect("answer");
    assert_eq!(answered, number);
    refused(outcome, INVALID_ARGUMENT, "expected an ImagePullRequest");
}

#[test]
fn images_are_pulled_at_once_and_each_layer_once() {
    let Some(guest) = Guest::new() else {
        return;
    };
    let address = guest.image.split('/').next().expect("registry").to_owned();
    let other = push(guest.directory.path(), &address, &[("2.tar", "")], "v2s2");
    let mut agent = guest.puller.connect();
    let mut numbers = Vec::new();
    for (image, bundle) in [
        (&guest.image, "a"),
        (&guest.image, "b"),
        (&other, "c"),
        (&guest.image, "d"),
        (&other, "e"),
    ] {
        let bundle = guest.puller.bundle(bundle);
        numbers.push(agent.ask(image, &bundle.to_string_lossy(), Duration::ZERO));
    }
    // The same directory twice: one of them gets it.
    let twice = guest.puller.bundle("twice");
    let twice = twice.to_string_lossy();
    let both = [&guest.image, &other].map(|image| agent.ask(image, &twice, Duration::ZERO));
    let mut refusals = 0;
    for _ in 0..7 {
        let (number, outcome) = agent.answer().expect("answer");
        match outcome {
            Ok(_) => numbers.retain(|asked| *asked != number),
            Err(Refusal(code, message)) => {
                assert!(
                    both.contains(&number) && code == FAILED_PRECONDITION,
                    "{message}"
                );
                refusals += 1;
            }
        }
    }
    assert_eq!((numbers.as_slice(), refusals), ([].as_slice(), 1));
    let log = guest.puller.log();
    // The layer of the smaller image is one of the larger one's, which may have it unpacked already.
    let in_store = log.matches("transferred_bytes=0").count();
    assert!((4..=5).contains(&in_store), "{log}");
    for bundle in ["a", "b", "c", "d", "e", "twice"] {
        let file = guest.puller.bundle(bundle).join("rootfs/data/new/file");
        assert_eq!(fs::read_to_string(file).expect(bundle), "new");
    }
}

#[test]
fn nothing_is_mounted_for_a_caller_that_left() {
    let Some(guest) = Guest::new() else {
        return;
    };
    let path = guest.puller.bundle("late");
    let path = path.to_string_lossy();
    let mut agent = guest.puller.connect();
    let number = agent.ask(&guest.image, &path, Duration::from_millis(1));
    let (answered, outcome) = agent.answer().expect("answer");
    assert_eq!(answered, number);
    refused(outcome, DEADLINE_EXCEEDED, "the caller waits");
    guest.puller.wait_for_log("nobody waits for it any more");
    assert!(!guest.puller.is_mounted("late"));
    assert_eq!(
        guest.puller.layers(),
        3,
        "what was pulled is there for the next attempt"
    );
    let left = fs::read_dir(guest.puller.bundle("late")).expect("bundle");
    assert_eq!(left.count(), 0);
    agent.pull(&guest.image, &path).expect("pulls");
    assert!(guest.puller.is_mounted("late"));
}

#[test]
fn end_does_not_wait_for_a_registry() {
    let directory = directory();
    // Nobody accepts, so the connection is there and silent.
    let silent = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = silent.local_addr().expect("address").to_string();
    let mut puller = Puller::start(directory.path(), &address);
    let image = format!("{address}/app@{}", Digest::of(b""));
    let bundle = puller.bundle("bundle");
    let mut agent = puller.connect();
    agent.ask(&image, &bundle.to_string_lossy(), Duration::ZERO);
    let begun = Instant::now();
    while !bundle.join("rootfs").exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{}",
            puller.log()
        );
        thread::sleep(Duration::from_millis(20));
    }
    let asked = Instant::now();
    assert_eq!(puller.end(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10));
    agent.end();
}

#[test]
fn mounted_bundle_is_removed_without_a_trace() {
    if !is_possible() {
        return;
    }
    let directory = directory();
    let path = directory.path().join("bundle");
    let image = PulledImage {
        diff_ids: Vec::new(),
        layers: Vec::new(),
        configuration: b"{}".to_vec(),
    };
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        mounts.contains(&*path.join("rootfs").to_string_lossy())
    };
    for is_to_be_mounted in [true, false] {
        let mut bundle = Bundle::new(&path).expect("a bundle");
        if is_to_be_mounted {
            bundle.mount(&image).expect("mounts");
        }
        assert_eq!(is_mounted(), is_to_be_mounted);
        bundle.remove().expect("removes");
        assert!(!is_mounted());
        assert_eq!(fs::read_dir(&path).expect("bundle").count(), 0);
    }
}

#[test]
fn credentials_may_come_after_the_boot() {
    let Some(guest) = Guest::new() else {
        return;
    };
    let directory = guest.directory.path();
    let passwords = directory.join("htpasswd");
    fs::write(&passwords, HTPASSWD).expect("writes");
    let line = format!(
        "auth: {{htpasswd: {{realm: private, path: {}}}}}",
        passwords.display()
    );
    let (_private, address) = registry_that(directory, &line);
    let conf = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
    let Guest {
        image,
        puller,
        directory,
        ..
    } = guest;
    drop(puller);
    fs::write(directory.path().join("registries.conf"), conf).expect("writes");
    fs::remove_file(directory.path().join("notify")).expect("removes");
    let puller = Puller::start(directory.path(), &address);
    let image = format!("{address}/app/oci@{}", digest_of(&image));
    let pull = |bundle: &str| puller.pull(&image, bundle);
    let says = "no credentials are stored for it";
    refused(pull("early"), PERMISSION_DENIED, says);
    refused(pull("early"), PERMISSION_DENIED, "found no such file");
    // The volume of the pod appears with its first container, and the Initializer renames the file into place.
    let credentials = directory.path().join("credentials");
    fs::create_dir(&credentials).expect("directory");
    refused(pull("early"), PERMISSION_DENIED, "sealed credentials");
    let config = credentials.join("config.json");
    fs::write(&config, "{\"auths\":{}}").expect("writes");
    let seal = format!("{} has none for {address}; seal some", config.display());
    refused(pull("early"), PERMISSION_DENIED, &seal);
    let write = |auth: &str| {
        let config = format!("{{\"auths\":{{\"{address}\":{{\"auth\":\"{auth}\"}}}}}}");
        fs::write(credentials.join("config.json"), config).expect("writes");
    };
    write("Z3Vlc3Q6d3Jvbmc=");
    refused(
        pull("early"),
        PERMISSION_DENIED,
        "does not accept the credentials",
    );
    refused(pull("early"), PERMISSION_DENIED, "seal others");
    assert!(!puller.log().contains("docker login"), "{}", puller.log());
    write(AUTH);
    pull("early").expect("pulls");
    // What is in the store is for those only who may read it in the registry.
    fs::remove_file(credentials.join("config.json")).expect("removes");
    refused(pull("later"), PERMISSION_DENIED, says);
    fs::write(
        credentials.join("config.json"),
        format!("not JSON: {PASSWORD}"),
    )
    .expect("writes");
    let Refusal(code, message) = pull("later").expect_err("no JSON");
    assert_eq!(code, PERMISSION_DENIED, "{message}");
    for secret in [PASSWORD, AUTH] {
        assert!(!message.contains(secret), "{message}");
        assert!(!puller.log().contains(secret), "{}", puller.log());
    }
}

#[test]
fn peers_that_do_not_speak_ttrpc_disturb_nobody() {
    let Some(guest) = Guest::new() else {
        return;
    };
    let mut agent = guest.puller.connect();
    let mut half = guest.puller.connect();
    half.stream
        .write_all(&message(1, &[0; 100])[..50])
        .expect("writes");
    let began = Instant::now();
    let mut large = guest.puller.connect();
    large
        .stream
        .write_all(&message(1, &[0; 100_000]))
        .expect("writes");
    let (number, outcome) = large.answer().expect("answer");
    assert_eq!(number, 1);
    refused(
        outcome,
        RESOURCE_EXHAUSTED,
        "100000 bytes, expected at most 16384",
    );
    large
        .pull(
            &guest.image,
            &guest.puller.bundle("large").to_string_lossy(),
        )
        .expect("the connection stays");
    let mut garbage = guest.puller.connect();
    garbage.stream.write_all(&[0xff; 100]).expect("writes");
    let (_, outcome) = garbage.answer().expect("answer");
    refused(
        outcome,
        INVALID_ARGUMENT,
        "the peer speaks another protocol",
    );
    garbage.end();
    half.end();
    let waited = began.elapsed();
    assert!(
        waited > Duration::from_secs(9) && waited < Duration::from_secs(30),
        "{waited:?}"
    );
    agent
        .pull(
            &guest.image,
            &guest.puller.bundle("agent").to_string_lossy(),
        )
        .expect("silence between messages is allowed");
}

#[test]
fn what_can_never_work_fails_at_boot() {
    let directory = directory();
    let path = directory.path();
    let fails = |flags: &[&str], says: &str| {
        let mut command = Puller::command(path);
        let child = command
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = child.wait_with_output().expect("ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(says), "{text}");
    };
    fails(&["--registry-ca", "/nowhere"], "cannot read /nowhere");
    fails(
        &["--registries-conf", "/dev/null/x"],
        "cannot read /dev/null/x",
    );
    let socket = path.join("run/made");
    fs::create_dir_all(socket.join("cdh.sock")).expect("directory");
    fails(&[], "something else than a socket");
    fs::remove_dir(socket.join("cdh.sock")).expect("removes");
    let mut silent = Puller::command(path);
    let output = silent
        .env("NOTIFY_SOCKET", "/nowhere")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("NOTIFY_SOCKET"), "{text}");
}
