//! Images in a store: what is right is there, what is not leaves nothing behind.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use contrast_images::{Digest, ImageName, ImageReference, Progress, PulledImage, Resolver, Store};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::{
    Silent,
    fixture::{Image, Layer, PASSWD, gzip, record},
    hostile::lying,
    registry::{Registry, Reply},
};

/// A store in a directory, beside a place that nothing may touch.
pub(crate) struct Guest {
    directory: tempfile::TempDir,
}

impl Guest {
    /// `None` where layers cannot be unpacked, and says so.
    pub(crate) fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("directory");
        let owner = fs::metadata(directory.path()).expect("metadata").uid();
        if owner != 0 {
            eprintln!("skipped: unpacking gives files to their owners, which needs root");
            return None;
        }
        fs::create_dir(directory.path().join("outside")).expect("directory");
        fs::write(directory.path().join("outside/canary"), "canary").expect("writes");
        Some(Self { directory })
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    pub(crate) fn store_root(&self) -> PathBuf {
        self.store()
    }

    pub(crate) fn store_layers(&self) -> PathBuf {
        self.store().join("layers")
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn open(&self) -> Store {
        Store::open(&self.store(), "a boot").expect("a store")
    }

    pub(crate) fn pull(
        &self,
        registry: &Registry,
        name: &ImageName,
    ) -> Result<PulledImage, String> {
        let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
        let image = ImageReference::parse(&name.to_string()).expect("a reference");
        let pulled = resolver.pull(&image, &self.open(), &Silent);
        pulled.map_err(|error| chain(&error))
    }

    /// That the store and what is beside it are as if nothing had happened.
    pub(crate) fn assert_untouched(&self, why: &str) {
        let count = |path: &Path| fs::read_dir(path).expect("directory").count();
        assert_eq!(count(&self.store().join("layers")), 0, "{why}");
        assert_eq!(count(&self.store().join("tmp")), 0, "{why}");
        assert_eq!(count(&self.outside()), 1, "{why}");
        let canary = fs::read_to_string(self.outside().join("canary"));
        assert_eq!(canary.expect("canary"), "canary", "{why}");
    }

    fn add(&self, layer: &Layer) -> Result<PathBuf, String> {
        let store = self.open();
        let added = store
            .add(&gzip(&layer.tar()))
            .map_err(|error| chain(&error))?;
        Ok(store.layer(added).expect("there"))
    }
}

/// What is said when an image is refused, with all causes.
pub(crate) fn refusal(resolver: &Resolver, name: &ImageName, store: &Store) -> String {
    let image = ImageReference::parse(&name.to_string()).expect("a reference");
    let refused = resolver.pull(&image, store, &Silent);
    chain(&refused.map(|_| ()).expect_err("refused"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn layers_of_an_image_are_unpacked_once() {
    let Some(guest) = Guest::new() else { return };
    let image = Image::web();
    let registry = Registry::of(&image, image.index());
    let name = registry.name(&format!("web@{}", Digest::of(&image.index())));
    let pulled = guest.pull(&registry, &name).expect("pulls");
    let diff_ids: Vec<Digest> = image
        .layers
        .iter()
        .map(|(_, tar)| Digest::of(tar))
        .collect();
    assert_eq!(pulled.diff_ids, diff_ids);
    assert_eq!(pulled.configuration, image.config);
    let [base, top] = pulled.layers.as_slice() else {
        panic!("two layers");
    };
    assert_eq!(fs::read(base.join("etc/passwd")).expect("reads"), PASSWD);
    let inode = |path: &str| fs::metadata(top.join(path)).expect("there").ino();
    assert_eq!(inode("usr/bin/same"), inode("docker-entrypoint.sh"));
    let link = fs::read_link(top.join("usr/bin/any")).expect("a link");
    assert_eq!(link, Path::new("/usr/bin/tool"));

    let before = registry.paths().len();
    guest.pull(&registry, &name).expect("pulls");
    let after = registry.paths();
    assert_eq!(after.len(), before + 3, "only documents: {after:?}");
    // Another boot begins anew.
    let store = Store::open(&guest.store(), "another boot").expect("a store");
    assert!(store.layer(diff_ids[0]).is_none());
}

#[test]
fn pull_that_is_ended_breaks_off() {
    struct Over;
    impl Progress for Over {
        fn begin(&self, _layers: usize, _bytes: u64) {}
        fn read(&self, _bytes: u64) {}
        fn is_over(&self) -> bool {
            true
        }
    }
    let Some(guest) = Guest::new() else { return };
    let image = Image::web();
    let registry = Registry::of(&image, image.index());
    let name = registry.name(&format!("web@{}", Digest::of(&image.index())));
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let reference = ImageReference::parse(&name.to_string()).expect("a reference");
    let refused = resolver.pull(&reference, &guest.open(), &Over);
    let error = chain(&refused.expect_err("over"));
    assert!(error.contains("the pull was ended"), "{error}");
    guest.assert_untouched(&error);
    let blobs = |digest: &[u8]| {
        let path = format!("/v2/web/blobs/{}", Digest::of(digest));
        registry
            .paths()
            .iter()
            .filter(|asked| **asked == path)
            .count()
    };
    for (blob, _) in &image.layers {
        assert!(blobs(blob) <= 1, "not tried again: {:?}", registry.paths());
    }
    guest.pull(&registry, &name).expect("pulls");
    assert!(image.layers.iter().all(|(blob, _)| blobs(blob) >= 1));
}

#[test]
fn lie_at_any_level_is_refused_and_leaves_nothing() {
    let Some(guest) = Guest::new() else { return };
    let image = Image::web();
    let (blob, tar) = image.layers[1].clone();
    let mut same_size = blob.clone();
    let last = same_size.len() - 1;
    same_size[last] ^= 1;
    let endless = [blob.clone(), vec![0; 1 << 20]].concat();
    for (about, instead, expected) in [
        (
            &image.manifest,
            Reply::Whole(b"{}".to_vec()),
            "the manifest has the digest",
        ),
        (
            &image.config,
            Reply::Whole(image.manifest.clone()),
            "the configuration has the digest",
        ),
        (&blob, Reply::Whole(same_size), "its content has the digest"),
        (&blob, Reply::Whole(endless), "bytes, expected"),
        (&blob, Reply::Whole(tar.clone()), "bytes, expected"),
        (
            &blob,
            Reply::Half(blob.clone()),
            "could not be read to its end",
        ),
        (
            &blob,
            Reply::Status(404, vec![], vec![]),
            "the image is not complete there",
        ),
        (
            &blob,
            Reply::Status(401, vec![], vec![]),
            "asks for authentication in a way",
        ),
    ] {
        let (registry, name) = lying(&image, about, instead);
        let error = guest.pull(&registry, &name).expect_err("refused");
        assert!(error.contains(expected), "expected {expected} in {error}");
        assert!(
            error.starts_with(&format!("cannot pull image `{name}`")),
            "{error}"
        );
        // The other layer may have been right, and then it may stay.
        let store = guest.open();
        assert!(store.layer(Digest::of(&tar)).is_none(), "{error}");
        drop(store);
        fs::remove_dir_all(guest.store()).expect("removes");
    }
    let wrong = Image::with_layers(vec![(blob, b"something else".to_vec())]);
    let registry = Registry::of(&wrong, wrong.manifest.clone());
    let name = registry.name(&format!("web@{}", wrong.digest()));
    let error = guest.pull(&registry, &name).expect_err("refused");
    assert!(error.contains("names the diff id"), "{error}");
    guest.assert_untouched(&error);
}

#[test]
fn entries_that_lead_elsewhere_write_nothing_anywhere() {
    let Some(guest) = Guest::new() else { return };
    let outside = guest.outside().display().to_string();
    let link = |name: &str, target: &str| Layer::default().link(EntryType::Symlink, name, target);
    let path =
        |path: &str| Layer::default().extended(&record("path", path.as_bytes()), "x", b"evil");
    let target = |target: &str| {
        let mut layer = Layer::default();
        layer.push(
            EntryType::XHeader,
            "x",
            &record("linkpath", target.as_bytes()),
        );
        layer.link(EntryType::Link, "x", "y")
    };
    let canary = format!("{outside}/canary");
    for layer in [
        path(&format!("{outside}/evil")),
        path("../../../outside/evil"),
        path("a/../../../../outside/evil"),
        target(&canary),
        target("../../../../outside/canary"),
        link("x", &outside).file("x/evil", b"evil"),
        link("x", "../../../../outside").file("x/evil", b"evil"),
        link("x", &outside).directory("x/evil"),
        link("x", &outside).link(EntryType::Symlink, "x/evil", "y"),
        link("x", &outside).link(EntryType::Link, "y", "x/canary"),
        link("x", &outside).file("x/.wh.canary", b""),
        link("x", &outside).file("x/.wh..wh..opq", b""),
        link("x", &canary).file("x", b"evil"),
        link("x", &outside).directory("x"),
        Layer::default().file(".wh..", b""),
        Layer::default().file("a/.wh...", b""),
        Layer::default().link(EntryType::Char, "x", ""),
        Layer::default().link(EntryType::Block, "x", ""),
        Layer::default().link(EntryType::Fifo, "x", ""),
        Layer::default().file("a", b"").file("a", b""),
        Layer::default().file("a", b"").file("a/b", b""),
    ] {
        // What came before is right, and goes away as well.
        let error = guest.add(&layer).expect_err("refused");
        assert!(error.contains("its entry"), "{error}");
        guest.assert_untouched(&error);
    }
    // A link to a link is one to the link itself.
    let canary_link = link("x", &canary).link(EntryType::Link, "y", "x");
    let layer = guest.add(&canary_link).expect("adds");
    let metadata = fs::symlink_metadata(layer.join("y")).expect("there");
    assert!(metadata.is_symlink() && metadata.nlink() == 2);
    fs::remove_dir_all(layer).expect("removes");
    guest.assert_untouched("a link to a link");
}

#[test]
fn links_of_a_lower_layer_do_not_matter_to_a_higher_one() {
    let Some(guest) = Guest::new() else { return };
    let outside = guest.outside().display().to_string();
    let lower = Layer::default()
        .link(EntryType::Symlink, "x", &outside)
        .tar();
    let upper = Layer::default()
        .file("x/evil", b"evil")
        .file("x/.wh.canary", b"")
        .tar();
    let image = Image::with_layers(vec![(gzip(&lower), lower), (gzip(&upper), upper)]);
    let registry = Registry::of(&image, image.manifest.clone());
    let name = registry.name(&format!("web@{}", image.digest()));
    let pulled = guest.pull(&registry, &name).expect("pulls");
    let upper = &pulled.layers[1];
    assert_eq!(fs::read(upper.join("x/evil")).expect("there"), b"evil");
    let whiteout = fs::symlink_metadata(upper.join("x/canary")).expect("there");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(fs::read_dir(guest.outside()).expect("reads").count(), 1);
}

#[test]
fn bombs_do_not_fill_the_store() {
    let Some(guest) = Guest::new() else { return };
    let store = guest.store();
    fs::create_dir(&store).expect("directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
        .arg(&store)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: cannot mount a small file system");
        return;
    }
    let mut header = Header::new_gnu();
    header.set_path("zeros").expect("path");
    header.set_size(256 << 20);
    header.set_cksum();
    let tar = [header.as_bytes().as_slice(), &vec![0; 256 << 20]].concat();
    let many = {
        let mut layer = Layer::default();
        for number in 0..5000 {
            layer = layer.directory(&format!("{number}"));
        }
        layer.tar()
    };
    for bomb in [
        gzip(&tar),
        zstd::encode_all(tar.as_slice(), 1).expect("compresses"),
        gzip(&many),
    ] {
        let store = guest.open();
        let error = chain(&store.add(&bomb).expect_err("refused"));
        assert!(error.contains("does not fit"), "{error}");
        drop(store);
        guest.assert_untouched(&error);
    }
    let layer = |name: &str| Layer::default().file(name, &[1; 1 << 20]);
    guest.add(&layer("a")).expect("fits");
    // Somebody else writes too, after the store was opened.
    let opened = guest.open();
    let other = store.join("other");
    fs::write(&other, vec![1; 14 << 20]).expect("writes");
    let error = chain(&opened.add(&layer("b").tar()).expect_err("too little"));
    assert!(error.contains("does not fit"), "{error}");
    fs::remove_file(&other).expect("removes");
    opened.add(&layer("b").tar()).expect("fits again");
    drop(opened);
    let unmounted = Command::new("umount").arg(&store).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}

#[test]
fn windows_larger_than_memory_are_refused() {
    let Some(guest) = Guest::new() else { return };
    // A frame of RFC 8878 whose window has 2 GiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let error = guest
        .open()
        .add(&frame)
        .map(|_| ())
        .map_err(|error| chain(&error));
    let error = error.expect_err("refused");
    assert!(error.contains("too much memory"), "{error}");
}

#[test]
fn what_processes_that_died_left_is_removed() {
    let Some(guest) = Guest::new() else { return };
    let lives = guest.open();
    let abandoned = guest.store().join("tmp/run-gone");
    fs::create_dir_all(abandoned.join("etc")).expect("directory");
    symlink(guest.outside(), abandoned.join("link")).expect("links");
    let running = || {
        fs::read_dir(guest.store().join("tmp"))
            .expect("reads")
            .count()
    };
    assert_eq!(running(), 2);
    let other = guest.open();
    assert!(!abandoned.exists());
    assert_eq!(running(), 2, "that of a process that lives stays");
    // Both make the same layer; the first one counts.
    let layer = Layer::default().file("a", b"content").tar();
    assert_eq!(
        lives.add(&layer).expect("adds"),
        other.add(&layer).expect("adds")
    );
    drop((lives, other));
    let layers = guest.store().join("layers");
    assert_eq!(fs::read_dir(&layers).expect("reads").count(), 1);
    fs::remove_dir_all(layers).expect("removes");
    fs::create_dir(guest.store().join("layers")).expect("directory");
    guest.assert_untouched("abandoned");
}

#[test]
fn archive_that_proves_no_digest_is_not_pulled() {
    let Some(guest) = Guest::new() else { return };
    let image = Image::web();
    let archive = guest.outside().join("docker.tar");
    image.docker_archive(&archive, "web:1");
    let resolver = Resolver::new(std::slice::from_ref(&archive), None).expect("resolver");
    let name = format!("docker.io/library/web:1@{}", image.digest());
    let name = ImageReference::parse(&name).expect("a reference");
    let error = resolver
        .pull(&name, &guest.open(), &Silent)
        .expect_err("refused");
    assert!(chain(&error).contains("has no digests that registries know"));
    fs::remove_file(archive).expect("removes");
    guest.assert_untouched("archive");
}

#[test]
fn layer_that_an_image_has_twice_is_stacked_once() {
    let Some(guest) = Guest::new() else { return };
    let tar = |name: &str| Layer::default().file(name, b"").tar();
    let layers = ["a", "b", "a"].map(|name| (tar(name), tar(name)));
    let image = Image::with_layers(layers.to_vec());
    let registry = Registry::of(&image, image.manifest.clone());
    let name = registry.name(&format!("web@{}", image.digest()));
    let pulled = guest.pull(&registry, &name).expect("pulls");
    assert_eq!(pulled.diff_ids.len(), 3);
    let stacked: Vec<bool> = pulled
        .layers
        .iter()
        .map(|path| path.join("a").exists())
        .collect();
    assert_eq!(stacked, [false, true]);
    let blobs: BTreeMap<String, usize> =
        registry
            .paths()
            .into_iter()
            .fold(BTreeMap::new(), |mut counts, path| {
                *counts.entry(path).or_default() += 1;
                counts
            });
    assert!(blobs.values().all(|count| *count == 1), "{blobs:?}");
    let none: Value = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}});
    let empty = Image::with_config(&none, vec![]);
    let registry = Registry::of(&empty, empty.manifest.clone());
    let name = registry.name(&format!("web@{}", empty.digest()));
    assert_eq!(guest.pull(&registry, &name).expect("pulls").layers.len(), 0);
}
