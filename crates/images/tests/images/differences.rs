//! What one reader of a layer, a document or a name understands and another one understands differently.

use contrast_images::{Digest, FileChange, ImageName, LayerFacts, Resolver};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::{
    fixture::{Image, Layer, PASSWD, descriptor, record},
    registry::{Registry, content},
    resolve,
};

fn facts(layer: &Layer) -> Result<LayerFacts, String> {
    LayerFacts::of(&layer.tar()).map_err(|error| error.to_string())
}

fn users_are_unknown(layer: &Layer) -> bool {
    let facts = facts(layer).expect("a layer");
    facts.accounts.users == FileChange::Unknown
}

fn refusal(layer: &Layer) -> String {
    facts(layer).map(|_| ()).expect_err("refused")
}

#[test]
fn entries_behind_links_of_their_layer_are_refused() {
    let link = |name: &str, target: &str| {
        Layer::default()
            .file("etc/passwd", PASSWD)
            .link(EntryType::Symlink, name, target)
    };
    for layer in [
        link("x", "etc").file("x/passwd", b"evil:x:0:0\n"),
        link("x", "etc").file("x/.wh.passwd", b""),
        link("x", "etc").file("x/.wh..wh..opq", b""),
        link("x", ".").file("x/etc/passwd", b""),
        link("a/b", "../etc").file("./a//b/passwd", b""),
        link("x", ".").link(EntryType::Symlink, "x/etc", "var"),
        link("x", "etc").directory("x/y"),
        Layer::default()
            .link(EntryType::Symlink, "etc", "data")
            .file("etc/passwd", PASSWD),
        Layer::default().file("etc", b"").file("etc/passwd", PASSWD),
    ] {
        let error = refusal(&layer);
        assert!(error.contains("lies below a link, a file"), "{error}");
    }
    let harmless = link("x", "etc").file("y/passwd", b"");
    assert!(!users_are_unknown(&harmless));
}

#[test]
fn whiteout_beside_what_it_removes_is_refused() {
    let passwd = || Layer::default().file("etc/passwd", PASSWD);
    for (layer, expected) in [
        (passwd().file("etc/.wh.passwd", b""), "its own whiteout"),
        (
            Layer::default()
                .file("etc/.wh.passwd", b"")
                .file("etc/passwd", PASSWD),
            "its own whiteout",
        ),
        (passwd().file(".wh.etc", b""), "its own whiteout"),
        (
            Layer::default()
                .file(".wh.etc", b"")
                .file("etc/passwd", PASSWD),
            "or a whiteout of its own layer",
        ),
        (
            Layer::default()
                .file("etc/.wh.x", b"")
                .file("./etc/.wh.x", b""),
            "is a whiteout twice",
        ),
    ] {
        let error = refusal(&layer);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for (name, content) in [
        (".wh.", &b""[..]),
        ("a/.wh..", b""),
        ("a/.wh...", b""),
        (".wh..wh.aufs", b""),
        ("a/.wh.b/c", b""),
        ("a/.wh.b", b"content"),
    ] {
        let error = refusal(&Layer::default().file(name, content));
        assert!(error.contains("whiteout"), "{error}");
    }
    for kind in [EntryType::Symlink, EntryType::Directory] {
        let error = refusal(&Layer::default().link(kind, "etc/.wh..wh..opq", "x"));
        assert!(error.contains("called like a whiteout"), "{error}");
    }
}

#[test]
fn name_may_be_there_once_but_for_directories() {
    let again = Layer::default()
        .file("etc//passwd", PASSWD)
        .file("./etc/./passwd", b"one:x:1:1\n");
    assert!(refusal(&again).contains("is twice in its layer"));
    let kinds = Layer::default().file("etc", b"").directory("etc/");
    assert!(refusal(&kinds).contains("is twice in its layer"));
    let fine = Layer::default()
        .directory("etc")
        .file("etc/passwd", PASSWD)
        .directory("./etc/")
        .file("ETC/passwd", b"");
    assert!(!users_are_unknown(&fine));
}

#[test]
fn links_to_what_the_layer_does_not_have_are_refused() {
    for (target, before) in [
        ("etc/shadow", Layer::default()),
        ("d", Layer::default().directory("d")),
        ("etc/x", Layer::default().file("etc/.wh.x", b"")),
    ] {
        let error = refusal(&before.link(EntryType::Link, "x", target));
        assert!(error.contains("is a hard link to something"), "{error}");
    }
}

#[test]
fn what_images_have_no_use_for_is_refused() {
    for (kind, expected) in [
        (EntryType::Char, "device node"),
        (EntryType::Block, "device node"),
        (EntryType::Fifo, "neither a file nor a directory nor a link"),
        (EntryType::new(b'V'), "neither a file nor"),
        (EntryType::GNUSparse, "sparse"),
    ] {
        let error = refusal(&Layer::default().link(kind, "x", ""));
        assert!(error.contains(expected), "{error}");
    }
    let error = refusal(&Layer::default().link(EntryType::Symlink, "x", ""));
    assert!(error.contains("impossible target"), "{error}");
    let error = refusal(&Layer::default().file("x/", b""));
    assert!(error.contains("ends like a directory"), "{error}");
    let error = refusal(&Layer::default().file("./", b""));
    assert!(error.contains("ends like a directory"), "{error}");
    let root = Layer::default().link(EntryType::Symlink, ".", "/etc");
    assert!(refusal(&root).contains("is the image's root"));
}

#[test]
fn owners_times_and_attributes_have_one_meaning() {
    let twice = |key: &str, value: &[u8]| [record(key, value), record(key, value)].concat();
    for (header, expected) in [
        (twice("uid", b"1"), "or more than one"),
        (twice("SCHILY.xattr.user.a", b"1"), "attribute twice"),
        (record("gid", b""), "has no name"),
        (record("uid", b"-1"), "no user or group id"),
        (record("uid", b"4294967295"), "no user or group id"),
        (record("mtime", b"x"), "a time that is none"),
        // What splits at line breaks sees an owner.
        (
            record("SCHILY.xattr.user.a", b"\n12 uid=1000\n"),
            "in different ways",
        ),
        (
            record("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            "of the overlay file system",
        ),
        (
            record("SCHILY.xattr.user.overlay.redirect", b"/"),
            "of the overlay file system",
        ),
    ] {
        let error = refusal(&Layer::default().extended(&header, "x", b""));
        assert!(error.contains(expected), "expected {expected} in {error}");
    }
    let global = |header: &[u8]| {
        let mut layer = Layer::default();
        layer.push(EntryType::XGlobalHeader, "g", header);
        layer.file("x", b"")
    };
    let error = refusal(&global(&record("path", b"etc/passwd")));
    assert!(error.contains("for all entries after it"), "{error}");
    facts(&global(&record("comment", b"of git archive"))).expect("a layer");
}

#[test]
fn names_that_no_file_system_takes_are_refused() {
    for path in ["a".repeat(256), "a/".repeat(2100)] {
        let header = record("path", path.as_bytes());
        let layer = Layer::default().extended(&header, "x", b"");
        let error = refusal(&layer);
        assert!(error.contains("longer name than file systems"), "{error}");
    }
    let header = record("path", "a".repeat(255).as_bytes());
    facts(&Layer::default().extended(&header, "x", b"")).expect("a layer");
}

#[test]
fn extended_headers_with_two_meanings_are_refused() {
    for (header, expected) in [
        // What splits at line breaks sees the inner path.
        (
            &b"43 SCHILY.xattr.user.a=\n19 path=etc/passwd\n"[..],
            "in different ways",
        ),
        // What stops at an empty line does not see the path.
        (
            b"26 SCHILY.xattr.user.a=\n\n\n19 path=etc/passwd\n",
            "in different ways",
        ),
        (b"19 path=etc/passwd\n10 path=a\n", "or more than one"),
        (b"30 GNU.sparse.name=etc/passwd\n", "sparse"),
        (b"8 path=\n", "has no name"),
    ] {
        let layer = Layer::default().extended(header, "harmless", PASSWD);
        let error = facts(&layer).map(|_| ()).expect_err("refused");
        assert!(error.contains(expected), "{error}");
    }
    let layer = Layer::default().extended(b"19 path=etc/passwd\n", "harmless", PASSWD);
    let facts = facts(&layer).expect("a layer");
    assert!(matches!(facts.accounts.users, FileChange::Replaced(_)));
}

#[test]
fn long_name_with_a_nul_byte_is_refused() {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in [
        (
            EntryType::GNULongName,
            "././@LongLink",
            &b"etc/passwd\0.orig\0"[..],
        ),
        (EntryType::Regular, "x", PASSWD),
    ] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).expect("path");
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).expect("appends");
    }
    let tar = builder.into_inner().expect("ends");
    let error = LayerFacts::of(&tar).map(|_| ()).expect_err("refused");
    assert!(error.to_string().contains("NUL byte"), "{error}");
    assert!(
        error.to_string().contains("`etc/passwd\\0.orig`"),
        "{error}"
    );
}

#[test]
fn document_that_is_called_what_it_is_not_is_refused() {
    let image = Image::web();
    let called = |text: &[u8], media_type: &str| {
        let mut document: Value = serde_json::from_slice(text).expect("JSON");
        document["mediaType"] = json!(media_type);
        document.to_string().into_bytes()
    };
    let index = "application/vnd.oci.image.index.v1+json";
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    for top in [
        called(&image.manifest, index),
        called(&image.index(), manifest),
    ] {
        let registry = Registry::of(&image, top);
        let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
        let error = resolve(&resolver, &registry.name("web:1")).map(|_| ());
        let error = error.expect_err("refused");
        assert!(error.contains("ambiguous"), "{error}");
    }
}

#[test]
fn texts_of_strangers_do_not_reach_the_terminal() {
    let image = Image::web();
    let evil = "\u{1b}]0;x\u{7}\u{1b}[2J\r\n\u{202e}";
    let index = |platform: Value| json!({"schemaVersion": 2, "manifests": [platform]});
    let platform = json!({"digest": Digest::of(b""), "size": 1, "platform": {"os": evil, "architecture": evil}});
    let mut config = descriptor(evil, b"{}");
    config["size"] = json!(u64::MAX);
    for top in [
        json!({"schemaVersion": 2, "config": config, "layers": []}),
        index(platform),
        index(json!({"digest": format!("sha256:{evil}"), "size": 1})),
        index(json!({"digest": [evil], "size": 1})),
        json!({"schemaVersion": evil}),
        json!({"schemaVersion": 2, evil: evil}),
    ] {
        let blobs = image.blobs();
        let top = top.to_string().into_bytes();
        let registry = Registry::serve(move |request| content(&blobs, &top, &request.path));
        let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
        let error = resolve(&resolver, &registry.name("web:1")).map(|_| ());
        let error = error.expect_err("refused");
        assert!(
            !error.contains(|char: char| char.is_control() || char == '\u{202e}'),
            "{error:?}"
        );
    }
    let layer = Layer::default().file("/\u{1b}[2J\n", b"");
    let error = facts(&layer).map(|_| ()).expect_err("refused");
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[test]
fn short_name_after_the_name_of_docker_hub_is_the_same_image() {
    let tagged = |text: &str| ImageName::parse(text).expect("image").tagged();
    for name in [
        "nginx",
        "docker.io/nginx",
        "index.docker.io/library/nginx:latest",
    ] {
        assert_eq!(tagged(name), "docker.io/library/nginx:latest");
    }
}
