use std::{fs, path::Path};

use contrast_images::{
    Accounts, Digest, ImageCache, ImageConfig, ImageName, RegistriesConf, Resolver,
};
use tar::EntryType;

use crate::{
    Silent,
    fixture::{GROUP, Image, Layer, PASSWD, gzip, pack},
    registry::{Registry, Reply, content},
    resolve,
};

fn check_web(config: &ImageConfig) {
    assert_eq!(config.entrypoint, ["/docker-entrypoint.sh"]);
    assert_eq!(config.cmd, ["nginx"]);
    assert_eq!(config.env, ["PATH=/usr/bin"]);
    assert_eq!(config.working_dir, "/srv");
    assert_eq!(config.user, "nginx");
    assert_eq!(config.volumes, ["/data"]);
    let accounts = config.accounts.as_ref().expect("accounts");
    let users: Vec<_> = accounts
        .users
        .iter()
        .map(|user| (user.name.as_str(), user.uid))
        .collect();
    assert_eq!(users, [("root", 0), ("nginx", 101)]);
    assert_eq!(accounts.groups.last().expect("a group").members, ["nginx"]);
}

#[test]
fn tag_in_a_registry_becomes_the_digest_of_the_index() {
    let image = Image::web();
    let registry = Registry::of(&image, image.index());
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let name = registry.name("library/web:1.27");
    let (resolved, cache) = resolve(&resolver, &name).expect("resolves");
    assert_eq!(resolved.digest, Digest::of(&image.index()));
    check_web(cache.get(&resolved.digest.to_string()).expect("there"));
    let pinned = cache.pinned(&name.to_string()).expect("pinned");
    assert_eq!(pinned, format!("{name}@{}", resolved.digest));
}

#[test]
fn what_is_cached_is_not_asked_for_again() {
    let image = Image::web();
    let registry = Registry::of(&image, image.index());
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("image-cache.json");
    let (_, cache) = resolve(&resolver, &registry.name("web:1")).expect("resolves");
    cache.add_to(&path).expect("writes");
    let requests = registry.paths().len();
    let mut cache = ImageCache::read(&path).expect("reads");
    let by_digest = registry.name(&format!("web@{}", Digest::of(&image.index())));
    let names = [registry.name("web:1"), by_digest];
    assert_eq!(
        resolver
            .resolve(&names, &mut cache, &Silent)
            .expect("resolves"),
        []
    );
    assert_eq!(registry.paths().len(), requests);

    // Another image on the same layers costs its documents only.
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).expect("config");
    config["config"]["Cmd"] = serde_json::json!(["other"]);
    let other = Image::with_config(&config, image.layers);
    let second = Registry::of(&other, other.manifest.clone());
    let resolver = Resolver::new(&[], Some(&second.options())).expect("resolver");
    let resolved = resolver
        .resolve(&[second.name("other:1")], &mut cache, &Silent)
        .expect("resolves");
    assert_eq!(second.paths().len(), 2, "{:?}", second.paths());
    let config = cache.get(&resolved[0].digest.to_string()).expect("there");
    assert_eq!(config.cmd, ["other"]);
    assert!(
        config
            .accounts
            .as_ref()
            .is_some_and(|accounts| accounts.users.len() == 2)
    );
}

#[test]
fn layouts_and_archives_say_the_same_as_a_registry() {
    let image = Image::web();
    let directory = tempfile::tempdir().expect("directory");
    let layout = directory.path().join("layout");
    image.layout(&layout, "registry.example/web:1");
    let archive = pack(&layout, directory.path().join("oci.tar"));
    let docker = directory.path().join("docker.tar");
    image.docker_archive(&docker, "registry.example/web:1");
    let by_digest = format!("registry.example/other@{}", image.digest());
    let both = format!("registry.example/web:1@{}", image.digest());
    for (place, name) in [
        (&layout, "registry.example/web:1"),
        (&layout, &by_digest),
        (&archive, "registry.example/web:1"),
        (&archive, &by_digest),
        (&docker, &both),
    ] {
        let resolver = Resolver::new(std::slice::from_ref(place), None).expect("resolver");
        let name = ImageName::parse(name).expect("image");
        let (resolved, cache) = resolve(&resolver, &name).expect("resolves");
        assert_eq!(resolved.digest, image.digest());
        assert_eq!(resolved.unproven, *place == docker);
        let config = cache.get(&image.digest().to_string()).expect("there");
        check_web(config);
        let transferred = |(blob, tar): &(Vec<u8>, Vec<u8>)| {
            Digest::of(if *place == docker { tar } else { blob })
        };
        assert_eq!(
            config.layers,
            image.layers.iter().map(transferred).collect::<Vec<_>>()
        );
    }
}

#[test]
fn archive_without_digests_needs_one_in_the_reference() {
    let directory = tempfile::tempdir().expect("directory");
    let docker = directory.path().join("docker.tar");
    Image::web().docker_archive(&docker, "web:1");
    let resolver = Resolver::new(&[docker], None).expect("resolver");
    let error =
        resolve(&resolver, &ImageName::parse("web:1").expect("image")).expect_err("no digest");
    assert!(
        error.contains("write the image as `docker.io/library/web:1@sha256:<digest>`"),
        "{error}"
    );
    let error =
        resolve(&resolver, &ImageName::parse("web:2").expect("image")).expect_err("not there");
    assert!(error.contains("it is not in"), "{error}");
}

fn accounts(layers: Vec<Layer>) -> Option<Accounts> {
    let tars = layers.iter().map(Layer::tar);
    let image = Image::with_layers(tars.map(|tar| (tar.clone(), tar)).collect());
    let directory = tempfile::tempdir().expect("directory");
    image.layout(directory.path(), "a.example/a:1");
    let resolver = Resolver::new(&[directory.path().to_owned()], None).expect("resolver");
    let (_, cache) = resolve(
        &resolver,
        &ImageName::parse("a.example/a:1").expect("image"),
    )
    .expect("resolves");
    cache
        .get(&image.digest().to_string())
        .expect("there")
        .accounts
        .clone()
}

#[test]
fn whiteouts_and_links_decide_over_users() {
    let base = || {
        Layer::default()
            .file("./etc/passwd", PASSWD)
            .file("./etc/group", GROUP)
    };
    let users = |top: Layer| accounts(vec![base(), top]).map(|accounts| accounts.users.len());
    assert_eq!(users(Layer::default().file("etc/shadow", b"")), Some(2));
    assert_eq!(
        users(Layer::default().file("etc/passwd", b"one:x:1:1::/:/\n")),
        Some(1)
    );
    assert_eq!(users(Layer::default().file("etc/.wh.passwd", b"")), Some(0));
    assert_eq!(users(Layer::default().file(".wh.etc", b"")), Some(0));
    assert_eq!(
        users(Layer::default().file("etc/.wh..wh..opq", b"")),
        Some(0)
    );
    // What hides the layers below does not hide its own layer, in any order.
    assert_eq!(
        users(
            Layer::default()
                .file("etc/passwd", b"one:x:1:1::/:/\n")
                .file("etc/.wh..wh..opq", b"")
        ),
        Some(1)
    );
    assert_eq!(
        users(Layer::default().link(EntryType::Symlink, "etc/passwd", "/data/passwd")),
        None
    );
    assert_eq!(
        users(Layer::default().link(EntryType::Symlink, "etc", "usr/etc")),
        None
    );
    // A binary value may contain line breaks.
    let header = b"26 SCHILY.xattr.user.a=\n\n\n";
    let capable = Layer::default().extended(header, "usr/bin/ping", b"");
    assert_eq!(users(capable), Some(2));
    assert_eq!(
        accounts(vec![Layer::default().directory("/")]),
        Some(Accounts::default())
    );
}

#[test]
fn zstd_and_several_gzip_members_are_read() {
    let tar = Layer::default().file("etc/passwd", PASSWD).tar();
    let frames = [&tar[..700], &tar[700..]];
    let zstd: Vec<u8> = frames
        .iter()
        .flat_map(|part| zstd::encode_all(*part, 3).expect("compresses"))
        .collect();
    let members: Vec<u8> = frames.iter().flat_map(|part| gzip(part)).collect();
    for blob in [zstd, members] {
        let image = Image::with_layers(vec![(blob, tar.clone())]);
        let directory = tempfile::tempdir().expect("directory");
        image.layout(directory.path(), "a.example/a:1");
        let resolver = Resolver::new(&[directory.path().to_owned()], None).expect("resolver");
        let (_, cache) = resolve(
            &resolver,
            &ImageName::parse("a.example/a:1").expect("image"),
        )
        .expect("resolves");
        let config = cache.get(&image.digest().to_string()).expect("there");
        assert_eq!(config.accounts.as_ref().expect("accounts").users.len(), 2);
    }
}

#[test]
fn mirror_is_asked_first_and_its_failure_does_no_harm() {
    let image = Image::web();
    let upstream = Registry::of(&image, image.manifest.clone());
    let options = |mirror: &Registry| {
        let mut options = upstream.options();
        let conf = format!(
            "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}/copies\"\ninsecure = true",
            upstream.address, mirror.address
        );
        options.conf = RegistriesConf::parse(&conf).expect("conf");
        options
    };
    let name = upstream.name(&format!("app/web@{}", image.digest()));

    let mirror = Registry::of(&image, image.manifest.clone());
    let resolver = Resolver::new(&[], Some(&options(&mirror))).expect("resolver");
    resolve(&resolver, &name).expect("resolves");
    assert_eq!(upstream.paths(), Vec::<String>::new());
    assert!(
        mirror
            .paths()
            .iter()
            .all(|path| path.starts_with("/v2/copies/app/web/"))
    );

    for broken in [
        Registry::serve(|_| Reply::Status(500, vec![], vec![])),
        Registry::serve(|_| Reply::Status(404, vec![], vec![])),
        Registry::serve(|_| Reply::Whole(b"{}".to_vec())),
    ] {
        let resolver = Resolver::new(&[], Some(&options(&broken))).expect("resolver");
        resolve(&resolver, &name).expect("resolves");
        assert!(!broken.paths().is_empty());
    }
}

#[test]
fn transfer_that_breaks_off_is_begun_again() {
    let image = Image::web();
    let (blobs, top) = (image.blobs(), image.manifest.clone());
    let layer = Digest::of(&image.layers[0].0).to_string();
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    let registry = Registry::serve(move |request| {
        let attempt = match request.path.ends_with(&layer) {
            true => attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
            false => 9,
        };
        match (attempt, content(&blobs, &top, &request.path)) {
            (0, _) => Reply::Status(503, vec![("Retry-After".into(), "0".into())], vec![]),
            (1, Reply::Whole(body)) => Reply::Half(body),
            (2, Reply::Whole(body)) => Reply::Hang(body),
            (_, reply) => reply,
        }
    });
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let (_, cache) = resolve(&resolver, &registry.name("web:1")).expect("resolves");
    check_web(cache.get(&image.digest().to_string()).expect("there"));
}

#[test]
fn several_images_are_read_at_once_and_every_problem_is_named() {
    let image = Image::web();
    let registry = Registry::of(&image, image.manifest.clone());
    let resolver = Resolver::new(&[], Some(&registry.options())).expect("resolver");
    let absent = |digit: &str| registry.name(&format!("web@sha256:{}", digit.repeat(64)));
    let names = [absent("1"), registry.name("web:1"), absent("2")];
    let mut cache = ImageCache::default();
    let error = resolver
        .resolve(&names, &mut cache, &Silent)
        .expect_err("two are absent");
    assert_eq!(error.images.len(), 2, "{error}");
    assert!(cache.get(&image.digest().to_string()).is_some());
}

#[test]
fn places_that_are_none_are_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("writes");
        path
    };
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).expect("directory");
    let web = Image::web();
    web.layout(&directory.path().join("layout"), "a.example/a:1");
    let archive = pack(
        &directory.path().join("layout"),
        directory.path().join("a.tar"),
    );
    let compressed = file("a.tar.gz", &gzip(&fs::read(archive).expect("reads")));
    for (path, expected) in [
        (empty, "neither an OCI layout"),
        (compressed, "is compressed; unpack it first"),
        (file("text", b"hello"), "neither an OCI layout"),
        (file("layer.tar", &web.layers[0].1), "neither an OCI layout"),
        (Path::new("/dev/null").to_owned(), "neither an OCI layout"),
        (directory.path().join("absent"), "cannot read"),
    ] {
        let error = Resolver::new(std::slice::from_ref(&path), None)
            .expect_err("unusable")
            .to_string();
        assert!(error.contains(expected), "{}: {error}", path.display());
    }
}
