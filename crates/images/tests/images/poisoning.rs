//! Images and files that would harm others, later runs or the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use contrast_images::{ImageCache, ImageName, LayerFacts, Resolver};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::{
    Silent,
    fixture::{Image, Layer, gzip},
    registry::{Registry, content},
    resolve,
};

fn name(text: &str) -> ImageName {
    ImageName::parse(text).expect("image")
}

#[test]
fn what_is_only_said_of_a_digest_is_not_kept_in_the_file() {
    let directory = tempfile::tempdir().expect("directory");
    let docker = directory.path().join("docker.tar");
    Image::web().docker_archive(&docker, "a.example/web:1");
    let other = Image::with_layers(vec![(vec![], vec![])]).digest();
    let resolver = Resolver::new(&[docker], None).expect("resolver");
    let wanted = name(&format!("a.example/web:1@{other}"));
    let (resolved, cache) = resolve(&resolver, &wanted).expect("resolves");
    assert!(resolved.unproven);
    assert!(cache.get(&other.to_string()).is_some(), "for this run");
    let path = directory.path().join("image-cache.json");
    cache.add_to(&path).expect("writes");
    let read = ImageCache::read(&path).expect("reads");
    assert_eq!(read.get(&other.to_string()), None, "not for later ones");
}

#[test]
fn image_that_lies_about_a_layer_does_not_make_another_one_fail() {
    let image = Image::web();
    let mut lying: Value = serde_json::from_slice(&image.manifest).expect("JSON");
    lying["layers"][0]["size"] = json!(7);
    let lying = lying.to_string().into_bytes();
    let blobs = image.blobs();
    let honest = image.manifest.clone();
    let registry = Registry::serve(move |request| {
        let top = match request.path.contains("/evil/") {
            true => &lying,
            false => &honest,
        };
        content(&blobs, top, &request.path)
    });
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let names = [registry.name("evil/web:1"), registry.name("good/web:1")];
    let mut cache = ImageCache::default();
    let outcome = resolver.resolve(&names, &mut cache, &Silent);
    let failed: Vec<ImageName> = match outcome {
        Ok(_) => vec![],
        Err(error) => error.images.into_iter().map(|(name, _)| name).collect(),
    };
    assert!(!failed.contains(&names[1]), "{failed:?}");
    assert!(cache.get(&image.digest().to_string()).is_some());
}

#[test]
fn pipe_in_a_layout_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().expect("directory");
    let image = Image::web();
    image.layout(directory.path(), "a.example/a:1");
    let hex = image.digest().hex();
    let blob = directory.path().join("blobs/sha256").join(hex);
    fs::remove_file(&blob).expect("removes");
    let made = Command::new("mkfifo").arg(&blob).status().expect("mkfifo");
    assert!(made.success());
    let (sender, receiver) = mpsc::channel();
    let path = directory.path().to_owned();
    thread::spawn(move || {
        let resolver = Resolver::new(&[path], None).expect("resolver");
        let outcome = resolve(&resolver, &name("a.example/a:1")).map(|_| ());
        // Nobody listens when it took too long.
        let _ = sender.send(outcome);
    });
    let outcome = receiver.recv_timeout(Duration::from_secs(10));
    let error = outcome.expect("an answer").expect_err("refused");
    assert!(error.contains("no regular file"), "{error}");
}

fn archive(path: &Path, entries: &[(EntryType, &str, &[u8])]) -> PathBuf {
    let mut builder = Builder::new(fs::File::create(path).expect("creates"));
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_path(name).expect("path");
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).expect("appends");
    }
    builder.finish().expect("ends");
    path.to_owned()
}

#[test]
fn tables_of_archives_are_bounded() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("a.tar");
    let long = vec![b'a'; 2 << 20];
    let refusal = |entries: &[(EntryType, &str, &[u8])]| {
        let refused = Resolver::new(&[archive(&path, entries)], None).expect_err("refused");
        let source = std::error::Error::source(&refused).map(ToString::to_string);
        format!("{refused}: {}", source.unwrap_or_default())
    };
    let error = refusal(&[
        (EntryType::GNULongName, "././@LongLink", &long),
        (EntryType::Regular, "x", b""),
    ]);
    assert!(error.contains("more than 1048576 bytes"), "{error}");

    let digest = "0".repeat(64);
    let diff_ids = vec![format!("sha256:{digest}"); 501];
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}});
    let table = json!([{"Config": "c", "RepoTags": ["a:1"], "Layers": vec!["l"; 501]}]);
    let (config, table) = (config.to_string(), table.to_string());
    let error = refusal(&[
        (EntryType::Regular, "c", config.as_bytes()),
        (EntryType::Regular, "l", b""),
        (EntryType::Regular, "manifest.json", table.as_bytes()),
    ]);
    assert!(error.contains("number of layers is too large"), "{error}");

    let table = json!(vec![json!({"Config": "c", "Layers": []}); 1001]).to_string();
    let error = refusal(&[(EntryType::Regular, "manifest.json", table.as_bytes())]);
    assert!(error.contains("number of images is too large"), "{error}");

    let table = json!([{"Config": "\u{1b}[2J", "Layers": []}]).to_string();
    let error = refusal(&[(EntryType::Regular, "manifest.json", table.as_bytes())]);
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn lists_of_users_and_groups_are_bounded() {
    let members = format!("g:x:1:{}", "a,".repeat(40_000));
    let layer = Layer::default().file("etc/group", members.as_bytes());
    let error = LayerFacts::of(&layer.tar())
        .map(|_| ())
        .expect_err("refused");
    assert!(error.to_string().contains("32768"), "{error}");
}

#[test]
fn entries_are_bounded() {
    let mut tar = Vec::new();
    for number in 0..=1_000_000 {
        let mut header = Header::new_gnu();
        header.set_path(format!("{number}")).expect("path");
        header.set_size(0);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
    }
    let error = LayerFacts::of(&gzip(&tar))
        .map(|_| ())
        .expect_err("refused");
    assert!(error.to_string().contains("one entry too many"), "{error}");
}
