//! Kernel and initial root file system.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail, ensure};

use crate::harness::{program, workspace_root};

/// Where `cargo xtask vm-test` unpacks the kernel package.
const KERNEL: &str = "target/tools/kernel";
const ARCHIVE: &str = "target/tools/vm-root.cpio";
/// Programs of this repository.
const OWN: [&str; 2] = ["initializer", "vm-agent"];
/// Programs of Debian, with the package that each is in.
const TOOLS: [(&str, &str); 15] = [
    ("cryptsetup", "cryptsetup-bin"),
    ("dmsetup", "dmsetup"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("tune2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_repair", "xfsprogs"),
    ("xfs_growfs", "xfsprogs"),
    ("xfs_io", "xfsprogs"),
    ("blkid", "util-linux"),
    ("losetup", "mount"),
    ("setpriv", "util-linux"),
    ("sqlite3", "sqlite3"),
    ("busybox", "busybox-static"),
];
/// Programs outside of the machine.
const OUTSIDE: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("modprobe", "kmod"),
    ("strip", "binutils"),
];
const MODULES: [&str; 14] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio-rng",
    "dm-crypt",
    "dm-integrity",
    "loop",
    "xfs",
    "authenc",
    "xts",
    "sha256-ssse3",
    "aesni-intel",
    "crc32c_generic",
];
const APPLETS: [&str; 45] = [
    "sh",
    "cat",
    "ls",
    "dd",
    "mkdir",
    "rm",
    "mv",
    "cp",
    "echo",
    "sleep",
    "cmp",
    "sync",
    "head",
    "tail",
    "grep",
    "sed",
    "sha256sum",
    "seq",
    "df",
    "cut",
    "tr",
    "od",
    "kill",
    "ps",
    "mount",
    "umount",
    "stat",
    "touch",
    "chmod",
    "chown",
    "ip",
    "printf",
    "true",
    "false",
    "test",
    "setsid",
    "wc",
    "env",
    "find",
    "blockdev",
    "xxd",
    "dirname",
    "mknod",
    "unshare",
    "nsenter",
];

/// What is booted.
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) root: PathBuf,
}

/// What is missing for virtual machines; `None` when they work. They are slow, so that they run only where `CONTRAST_VM_TESTS` is set, as
/// `cargo xtask vm-test` does.
pub fn why_not() -> Option<String> {
    if std::env::var_os("CONTRAST_VM_TESTS").is_none() {
        return Some("it runs with `cargo xtask vm-test`".to_owned());
    }
    let missing = OUTSIDE
        .iter()
        .chain(&TOOLS)
        .find(|(name, _)| find(name).is_none());
    if let Some((name, package)) = missing {
        return Some(format!("there is no `{name}` (Debian: {package})"));
    }
    match workspace_root().join(KERNEL).is_dir() {
        true => None,
        false => Some(format!("there is no kernel in {KERNEL}")),
    }
}

/// As [`why_not`], for what takes minutes, which `cargo xtask vm-test --long` runs.
pub fn why_not_long() -> Option<String> {
    let is_long = std::env::var_os("CONTRAST_VM_TESTS").is_some_and(|value| value == "long");
    match is_long {
        true => why_not(),
        false => Some("it runs with `cargo xtask vm-test --long`".to_owned()),
    }
}

/// The image, made once for all machines of a test.
///
/// # Errors
/// When something is missing that it is made of.
pub(crate) fn image() -> Result<&'static Image> {
    static IMAGE: OnceLock<std::result::Result<Image, String>> = OnceLock::new();
    let made = IMAGE.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    match made {
        Ok(image) => Ok(image),
        Err(error) => bail!("cannot make the image of the virtual machine: {error}"),
    }
}

fn make() -> Result<Image> {
    let unpacked = workspace_root().join(KERNEL);
    let boot = only_entry(&unpacked.join("boot"), "vmlinuz-")?;
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    for directory in [
        "bin", "etc", "proc", "sys", "dev", "run", "tmp", "state", "contrast",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in OWN {
        let target = root.join("bin").join(name);
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&target).arg(program(name)?);
        succeed(strip)?;
        add_libraries(&root, &target)?;
    }
    for (name, _) in TOOLS {
        let source = find(name).context(name)?;
        fs::copy(&source, root.join("bin").join(name))?;
        add_libraries(&root, &source)?;
    }
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    std::os::unix::fs::symlink("bin/vm-agent", root.join("init"))?;
    add_modules(&root, &unpacked)?;
    let archive = scratch.path().join("root.cpio");
    let mut cpio = Command::new("sh");
    cpio.args([
        "-c",
        r#"cd "$1" && find . | cpio -o -H newc --quiet > "$2""#,
        "sh",
    ]);
    cpio.arg(&root).arg(&archive);
    succeed(cpio)?;
    // One for all runs, which replaces that of the run before.
    let kept = workspace_root().join(ARCHIVE);
    let fresh = kept.with_extension(std::process::id().to_string());
    fs::copy(&archive, &fresh)?;
    fs::rename(&fresh, &kept)?;
    Ok(Image {
        kernel: boot,
        root: kept,
    })
}

/// What the dynamic linker would load.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words = listed.split_ascii_whitespace();
    let paths = words.filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

fn add_libraries(root: &Path, program: &Path) -> Result<()> {
    for library in libraries(program)? {
        let target = root.join(library.strip_prefix("/")?);
        if !target.exists() {
            fs::create_dir_all(target.parent().context("library")?)?;
            fs::copy(library, target)?;
        }
    }
    Ok(())
}

/// Copies the modules and those that they need, and lists them in the order in which they are loaded.
fn add_modules(root: &Path, unpacked: &Path) -> Result<()> {
    let version = only_entry(&unpacked.join("lib/modules"), "")?;
    let version = version.file_name().context("version of the kernel")?;
    let mut order: Vec<String> = Vec::new();
    for module in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(unpacked).arg("-S").arg(version);
        let listed = modprobe.args(["--show-depends", module]).output()?;
        ensure!(listed.status.success(), "the kernel has no module {module}");
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let Some(path) = line.trim().strip_prefix("insmod ") else {
                continue;
            };
            let source = Path::new(path.trim());
            let name = source.file_name().context("name of a module")?;
            let inside = format!("/lib/{}", name.to_string_lossy());
            if !order.contains(&inside) {
                fs::copy(source, root.join(inside.trim_start_matches('/')))?;
                order.push(inside);
            }
        }
    }
    fs::write(root.join("etc/modules"), order.join("\n"))?;
    Ok(())
}

fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut found = entries.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(prefix)
    };
    found
        .find(named)
        .with_context(|| format!("nothing begins with `{prefix}` in {}", directory.display()))
}

pub(super) fn find(name: &str) -> Option<PathBuf> {
    ["/bin", "/sbin", "/usr/bin", "/usr/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

fn succeed(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
