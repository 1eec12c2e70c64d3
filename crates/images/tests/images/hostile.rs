//! Whoever answers lies, is slow, or wants to do harm.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use contrast_images::{Digest, ImageName, Resolver};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::{
    digest,
    fixture::{Image, Layer, PASSWD, descriptor, gzip, gzip_best},
    registry::{Registry, Reply, content},
    resolve,
};

/// What is said of an image that a layout holds.
fn refusal(image: &Image) -> String {
    let directory = tempfile::tempdir().expect("directory");
    image.layout(directory.path(), "a.example/a:1");
    let resolver = Resolver::new(&[directory.path().to_owned()], None).expect("resolver");
    resolve(
        &resolver,
        &ImageName::parse("a.example/a:1").expect("image"),
    )
    .map(|_| ())
    .expect_err("refused")
}

fn refusal_of_layer(layer: &Layer) -> String {
    let tar = layer.tar();
    refusal(&Image::with_layers(vec![(gzip(&tar), tar)]))
}

#[test]
fn paths_that_leave_the_image_are_refused() {
    for (layer, expected) in [
        (
            Layer::default().file("/etc/passwd", PASSWD),
            "its entry `/etc/passwd` has an absolute path",
        ),
        (
            Layer::default().file("a/../../etc/passwd", PASSWD),
            "leaves the image's root with `..`",
        ),
        (
            Layer::default().link(EntryType::Link, "etc/passwd", "/etc/shadow"),
            "hard link with an absolute target",
        ),
        (
            Layer::default().link(EntryType::Link, "x", "../../etc/shadow"),
            "hard link with an absolute target, or one with `..`",
        ),
        (
            Layer::default().link(EntryType::GNUSparse, "x", ""),
            "sparse",
        ),
    ] {
        let error = refusal_of_layer(&layer);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_in_extended_headers_are_checked_as_well() {
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", b"../etc/passwd".as_slice())])
        .expect("appends");
    let mut header = Header::new_ustar();
    header.set_path("harmless").expect("path");
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &[][..]).expect("appends");
    let tar = builder.into_inner().expect("ends");
    let error = refusal(&Image::with_layers(vec![(gzip(&tar), tar)]));
    assert!(error.contains("`../etc/passwd` leaves"), "{error}");
}

#[test]
fn bombs_are_stopped() {
    // 3 GiB of zeros in 3 MiB, as gzip members that repeat.
    let mut header = Header::new_gnu();
    header.set_path("zeros").expect("path");
    header.set_size(3 << 30);
    header.set_cksum();
    let mut blob = gzip(header.as_bytes());
    let zeros = gzip_best(&vec![0; 64 << 20]);
    for _ in 0..48 {
        blob.extend_from_slice(&zeros);
    }
    let error = refusal(&Image::with_layers(vec![(blob, vec![])]));
    assert!(error.contains("which no honest layer"), "{error}");

    // A name of 100 MiB.
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_path("././@LongLink").expect("path");
    header.set_entry_type(EntryType::GNULongName);
    let name = vec![b'a'; 100 << 20];
    header.set_size(name.len() as u64);
    header.set_cksum();
    builder.append(&header, name.as_slice()).expect("appends");
    let tar = builder.into_inner().expect("ends");
    let error = refusal(&Image::with_layers(vec![(gzip(&tar), tar)]));
    assert!(error.contains("more than 1048576 bytes"), "{error}");

    let error = refusal_of_layer(&Layer::default().file("etc/passwd", &vec![b'x'; 5 << 20]));
    assert!(
        error.contains("`etc/passwd` has more than 512 KiB"),
        "{error}"
    );
}

#[test]
fn damaged_layers_are_refused() {
    let tar = Layer::default().file("etc/passwd", PASSWD).tar();
    let mut cut = gzip(&tar);
    cut.truncate(cut.len() / 2);
    let mut flipped = tar.clone();
    flipped[0] ^= 1;
    for (blob, tar, expected) in [
        (cut, tar.clone(), "it is damaged"),
        (gzip(&flipped), flipped, "it is damaged"),
        (
            gzip(b"not an archive at all, but more than nothing"),
            tar.clone(),
            "damaged",
        ),
        (b"\x28\xb5\x2f\xfdrubbish".to_vec(), tar.clone(), "damaged"),
        (
            gzip(&tar),
            b"another".to_vec(),
            "but the image's configuration names the diff id",
        ),
    ] {
        let error = refusal(&Image::with_layers(vec![(blob, tar)]));
        assert!(error.contains(expected), "{error}");
    }
}

/// A registry that answers with something else for one digest.
pub(crate) fn lying(image: &Image, about: &[u8], instead: Reply) -> (Registry, ImageName) {
    let (blobs, top) = (image.blobs(), image.manifest.clone());
    let about = Digest::of(about).to_string();
    let registry =
        Registry::serve(
            move |request| match (request.path.ends_with(&about), &instead) {
                (false, _) => content(&blobs, &top, &request.path),
                (true, Reply::Whole(body)) => Reply::Whole(body.clone()),
                (true, Reply::Half(body)) => Reply::Half(body.clone()),
                (true, Reply::Drops(body)) => Reply::Drops(body.clone()),
                (true, Reply::Cut(status, headers, body, sent)) => {
                    Reply::Cut(*status, headers.clone(), body.clone(), *sent)
                }
                (true, Reply::Hang(body)) => Reply::Hang(body.clone()),
                (true, Reply::Status(status, headers, body)) => {
                    Reply::Status(*status, headers.clone(), body.clone())
                }
            },
        );
    let name = registry.name(&format!("web@{}", image.digest()));
    (registry, name)
}

#[test]
fn registry_that_lies_is_refused() {
    let image = Image::web();
    let other = Image::with_layers(vec![(gzip(b""), vec![])]);
    let layer = image.layers[0].0.clone();
    let mut same_size = layer.clone();
    let last = same_size.len() - 1;
    same_size[last] ^= 1;
    let longer = [layer.as_slice(), b"more"].concat();
    for (about, instead, expected) in [
        (
            &image.manifest,
            Reply::Whole(other.manifest.clone()),
            format!("the manifest has the digest {}", other.digest()),
        ),
        (
            &image.config,
            Reply::Whole(other.config),
            "the configuration has the digest".to_owned(),
        ),
        (
            &layer,
            Reply::Whole(same_size),
            "its content has the digest".to_owned(),
        ),
        (
            &layer,
            Reply::Whole(longer),
            format!("it has {} bytes, expected {}", layer.len() + 1, layer.len()),
        ),
        (
            &layer,
            Reply::Half(layer.clone()),
            "could not be read to its end".to_owned(),
        ),
        (
            &layer,
            Reply::Whole(layer[..100].to_vec()),
            format!("it has 100 bytes, expected {}", layer.len()),
        ),
        (
            &layer,
            Reply::Hang(layer.clone()),
            "could not be read to its end: timeout".to_owned(),
        ),
        (
            &layer,
            Reply::Status(404, vec![], vec![]),
            "so the image is not complete there".to_owned(),
        ),
        (
            &image.manifest,
            Reply::Whole(vec![b' '; 5 << 20]),
            "limit".to_owned(),
        ),
        (
            &image.manifest,
            Reply::Status(
                400,
                vec![],
                br#"{"errors":[{"code":"X","message":"a\u001b[31mb"}]}"#.to_vec(),
            ),
            "status 400: X a[31mb".to_owned(),
        ),
    ] {
        let (registry, name) = lying(&image, about, instead);
        let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
        let begun = Instant::now();
        let error = resolve(&resolver, &name).map(|_| ()).expect_err("refused");
        assert!(error.contains(&expected), "expected {expected} in {error}");
        assert!(error.contains(&digest(&name)), "{error}");
        // Three attempts of at most 0.3 s of silence.
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
    }
}

#[test]
fn registry_that_sends_drop_by_drop_is_given_up() {
    let image = Image::web();
    let (registry, name) = lying(&image, &image.manifest, Reply::Hang(image.manifest.clone()));
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let error = resolve(&resolver, &name).map(|_| ()).expect_err("given up");
    assert!(error.contains("no answer from"), "{error}");
    assert_eq!(registry.paths().len(), 3, "three attempts");
}

#[test]
fn registry_without_tls_says_what_to_write() {
    let image = Image::web();
    let registry = Registry::of(&image, image.manifest.clone());
    let mut options = registry.options();
    options.conf = contrast_images::RegistriesConf::default();
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let error = resolve(&resolver, &registry.name("web:1"))
        .map(|_| ())
        .expect_err("no TLS");
    assert!(error.contains("`insecure = true`"), "{error}");
    assert_eq!(registry.paths(), Vec::<String>::new());
}

fn refusal_of_top(top: &Value) -> String {
    let image = Image::web();
    let registry = Registry::of(&image, top.to_string().into_bytes());
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    resolve(&resolver, &registry.name("web:1"))
        .map(|_| ())
        .expect_err("refused")
}

#[test]
fn documents_that_are_none_are_refused() {
    let image = Image::web();
    let manifest: Value = serde_json::from_slice(&image.manifest).expect("manifest");
    let with = |key: &str, value: Value| {
        let mut changed = manifest.clone();
        changed[key] = value;
        changed
    };
    let arm = json!({"schemaVersion": 2, "manifests": [{"digest": image.digest(), "size": 1, "platform": {"os": "linux", "architecture": "arm64"}}]});
    let chart = descriptor("application/vnd.cncf.helm.config.v1+json", b"{}");
    let loop_to_itself = json!({"schemaVersion": 2, "manifests": [descriptor("x", b"gone")]});
    for (top, expected) in [
        (json!([]), "the manifest is malformed"),
        (json!({}), "schemaVersion 0, expected 2"),
        (
            with("schemaVersion", json!(1)),
            "schemaVersion 1, expected 2",
        ),
        (with("manifests", json!([])), "ambiguous"),
        (
            with("config", chart),
            "it is no container image: the type of its configuration is `application/vnd.cncf.helm",
        ),
        (
            with("layers", json!([])),
            "has 0 layers, but its configuration lists 2",
        ),
        (
            with("layers", json!(vec![descriptor("x", b"y"); 501])),
            "number of layers is too large",
        ),
        (
            arm,
            "it is for linux/arm64; confidential pods need linux/amd64",
        ),
        (loop_to_itself, "it is not in registries"),
    ] {
        let error = refusal_of_top(&top);
        assert!(error.contains(expected), "expected {expected} in {error}");
    }
    let config = json!({"os": "windows", "architecture": "amd64", "rootfs": {"diff_ids": []}});
    let error = refusal(&Image::with_config(&config, vec![]));
    assert!(error.contains("it is for windows/amd64"), "{error}");
}

#[test]
fn indexes_do_not_nest_without_end() {
    let image = Image::web();
    let mut blobs: BTreeMap<String, Vec<u8>> = image.blobs();
    let mut top = image.index();
    for _ in 0..5 {
        let mut below = descriptor("application/vnd.oci.image.index.v1+json", &top);
        below["platform"] = json!({"os": "linux", "architecture": "amd64"});
        blobs.insert(Digest::of(&top).to_string(), top);
        top = json!({"schemaVersion": 2, "manifests": [below]})
            .to_string()
            .into_bytes();
    }
    let registry = Registry::serve(move |request| content(&blobs, &top, &request.path));
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let error = resolve(&resolver, &registry.name("web:1"))
        .map(|_| ())
        .expect_err("refused");
    assert!(error.contains("more than 3 deep"), "{error}");
}
