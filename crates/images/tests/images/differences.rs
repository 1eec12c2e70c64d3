//! What one reader of a layer, a document or a name understands and another one understands differently.

use contrast_images::{Digest, FileChange, ImageName, LayerFacts, Resolver};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::{
    fixture::{Image, Layer, PASSWD, descriptor},
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

#[test]
fn files_behind_links_make_users_unknown() {
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
        Layer::default()
            .link(EntryType::Symlink, "etc", "data")
            .file("etc/passwd", PASSWD)
            .file("etc/group", b""),
    ] {
        assert!(users_are_unknown(&layer));
    }
    let harmless = link("x", "etc").file("x/hosts", b"").file("y/passwd", b"");
    assert!(!users_are_unknown(&harmless));
}

#[test]
fn whiteout_beside_its_file_makes_users_unknown() {
    for layer in [
        Layer::default()
            .file("etc/passwd", PASSWD)
            .file("etc/.wh.passwd", b""),
        Layer::default()
            .file("etc/.wh.passwd", b"")
            .file("etc/passwd", PASSWD),
        Layer::default()
            .file("etc/passwd", PASSWD)
            .file(".wh.etc", b""),
    ] {
        assert!(users_are_unknown(&layer));
    }
}

#[test]
fn last_entry_of_a_name_wins() {
    let layer = Layer::default()
        .file("etc//passwd", PASSWD)
        .file("./etc/./passwd", b"one:x:1:1\n")
        .file("ETC/passwd", PASSWD);
    let facts = facts(&layer).expect("a layer");
    let FileChange::Replaced(users) = facts.accounts.users else {
        panic!("replaced");
    };
    assert_eq!(users.len(), 1);
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
        (b"19 path=etc/passwd", "malformed"),
        (b"10 size=x\n", "in different ways"),
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
