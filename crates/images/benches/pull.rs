//! Pulling an image from a registry on loopback into a store, beside `skopeo copy` of the same image to a directory and `tar -x` of its
//! layers.
//!
//! Needs root, `docker-registry` and `skopeo` (Debian packages of these names); without them it says so and measures nothing.

#![expect(clippy::expect_used, reason = "a benchmark may panic")]
#![expect(clippy::print_stdout, reason = "prints its result")]

mod support;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use contrast_images::{
    Digest, ImageReference, Progress, RegistriesConf, RegistryOptions, Resolver, Store,
};
use serde_json::{Value, json};
use support::{is_installed, median, skopeo, start_registry};

/// What layers are made of: programs, libraries, and many small files.
const LAYERS: [&str; 4] = [
    "usr/bin",
    "usr/lib/x86_64-linux-gnu",
    "usr/share",
    "usr/include usr/sbin usr/lib/python3",
];
/// Of each directory, bytes before they are compressed.
const LAYER_BYTES_MAX: u64 = 160 * 1024 * 1024;
const ROUNDS: usize = 5;

struct Silent;

impl Progress for Silent {
    fn begin(&self, _layers: usize, _bytes: u64) {}
    fn read(&self, _bytes: u64) {}
}

/// An image in a registry.
struct Image {
    reference: ImageReference,
    layers: Vec<Digest>,
    compressed: u64,
    unpacked: u64,
    entries: usize,
}

fn main() {
    let directory = tempfile::tempdir().expect("directory");
    let directory = directory.path();
    let is_root = fs::metadata(directory).expect("metadata").uid() == 0;
    if !is_installed() || !is_root {
        println!("skipped: be root, and install docker-registry and skopeo to compare with them");
        return;
    }
    let (_registry, port) = start_registry(directory);
    let conf = format!("[[registry]]\nlocation = \"127.0.0.1:{port}\"\ninsecure = true");
    let options = RegistryOptions {
        conf: RegistriesConf::parse(&conf).expect("conf"),
        ..RegistryOptions::default()
    };
    for name in ["layers", "single"] {
        let image = push(directory, name, &format!("127.0.0.1:{port}/bench/{name}"));
        println!(
            "{name}: {} layer(s), {} entries, {} MiB compressed, {} MiB unpacked",
            image.layers.len(),
            image.entries,
            image.compressed >> 20,
            image.unpacked >> 20,
        );
        compare(directory, &image, &options);
    }
}

fn compare(directory: &Path, image: &Image, options: &RegistryOptions) {
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for round in 0..ROUNDS {
        let copy = directory.join(format!("copy-{round}"));
        theirs.push(timed(|| copy_and_unpack(image, &copy)));
        fs::remove_dir_all(copy).expect("removes");
        let store = directory.join(format!("store-{round}"));
        ours.push(timed(|| {
            let resolver = Resolver::new(&[], Some(options)).expect("resolver");
            let opened = Store::open(&store, "bench").expect("a store");
            let pulled = resolver.pull(&image.reference, &opened, &Silent);
            pulled.expect("pulls");
        }));
        fs::remove_dir_all(store).expect("removes");
    }
    let (theirs, ours) = (median(theirs), median(ours));
    println!("  skopeo copy, then tar -x: {theirs:.3} s");
    println!("  Resolver::pull:           {ours:.3} s");
    println!("  ratio of speeds:          {:.2}", theirs / ours);
}

/// What is written waits for the disk before the clock starts, so that nobody waits for what the other one wrote.
fn timed(work: impl FnOnce()) -> Duration {
    run("sync", &[]);
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn copy_and_unpack(image: &Image, copy: &Path) {
    let dir = format!("dir:{}", copy.display());
    let remote = format!("docker://{}", image.reference);
    skopeo(&["copy", "--src-tls-verify=false", &remote, &dir]);
    let rootfs = copy.join("rootfs");
    fs::create_dir(&rootfs).expect("directory");
    for layer in &image.layers {
        let blob = copy.join(layer.hex());
        run(
            "tar",
            &[
                "--xattrs",
                "--xattrs-include=*",
                "-xpzf",
                &blob.to_string_lossy(),
                "-C",
                &rootfs.to_string_lossy(),
            ],
        );
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} {arguments:?}"
    );
}

/// Packs files of this machine, one layer each or all in one, and pushes them.
fn push(directory: &Path, name: &str, remote: &str) -> Image {
    let layout = directory.join(name);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let put = |media_type: &str, blob: &[u8]| {
        let digest = Digest::of(blob);
        fs::write(blobs.join(digest.hex()), blob).expect("writes");
        json!({"mediaType": media_type, "digest": digest, "size": blob.len()})
    };
    let tar = directory.join("layer.tar");
    let all = LAYERS.join(" ");
    let parts: Vec<&str> = match name {
        "single" => vec![&all],
        _ => LAYERS.to_vec(),
    };
    let mut described: Vec<Value> = Vec::new();
    let mut diff_ids = Vec::new();
    let mut image = Image {
        reference: ImageReference::parse(&format!("{remote}@{}", Digest::of(b""))).expect("name"),
        layers: Vec::new(),
        compressed: 0,
        unpacked: 0,
        entries: 0,
    };
    for part in &parts {
        // Files in the order of their names, until there are enough bytes; paths with blanks are left out.
        let limit = LAYER_BYTES_MAX / parts.len() as u64 * LAYERS.len() as u64;
        let script = format!(
            "cd / && for directory in {part}; do [ -d $directory ] && find $directory -type f -size -20M ! -name '* *' -printf '%s %p\\n' -o -type l ! -name '* *' -printf '0 %p\\n'; done \
             | sort -k2 | awk '{{ sum += $1; if (sum < {limit}) print $2 }}' | tar --format=pax -cf {tar} -T -",
            tar = tar.display()
        );
        run("sh", &["-c", &script]);
        let unpacked = fs::read(&tar).expect("reads");
        diff_ids.push(Digest::of(&unpacked));
        image.unpacked += unpacked.len() as u64;
        let listed = Command::new("tar").arg("-tf").arg(&tar).output();
        let listed = listed.expect("lists").stdout;
        image.entries += listed.iter().filter(|byte| **byte == b'\n').count();
        run("gzip", &["-f", &tar.to_string_lossy()]);
        let blob = fs::read(tar.with_extension("tar.gz")).expect("reads");
        image.compressed += blob.len() as u64;
        image.layers.push(Digest::of(&blob));
        described.push(put("application/vnd.oci.image.layer.v1.tar+gzip", &blob));
    }
    let config = json!({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": described,
    });
    let manifest = manifest.to_string();
    let mut top = put(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.as_bytes(),
    );
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(layout.join("index.json"), index.to_string()).expect("writes");
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("writes");
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &format!("oci:{}:1", layout.display()),
        &format!("docker://{remote}:1"),
    ]);
    let reference = format!("{remote}@{}", Digest::of(manifest.as_bytes()));
    image.reference = ImageReference::parse(&reference).expect("name");
    image
}
