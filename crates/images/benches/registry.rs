//! Reading an image from a registry on loopback with nothing cached, beside `skopeo copy` of the same image to a directory.
//!
//! Needs `docker-registry` and `skopeo` (Debian packages of these names); without them it says so and measures nothing.

#![expect(clippy::expect_used, reason = "a benchmark may panic")]
#![expect(clippy::print_stdout, reason = "prints its result")]

mod support;

use std::{
    fs,
    io::Write,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use contrast_images::{
    Digest, ImageCache, ImageName, Progress, RegistriesConf, RegistryOptions, Resolver,
};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use support::{is_installed, median, skopeo, start_registry};
use tar::{Builder, Header};

const LAYERS: usize = 4;
const FILES_IN_LAYER: usize = 24;
const FILE_BYTES: usize = 6 * 1024 * 1024;
const ROUNDS: usize = 5;

struct Transferred(AtomicU64);

impl Progress for Transferred {
    fn begin(&self, _layers: usize, _bytes: u64) {}

    fn read(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn main() {
    if !is_installed() {
        println!("skipped: install docker-registry and skopeo to compare with them");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let layout = directory.path().join("layout");
    let bytes = write_layout(&layout);
    let (_registry, port) = start_registry(directory.path());
    let remote = format!("127.0.0.1:{port}/bench/app:1");
    skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        &format!("oci:{}:1", layout.display()),
        &format!("docker://{remote}"),
    ]);

    let conf = format!("[[registry]]\nlocation = \"127.0.0.1:{port}\"\ninsecure = true");
    let options = RegistryOptions {
        conf: RegistriesConf::parse(&conf).expect("conf"),
        ..RegistryOptions::default()
    };
    let name = ImageName::parse(&remote).expect("name");
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for round in 0..ROUNDS {
        let copy = directory.path().join(format!("copy-{round}"));
        let begun = Instant::now();
        skopeo(&[
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{remote}"),
            &format!("dir:{}", copy.display()),
        ]);
        theirs.push(begun.elapsed());
        fs::remove_dir_all(copy).expect("removes");
        let begun = Instant::now();
        let resolver = Resolver::new(&[], Some(&options)).expect("resolver");
        let transferred = Transferred(AtomicU64::new(0));
        let mut cache = ImageCache::default();
        let resolved = resolver.resolve(std::slice::from_ref(&name), &mut cache, &transferred);
        resolved.expect("resolves");
        ours.push(begun.elapsed());
        assert_eq!(transferred.0.into_inner(), bytes, "every byte was read");
    }
    let (theirs, ours) = (median(theirs), median(ours));
    let rate =
        |seconds: f64| f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0 / seconds;
    println!(
        "layers: {LAYERS}, {:.0} MiB compressed, {} MiB unpacked",
        rate(1.0),
        (LAYERS * FILES_IN_LAYER * FILE_BYTES) >> 20
    );
    println!(
        "skopeo copy to dir: {theirs:.3} s, {:.0} MiB/s",
        rate(theirs)
    );
    println!("Resolver::resolve:  {ours:.3} s, {:.0} MiB/s", rate(ours));
    println!("ratio of rates:     {:.2}", theirs / ours);
}

/// Programs and libraries of this machine, which compress as those in images do.
fn sample() -> Vec<u8> {
    let mut sample = Vec::new();
    for directory in ["/usr/bin", "/usr/lib/x86_64-linux-gnu"] {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if sample.len() > LAYERS * FILES_IN_LAYER * FILE_BYTES {
                return sample;
            }
            if path.is_file() {
                sample.extend(fs::read(path).unwrap_or_default());
            }
        }
    }
    sample
}

/// Writes the image; returns the size of its layers, compressed.
fn write_layout(layout: &Path) -> u64 {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let put = |media_type: &str, blob: &[u8]| {
        let digest = Digest::of(blob);
        fs::write(blobs.join(digest.hex()), blob).expect("writes");
        json!({"mediaType": media_type, "digest": digest, "size": blob.len()})
    };
    let sample = sample();
    let mut files = sample.chunks(FILE_BYTES).cycle();
    let mut diff_ids = Vec::new();
    let mut layers: Vec<Value> = Vec::new();
    let mut bytes = 0;
    for layer in 0..LAYERS {
        let mut builder = Builder::new(Vec::new());
        for file in 0..FILES_IN_LAYER {
            let content = files.next().unwrap_or_default();
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder
                .append_data(&mut header, format!("opt/{layer}/{file}"), content)
                .expect("appends");
        }
        let tar = builder.into_inner().expect("ends");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&tar).expect("compresses");
        let blob = encoder.finish().expect("compresses");
        bytes += blob.len() as u64;
        diff_ids.push(Digest::of(&tar));
        layers.push(put("application/vnd.oci.image.layer.v1.tar+gzip", &blob));
    }
    let config = json!({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
    });
    let mut top = put(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    top["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(layout.join("index.json"), index.to_string()).expect("writes");
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("writes");
    bytes
}
