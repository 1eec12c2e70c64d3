//! Transfers that break off, lie about where they go on, or never end.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use contrast_images::{CredentialFile, Digest, ImageName, ImageReference, Resolver, Store};

use crate::{
    Silent,
    fixture::{Image, Layer},
    pulled::{Guest, refusal},
    registry::{Registry, Reply, Request, content, part},
};

/// An image of one layer with 4 MiB that do not compress.
fn large() -> Image {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..4 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    let tar = Layer::default().file("noise", &noise).tar();
    Image::with_layers(vec![(tar.clone(), tar)])
}

/// A registry that answers requests for the layer, with their number, as it is told.
fn with_layer(
    image: &Image,
    answer: impl Fn(&[u8], &Request, usize) -> Reply + Send + Sync + 'static,
) -> (Registry, ImageName) {
    let (blobs, top) = (image.blobs(), image.manifest.clone());
    let layer = image.layers[0].0.clone();
    let path = Digest::of(&layer).to_string();
    let asked = AtomicUsize::new(0);
    let registry = Registry::serve(move |request| match request.path.ends_with(&path) {
        true => answer(&layer, request, asked.fetch_add(1, Ordering::SeqCst)),
        false => content(&blobs, &top, &request.path),
    });
    let name = registry.name(&format!("web@{}", image.digest()));
    (registry, name)
}

/// Where the requests for the layer wanted it to begin.
fn begun_at(registry: &Registry, image: &Image) -> Vec<usize> {
    let path = Digest::of(&image.layers[0].0).to_string();
    let seen = registry.seen();
    let of_layer = seen.iter().filter(|request| request.path.ends_with(&path));
    of_layer.map(Request::from).collect()
}

#[test]
fn transfer_goes_on_where_it_broke_off() {
    let Some(guest) = Guest::new() else { return };
    let image = large();
    // Three breaks of two that are allowed, each after enough for the next one to be forgiven.
    let (registry, name) = with_layer(&image, |layer, request, _| part(layer, request, 1_200_000));
    guest.pull(&registry, &name).expect("pulls");
    let begun = begun_at(&registry, &image);
    assert_eq!(begun, [0, 1_200_000, 2_400_000, 3_600_000]);

    // One that comes without progress is not forgiven for ever.
    let (registry, name) = with_layer(&image, |layer, request, _| part(layer, request, 100));
    fs::remove_dir_all(guest.store_layers()).expect("removes");
    let error = guest.pull(&registry, &name).expect_err("given up");
    assert!(error.contains("could not be read to its end"), "{error}");
    // Three transfers of three attempts.
    assert_eq!(begun_at(&registry, &image).len(), 9);
    guest.assert_untouched(&error);
}

#[test]
fn registry_without_parts_begins_anew() {
    let Some(guest) = Guest::new() else { return };
    let image = large();
    let (registry, name) = with_layer(&image, |layer, _, number| match number {
        0 => Reply::Half(layer.to_vec()),
        _ => Reply::Whole(layer.to_vec()),
    });
    guest.pull(&registry, &name).expect("pulls");
    let begun = begun_at(&registry, &image);
    assert_eq!(begun.len(), 2);
    assert!(begun[1] > 1_000_000, "{begun:?}");
}

#[test]
fn other_part_than_the_one_asked_for_is_not_taken() {
    let Some(guest) = Guest::new() else { return };
    let image = large();
    for wrong in [
        "bytes 0-4195839/4195840",
        "bytes 1-2/3",
        "bytes */4195840",
        "nothing",
        "",
    ] {
        let (registry, name) = with_layer(&image, move |layer, request, _| match request.from() {
            0 => Reply::Half(layer.to_vec()),
            from => {
                let headers = vec![("Content-Range".to_owned(), wrong.to_owned())];
                Reply::Status(206, headers, layer[from..].to_vec())
            }
        });
        let error = guest.pull(&registry, &name).expect_err("refused");
        assert!(error.contains("another part than the one"), "{error}");
        guest.assert_untouched(&error);
    }
    // Nor is one that nobody asked for.
    let (registry, name) = with_layer(&image, |layer, _, _| {
        Reply::Status(206, vec![], layer.to_vec())
    });
    let error = guest.pull(&registry, &name).expect_err("refused");
    assert!(error.contains("status 206"), "{error}");
}

#[test]
fn rest_of_something_else_is_refused() {
    let Some(guest) = Guest::new() else { return };
    let image = large();
    let (registry, name) = with_layer(&image, |layer, request, _| {
        let mut other = layer.to_vec();
        if request.from() > 0 {
            other[3_000_000] ^= 1;
        }
        part(&other, request, 2_500_000)
    });
    let error = guest.pull(&registry, &name).expect_err("refused");
    assert!(error.contains("its content has the digest"), "{error}");
    guest.assert_untouched(&error);
}

#[test]
fn drop_by_drop_is_given_up_and_endless_is_cut() {
    let Some(guest) = Guest::new() else { return };
    let image = large();
    let (registry, name) = with_layer(&image, |layer, _, _| Reply::Drops(layer.to_vec()));
    let mut options = registry.options();
    options.limits.slowest = 8 << 20;
    options.limits.attempts = 2;
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let image_name = ImageReference::parse(&name.to_string()).expect("a reference");
    let begun = Instant::now();
    {
        let store = Store::open(&guest.store_root(), "a boot").expect("a store");
        let pulled = resolver.pull(&image_name, &store, &Silent);
        pulled.map(|_| ()).expect_err("given up");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    guest.assert_untouched("drops");

    // A registry that sends for ever is read one byte too far.
    let (registry, name) = with_layer(&image, |layer, _, _| {
        Reply::Whole([layer, &vec![0; 64 << 20]].concat())
    });
    let error = guest.pull(&registry, &name).expect_err("refused");
    assert!(
        error.contains("it has 4195841 bytes, expected 4195840"),
        "{error}"
    );
    guest.assert_untouched(&error);
}

#[test]
fn redirected_part_goes_without_credentials() {
    let Some(guest) = Guest::new() else { return };
    let image = large();
    let layer = image.layers[0].0.clone();
    let elsewhere = Registry::serve(move |request| part(&layer, request, 2_000_000));
    let address = elsewhere.address;
    let (registry, name) = with_layer(&image, move |_, request, _| match request.authorization() {
        Some("Basic bWU6c2VjcmV0") => {
            let location = format!("http://{address}/blob?signed");
            Reply::Status(307, vec![("Location".into(), location)], vec![])
        }
        _ => Reply::Status(
            401,
            vec![("WWW-Authenticate".into(), "Basic realm=\"r\"".into())],
            vec![],
        ),
    });
    let directory = tempfile::tempdir().expect("directory");
    let credentials = directory.path().join("config.json");
    let auths = format!(
        r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#,
        registry.address
    );
    fs::write(&credentials, &auths).expect("writes");
    let mut options = registry.options();
    options.credentials = Some(CredentialFile::without_helpers(&credentials));
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let image_name = ImageReference::parse(&name.to_string()).expect("a reference");
    {
        let store = Store::open(&guest.store_root(), "a boot").expect("a store");
        resolver.pull(&image_name, &store, &Silent).expect("pulls");
    }
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|request| request.authorization().is_none()));
    assert_eq!(seen[2].from(), 4_000_000);

    // A registry that is never content ends it.
    let (refusing, name) = with_layer(&image, |_, _, _| {
        Reply::Status(
            401,
            vec![("WWW-Authenticate".into(), "Basic realm=\"r\"".into())],
            vec![],
        )
    });
    fs::remove_dir_all(guest.store_layers()).expect("removes");
    fs::write(
        &credentials,
        auths.replace(&registry.address.to_string(), &refusing.address.to_string()),
    )
    .expect("writes");
    let mut options = refusing.options();
    options.credentials = Some(CredentialFile::without_helpers(&credentials));
    let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
    let image_name = ImageReference::parse(&name.to_string()).expect("a reference");
    {
        let store = Store::open(&guest.store_root(), "a boot").expect("a store");
        let refused = resolver.pull(&image_name, &store, &Silent);
        refused.map(|_| ()).expect_err("refused");
    }
    assert_eq!(begun_at(&refusing, &image).len(), 2);
    guest.assert_untouched("401");
}

#[test]
fn helper_that_a_file_names_is_not_run_in_a_guest() {
    let Some(guest) = Guest::new() else { return };
    let image = large();
    let (registry, name) = with_layer(&image, |_, _, _| {
        Reply::Status(
            401,
            vec![("WWW-Authenticate".into(), "Basic realm=\"r\"".into())],
            vec![],
        )
    });
    let directory = tempfile::tempdir().expect("directory");
    let credentials = directory.path().join("config.json");
    for (text, expected) in [
        (
            r#"{"auths":{},"credsStore":"evil"}"#,
            "names a credential helper",
        ),
        (
            r#"{"credHelpers":{"a.example":"evil"}}"#,
            "names a credential helper",
        ),
        (r#"{"auths": secret"#, "is no `config.json`"),
        (r#"{"auths":{}}"#, "no credentials are stored"),
    ] {
        fs::write(&credentials, text).expect("writes");
        let mut options = registry.options();
        options.credentials = Some(CredentialFile::without_helpers(&credentials));
        let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
        let store = Store::open(&guest.store_root(), "a boot").expect("a store");
        let shown = refusal(&resolver, &name, &store);
        assert!(shown.contains(expected), "expected {expected} in {shown}");
        assert!(
            !shown.contains("evil") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
