//! Programs of Debian: packages pinned by their SHA-256, and of them only what a program needs to run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    layer::{Layer, digest, mode},
    spec::DIRECTORY,
};
use crate::process::run;

const LOCK: &str = "packages.lock";
const HEAD: &str = "# Written by `cargo xtask images --update-packages`.\n\n";
/// Where programs are looked for, and where their libraries are.
const PROGRAMS: [&str; 2] = ["usr/sbin", "usr/bin"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// Debian 12 has merged these with their namesakes below /usr.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
const AUTHORITIES: &str = "usr/share/ca-certificates/mozilla";
pub(super) const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
/// What a program or library begins with, unlike a script.
const ELF: &[u8] = b"\x7fELF";
/// As many links as a path may have before it is taken for a circle.
const LINKS_MAX: usize = 8;

/// `packages.lock`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lock {
    #[serde(rename = "package", default)]
    packages: Vec<Package>,
}

/// One package, as the archive of Debian describes it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    /// Of the `.deb` file, 64 hex digits.
    pub(super) sha256: String,
}

/// Unpacked packages; none by default.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: PathBuf,
    /// Which package each file is from.
    owners: BTreeMap<String, Package>,
}

impl Lock {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let path = root.join(DIRECTORY).join(LOCK);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))
    }

    /// Asks apt which packages `wanted` needs on an empty system, in today's versions.
    pub(super) fn resolve(wanted: &[String]) -> Result<Self> {
        let mut simulate = Command::new("apt-get");
        simulate
            .args(["--option", "Dir::State::status=/dev/null"])
            .args(["--print-uris", "-qq", "--yes", "--no-install-recommends"])
            .arg("install")
            .args(wanted);
        let listed = text_of(simulate)?;
        let mut packages = Vec::new();
        for line in listed.lines() {
            // 'ADDRESS' NAME_VERSION_ARCHITECTURE.deb SIZE HASH
            let file = line.split_whitespace().nth(1).unwrap_or_default();
            let stem = file.strip_suffix(".deb").unwrap_or_default();
            let [name, version, architecture] = stem.split('_').collect::<Vec<_>>()[..] else {
                bail!("apt-get printed `{line}`: expected a package's file");
            };
            packages.push(Package {
                name: name.to_owned(),
                version: version.replace("%3a", ":"),
                architecture: architecture.to_owned(),
                sha256: String::new(),
            });
        }
        packages.sort();
        for package in &mut packages {
            let mut show = Command::new("apt-cache");
            show.arg("show").arg(package.exact());
            let shown = text_of(show)?;
            let hash = shown.lines().find_map(|line| line.strip_prefix("SHA256: "));
            hash.with_context(|| format!("apt-cache knows no SHA-256 of {}", package.exact()))?
                .clone_into(&mut package.sha256);
        }
        Ok(Self { packages })
    }

    /// Writes the file, with the packages in `used` alone.
    pub(super) fn write(mut self, root: &Path, used: &BTreeSet<Package>) -> Result<()> {
        self.packages.retain(|package| used.contains(package));
        let path = root.join(DIRECTORY).join(LOCK);
        let text = toml::to_string(&self)?;
        fs::write(&path, format!("{HEAD}{text}"))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Downloads what is not at `cache` yet, checks everything, and unpacks it anew at `cache/root`.
    pub(super) fn unpack(&self, cache: &Path) -> Result<Tree> {
        fs::create_dir_all(cache)?;
        let root = cache.join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for merged in MERGED {
            fs::create_dir_all(root.join("usr").join(merged))?;
            #[cfg(unix)]
            std::os::unix::fs::symlink(format!("usr/{merged}"), root.join(merged))?;
        }
        self.download(cache)?;
        let mut owners = BTreeMap::new();
        for package in &self.packages {
            let file = package.checked(cache)?;
            let mut archive = Command::new("dpkg-deb");
            archive.arg("--fsys-tarfile").arg(&file);
            let archive = bytes_of(archive)?;
            for entry in tar::Archive::new(archive.as_slice()).entries()? {
                let path = entry?.path()?.display().to_string();
                owners.insert(merged(path.trim_start_matches("./")), package.clone());
            }
            let mut unpack = Command::new("tar")
                .args(["--extract", "--keep-directory-symlink", "--no-same-owner"])
                .arg("--directory")
                .arg(&root)
                .stdin(Stdio::piped())
                .spawn()
                .context("cannot start tar")?;
            let mut input = unpack.stdin.take().context("tar has no standard input")?;
            input.write_all(&archive)?;
            drop(input);
            ensure!(
                unpack.wait()?.success(),
                "tar cannot unpack {}",
                file.display()
            );
        }
        Ok(Tree { root, owners })
    }
}

impl Lock {
    /// All that is missing in one go: apt takes seconds to start.
    fn download(&self, cache: &Path) -> Result<()> {
        let is_missing = |package: &&Package| !package.file(cache).is_file();
        let missing: Vec<_> = self
            .packages
            .iter()
            .filter(is_missing)
            .map(Package::exact)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut download = Command::new("apt-get");
        // As root, apt would hand the work to a user that cannot write here.
        download.args(["--option", "APT::Sandbox::User=root"]);
        download.args(["download", "-qq"]).args(&missing);
        download.current_dir(cache).stdout(Stdio::null());
        run(download).with_context(|| {
            format!(
                "Debian does not serve every version in {LOCK} any more, or cannot be reached; `apt-get update` and \
                 `cargo xtask images --update-packages` take today's versions"
            )
        })
    }
}

impl Package {
    fn exact(&self) -> String {
        format!("{}={}", self.name, self.version)
    }

    fn file(&self, cache: &Path) -> PathBuf {
        let version = self.version.replace(':', "%3a");
        cache.join(format!("{}_{version}_{}.deb", self.name, self.architecture))
    }

    /// The package's file, if it is the one that the lock means.
    fn checked(&self, cache: &Path) -> Result<PathBuf> {
        let file = self.file(cache);
        let found = digest(&fs::read(&file)?);
        if found != format!("sha256:{}", self.sha256) {
            fs::remove_file(&file)?;
            bail!(
                "{} has {found}, {LOCK} says sha256:{}; the file was removed",
                self.exact(),
                self.sha256
            );
        }
        Ok(file)
    }
}

/// What of the packages goes into one image.
pub(super) struct Selection<'a> {
    tree: &'a Tree,
    layer: Layer,
    used: BTreeSet<Package>,
}

impl Tree {
    pub(super) fn select(&self) -> Selection<'_> {
        let mut layer = Layer::default();
        for name in MERGED {
            layer.link(name, &Path::new("usr").join(name));
        }
        Selection {
            tree: self,
            layer,
            used: BTreeSet::new(),
        }
    }
}

impl Selection<'_> {
    /// A program and the libraries that it is linked to.
    pub(super) fn program(&mut self, name: &str) -> Result<()> {
        let paths = PROGRAMS.map(|directory| format!("{directory}/{name}"));
        let there = |path: &&String| self.tree.root.join(path).symlink_metadata().is_ok();
        let path = paths.iter().find(there).with_context(|| {
            format!("no package of images.toml has a program `{name}`; name its package there")
        })?;
        self.file(path)
    }

    /// Every library of a directory, for programs that load them at run time.
    pub(super) fn libraries(&mut self, directory: &str) -> Result<()> {
        let path = format!("{LIBRARIES}/{directory}");
        for entry in fs::read_dir(self.tree.root.join(&path))
            .with_context(|| format!("the packages have no directory {path}"))?
        {
            let name = entry?.file_name();
            self.file(&format!("{path}/{}", name.display()))?;
        }
        Ok(())
    }

    /// What a program that comes from elsewhere is linked to.
    pub(super) fn libraries_of(&mut self, executable: &Path) -> Result<()> {
        self.needed_by(executable)
    }

    /// The certificate authorities of the web, in the one file that TLS libraries look for.
    pub(super) fn certificates(&mut self) -> Result<()> {
        let directory = self.tree.root.join(AUTHORITIES);
        let mut bundle = Vec::new();
        let names = fs::read_dir(&directory)
            .with_context(|| format!("the packages have no {AUTHORITIES}"))?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<BTreeSet<_>>>()?;
        for name in names {
            self.owned_by(&format!("{AUTHORITIES}/{}", name.display()));
            bundle.extend(fs::read(directory.join(name))?);
        }
        self.layer.bytes(CERTIFICATES, bundle, 0o644);
        Ok(())
    }

    /// The layer, with the licence of every package in it, and those packages.
    pub(super) fn finish(mut self) -> (Layer, BTreeSet<Package>) {
        for package in &self.used {
            let path = format!("usr/share/doc/{}/copyright", package.name);
            let source = self.tree.root.join(&path);
            // Some packages share the directory of another one, by a link.
            if let Ok(source) = source.canonicalize() {
                self.layer.file(&path, source, 0o644);
            }
        }
        (self.layer, self.used)
    }

    fn owned_by(&mut self, path: &str) {
        self.used.extend(self.tree.owners.get(path).cloned());
    }

    /// A file, all links on the way to it, and what it needs.
    fn file(&mut self, path: &str) -> Result<()> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            if self.layer.holds(&path) {
                return Ok(());
            }
            self.owned_by(&path);
            let source = self.tree.root.join(&path);
            let facts = source
                .symlink_metadata()
                .with_context(|| format!("the packages have no file {path}"))?;
            if !facts.is_symlink() {
                self.layer.file(&path, source.clone(), mode(&facts));
                return self.needed_by(&source);
            }
            let target = fs::read_link(&source)?;
            self.layer.link(&path, &target);
            path = resolved(&path, &target);
        }
        bail!("{path}: more than {LINKS_MAX} links behind each other")
    }

    fn needed_by(&mut self, executable: &Path) -> Result<()> {
        if !fs::read(executable)?.starts_with(ELF) {
            return Ok(());
        }
        let mut read = Command::new("readelf");
        read.args(["--wide", "--dynamic", "--program-headers"])
            .arg(executable);
        let described = text_of(read)?;
        if described.contains("[Requesting program interpreter") {
            self.file(&merged(LOADER))?;
        }
        for line in described.lines().filter(|line| line.contains("(NEEDED)")) {
            let name = line.split(['[', ']']).nth(1).unwrap_or_default();
            self.file(&format!("{LIBRARIES}/{name}"))
                .with_context(|| format!("{} needs {name}", executable.display()))?;
        }
        Ok(())
    }
}

/// Where `path` lies once `/bin` and the like are links into `/usr`.
fn merged(path: &str) -> String {
    let first = path.split('/').next().unwrap_or_default();
    match MERGED.contains(&first) {
        true => format!("usr/{path}"),
        false => path.to_owned(),
    }
}

/// The path that a link at `path` means, from the root.
fn resolved(path: &str, target: &Path) -> String {
    let start = match target.is_absolute() {
        true => PathBuf::new(),
        false => Path::new(path)
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .to_owned(),
    };
    let mut parts: Vec<String> = Vec::new();
    for part in start
        .join(target.strip_prefix("/").unwrap_or(target))
        .components()
    {
        match part {
            std::path::Component::Normal(name) => parts.push(name.display().to_string()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    merged(&parts.join("/"))
}

fn bytes_of(mut command: Command) -> Result<Vec<u8>> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {command:?}; images are built on Debian 12"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(output.stdout)
}

fn text_of(command: Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes_of(command)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_where_files_lie() {
        for (path, target, expected) in [
            (
                "usr/sbin/iptables",
                "/etc/alternatives/iptables",
                "etc/alternatives/iptables",
            ),
            (
                "usr/lib/x86_64-linux-gnu/a.so",
                "a.so.1",
                "usr/lib/x86_64-linux-gnu/a.so.1",
            ),
            (
                "usr/lib64/ld.so",
                "/lib/x86_64-linux-gnu/ld.so",
                "usr/lib/x86_64-linux-gnu/ld.so",
            ),
            ("usr/bin/x", "../sbin/y", "usr/sbin/y"),
        ] {
            assert_eq!(resolved(path, Path::new(target)), expected);
        }
    }
}
