//! Container images without a container engine: OCI layouts and archives whose digests follow from the sources alone.

mod debian;
mod layer;
mod layout;
mod programs;
mod spec;
mod statements;
mod trial;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use debian::{Lock, Package, Tree};
pub(crate) use layer::sha256;
use layer::{Layer, Packed};
use layout::Built;
use spec::{Image, Spec};
use statements::Crates;

use crate::{tools, workspace_root};

const ACCOUNTS: &str =
    "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
const GROUPS: &str = "root:x:0:\nnonroot:x:65532:\n";

/// Options of `cargo xtask images`.
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Only these images.
    names: Vec<String>,
    /// Where layouts, archives and what is said of them go [default: target/images].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// How programs are built: `release`, or `image-check`, which is quick and only good for tests.
    #[arg(long, default_value = "release")]
    profile: Profile,
    /// Build everything twice, the second time from a copy in another directory, and compare.
    #[arg(long)]
    twice: bool,
    /// Directory with the runtime for nodes; it becomes `/payload` of the node installer's image.
    #[arg(long, value_name = "DIR")]
    payload: Option<PathBuf>,
    /// Then push them to a registry on this machine, pull them, and run every program in them with podman.
    #[arg(long = "try")]
    trial: bool,
    /// Repository of the images, for the file `image-replacements` of `contrast generate`.
    #[arg(
        long,
        value_name = "HOST/PATH",
        default_value = "registry.example.com/contrast"
    )]
    registry: String,
    /// Pin today's versions of Debian's packages in `deploy/images/packages.lock`, and build nothing.
    #[arg(long, exclusive = true)]
    update_packages: bool,
}

/// Cargo profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Release,
    ImageCheck,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::ImageCheck => "image-check",
        }
    }

    fn directory(self) -> &'static str {
        self.name()
    }
}

/// The programs of all images, each with its Cargo package.
pub(crate) fn programs(root: &Path) -> Result<Vec<(String, String)>> {
    let spec = Spec::read(root, &[])?;
    let images = spec.images.into_iter();
    Ok(images.map(|image| (image.package, image.name)).collect())
}

impl Images {
    #[expect(
        clippy::print_stdout,
        reason = "the result, for the person at the terminal"
    )]
    pub(crate) fn run(self) -> Result<()> {
        let root = workspace_root();
        let spec = Spec::read(&root, &self.names)?;
        let cache = root.join("target/tools/debian");
        if self.update_packages {
            return update_packages(&root, &spec, &cache);
        }
        let output = self
            .output
            .clone()
            .unwrap_or_else(|| root.join("target/images"));
        fs::create_dir_all(&output)?;
        let tree = match spec.images.iter().any(Image::is_of_debian) {
            true => Lock::read(&root)?.unpack(&cache)?,
            false => Tree::default(),
        };
        let envoy = tools::ENVOY.fetch()?;
        if spec.images.iter().any(|image| image.envoy) {
            check_envoy(&envoy)?;
        }
        let builder = Builder {
            registry: &self.registry,
            payload: self.payload.as_deref(),
            spec: &spec,
            tree: &tree,
            envoy: &envoy,
            profile: self.profile,
        };
        let built = builder.build(&root, &root.join("target"))?;
        if self.twice {
            let again = builder.build_elsewhere(&root)?;
            compare(&spec, &built, &again)?;
        }
        let crates = Crates::read(&root)?;
        let mut replacements = String::new();
        for (image, (built, debian)) in spec.images.iter().zip(&built) {
            let name = &image.name;
            built.write(&output, name)?;
            let parts = statements::parts(image, VERSION, &built.digest, &crates, debian)?;
            let origin = statements::provenance(&root, image, built, self.profile, debian)?;
            write_json(&output.join(format!("{name}.cdx.json")), &parts)?;
            write_json(&output.join(format!("{name}.provenance.json")), &origin)?;
            let reference = format!("{}/{name}:{VERSION}@{}", self.registry, built.digest);
            replacements.push_str(&format!(
                "registry.example.com/contrast/{name} = {reference}\n"
            ));
            println!("{reference}");
        }
        let path = output.join("image-replacements");
        fs::write(&path, replacements)
            .with_context(|| format!("cannot write {}", path.display()))?;
        match self.trial {
            true => trial::run(&spec, &built, &output),
            false => Ok(()),
        }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything that images are made from, besides our programs.
struct Builder<'a> {
    registry: &'a str,
    payload: Option<&'a Path>,
    spec: &'a Spec,
    tree: &'a Tree,
    envoy: &'a Path,
    profile: Profile,
}

/// An image, and the packages of Debian of which it has files.
type Made = (Built, BTreeSet<Package>);

impl Builder<'_> {
    fn build(&self, root: &Path, target: &Path) -> Result<Vec<Made>> {
        let programs = programs::build(root, target, &self.spec.images, self.profile)?;
        self.spec
            .images
            .iter()
            .map(|image| {
                let program = programs.join(&image.name);
                programs::check(&program, &[root, target])?;
                self.image(image, &program)
                    .with_context(|| format!("cannot build the image `{}`", image.name))
            })
            .collect()
    }

    /// From a copy of the sources and into another directory, so that everything that depends on either shows.
    fn build_elsewhere(&self, root: &Path) -> Result<Vec<Made>> {
        let elsewhere = root.join("target/images-elsewhere");
        if elsewhere.exists() {
            fs::remove_dir_all(&elsewhere)?;
        }
        let sources = elsewhere.join("a/copy/of/the/sources");
        copy_sources(root, &sources)?;
        let built = self.build(&sources, &elsewhere.join("target"));
        fs::remove_dir_all(&elsewhere)?;
        built
    }

    fn image(&self, image: &Image, program: &Path) -> Result<Made> {
        let mut layers = Vec::new();
        let (layer, debian) = of_debian(image, self.tree, self.envoy)?;
        layers.push((layer.pack()?, "programs of Debian".to_owned()));
        if image.envoy {
            let mut layer = Layer::default();
            layer.file("usr/bin/envoy", self.envoy.to_owned(), 0o755);
            layers.push((layer.pack()?, format!("Envoy {}", tools::ENVOY.version)));
        }
        if let Some(payload) = self.payload.filter(|_| image.payload) {
            let mut layer = Layer::default();
            layer.tree("payload", payload)?;
            layers.push((layer.pack()?, "runtime for nodes".to_owned()));
        }
        layers.push((own(image, program)?, format!("Contrast {VERSION}")));
        let name = format!("{}/{}:{VERSION}", self.registry, image.name);
        Ok((Built::new(image, VERSION, &name, layers)?, debian))
    }
}

/// `target/tools/envoy` may be another one, put there by a person; an image must hold the one that is said beside it.
fn check_envoy(envoy: &Path) -> Result<()> {
    let found = layer::digest(&fs::read(envoy)?);
    let expected = format!("sha256:{}", tools::ENVOY_EXECUTABLE);
    ensure!(
        found == expected,
        "{} has {found}, expected {expected}, that of Envoy {}; remove it, so that it is fetched",
        envoy.display(),
        tools::ENVOY.version
    );
    Ok(())
}

/// Pins today's versions of the packages that images have files of.
fn update_packages(root: &Path, spec: &Spec, cache: &Path) -> Result<()> {
    let lock = Lock::resolve(&spec.packages)?;
    let tree = lock.unpack(cache)?;
    let envoy = tools::ENVOY.fetch()?;
    let mut used = BTreeSet::new();
    for image in &spec.images {
        used.extend(of_debian(image, &tree, &envoy)?.1);
    }
    lock.write(root, &used)
}

/// The layer with what an image needs of Debian, and the packages that it is from.
fn of_debian(image: &Image, tree: &Tree, envoy: &Path) -> Result<(Layer, BTreeSet<Package>)> {
    let mut selection = tree.select();
    for name in &image.programs {
        selection.program(name)?;
    }
    if let Some(directory) = &image.libraries {
        selection.libraries(directory)?;
    }
    if image.envoy {
        selection.libraries_of(envoy)?;
    }
    if image.certificates {
        selection.certificates()?;
    }
    Ok(selection.finish())
}

/// The layer with our program. `/bin` is a link by the layer below.
fn own(image: &Image, program: &Path) -> Result<Packed> {
    let mut layer = Layer::default();
    layer.file(
        &format!("usr/bin/{}", image.name),
        program.to_owned(),
        0o755,
    );
    layer.bytes("etc/passwd", ACCOUNTS.into(), 0o644);
    layer.bytes("etc/group", GROUPS.into(), 0o644);
    layer.directory("tmp", 0o1777);
    layer.pack()
}

/// Every file that git knows, as it is now.
fn copy_sources(root: &Path, to: &Path) -> Result<()> {
    let listed = std::process::Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    ensure!(
        listed.status.success(),
        "git lists no files: the sources must be a clone"
    );
    let listed = String::from_utf8(listed.stdout)?;
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let (from, to) = (root.join(path), to.join(path));
        // Removed, and the removal is not committed.
        if !from.exists() {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file has a directory")?)?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}

fn compare(spec: &Spec, one: &[Made], other: &[Made]) -> Result<()> {
    let mut differences = Vec::new();
    for ((image, (one, _)), (other, _)) in spec.images.iter().zip(one).zip(other) {
        if one.digest != other.digest {
            differences.push(format!(
                "{}: {} and {}",
                image.name, one.digest, other.digest
            ));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    bail!("two builds differ:\n  {}", differences.join("\n  "))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
