use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use contrast_e2e::harness::{no_network_because, program};

const AGENT: &str = "kata-agent.service";
const LAST: &str = "last.service";
const UNITS: &str = "root/etc/systemd/system";
/// Seconds.
const DEADLINE: &str = "90";

/// Guests that are not registered with a systemd outside share its control group, and one that ends would take the other's away.
static BOOTING: Mutex<()> = Mutex::new(());

/// A guest whose `/usr` is this machine's with programs of ours in it, and that ends when its agent has run.
pub(crate) struct Guest {
    directory: tempfile::TempDir,
    units: Vec<String>,
    binds: Vec<String>,
}

/// What a boot left behind.
pub(crate) struct Boot {
    directory: tempfile::TempDir,
    pub(crate) console: String,
}

/// Whether guests can be booted here with the programs `needed`; says so if not.
pub(crate) fn possible(needed: &[&str]) -> bool {
    let finds = |program: &&str| {
        let mut command = Command::new(program);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    };
    let always = ["systemd-nspawn", "/lib/systemd/systemd", "nft"];
    let missing = always
        .iter()
        .chain(needed)
        .find(|program| !finds(program))
        .map(|program| {
            format!("there is no `{program}` (Debian: systemd-container, nftables, docker-registry, skopeo, libcap2-bin)")
        });
    let reason = no_network_because().or(missing);
    if let Some(reason) = &reason {
        eprintln!("SKIPPED the units of the guest: {reason}");
    }
    reason.is_none()
}

/// A unit of `deploy/guest`.
pub(crate) fn deployed(unit: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/guest");
    directory.join(unit)
}

impl Guest {
    /// With units of `deploy/guest`, which are enabled, and an agent that runs a script once.
    pub(crate) fn new(units: &[&str], agent: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let at = |path: &str| directory.path().join(path);
        for path in [
            "root/usr/lib",
            &format!("{UNITS}/{AGENT}.requires"),
            "usr/bin",
            "usr/sbin",
            "result",
        ] {
            fs::create_dir_all(at(path)).expect("directory");
        }
        // By this file systemd-nspawn tells a root directory, before it mounts `/usr`.
        fs::write(at("root/usr/lib/os-release"), "ID=guest\n").expect("writes");
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), at("root").join(name)).expect("links");
        }
        for unit in units {
            let text = fs::read_to_string(deployed(unit)).expect("reads");
            fs::write(at(UNITS).join(unit), &text).expect("writes");
            enable(&at(UNITS), unit, &text);
        }
        let guest = Self {
            directory,
            units: units.iter().map(|unit| (*unit).to_owned()).collect(),
            binds: Vec::new(),
        };
        guest.add_program("initializer", "initializer");
        guest.write(
            &format!("{UNITS}/{AGENT}"),
            &format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c '{agent}'\n"),
        );
        guest
    }

    /// Puts a program of ours into `/usr/bin`.
    pub(crate) fn add_program(&self, name: &str, built: &str) {
        let to = self.at("usr/bin").join(name);
        fs::copy(program(built).expect("is built"), to).expect("copies");
    }

    /// Takes a program of this machine away.
    pub(crate) fn remove_program(&self, name: &str) {
        // Neither is an executable, and the later directory hides the earlier one.
        fs::write(self.at("usr/sbin").join(name), "").expect("writes");
    }

    /// Adds a unit, or a drop-in.
    pub(crate) fn add_unit(&self, name: &str, text: &str) {
        self.write(&format!("{UNITS}/{name}"), text);
    }

    /// Shows a file of the directory `result` as `path`.
    pub(crate) fn bind(&mut self, file: &str, path: &str) {
        let file = self.at("result").join(file);
        self.binds.push(format!("--bind={}:{path}", file.display()));
    }

    /// `/result` of the guest.
    pub(crate) fn result(&self) -> PathBuf {
        self.at("result")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(path, text).expect("writes");
    }

    /// Boots the guest, and waits for its end.
    pub(crate) fn boot(self) -> Boot {
        let _alone = BOOTING.lock().unwrap_or_else(PoisonError::into_inner);
        let units = self.units.join(" ");
        let states: String = self
            .units
            .iter()
            .map(|unit| format!("systemctl is-active {unit} >/result/{unit}; "))
            .collect();
        self.write(
            &format!("{UNITS}/{LAST}"),
            &format!(
                "[Unit]\nWants={AGENT}\nAfter={AGENT} {units}\n[Service]\nType=oneshot\nExecStart=/bin/sh -c '{states}\
                 journalctl --no-pager --boot >/result/journal; systemctl --force poweroff'\n"
            ),
        );
        let output = Command::new("timeout")
            .args(["--kill-after=5", DEADLINE, "systemd-nspawn"])
            .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
            .args(["--private-network", "--console=pipe"])
            .arg(format!("--machine=guest-{}", std::process::id()))
            .arg(format!("--directory={}", self.at("root").display()))
            .arg(format!(
                "--overlay-ro=/usr:{}:/usr",
                self.at("usr").display()
            ))
            .arg(format!("--bind={}:/result", self.at("result").display()))
            .args(&self.binds)
            .arg(format!("systemd.unit={LAST}"))
            .stdin(Stdio::null())
            .output()
            .expect("systemd-nspawn runs");
        let mut boot = Boot {
            directory: self.directory,
            console: String::new(),
        };
        boot.console = format!(
            "{}{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            boot.read("journal").unwrap_or_default()
        );
        boot
    }
}

impl Boot {
    /// A file that was left in `/result`.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        let path = self.directory.path().join("result").join(name);
        let bytes = fs::read(path).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// State of a unit at the end, as `systemctl is-active` prints it.
    pub(crate) fn state(&self, unit: &str) -> String {
        self.read(unit).unwrap_or_default().trim().to_owned()
    }
}

/// As `systemctl enable` does.
fn enable(units: &Path, unit: &str, text: &str) {
    let required = text
        .lines()
        .filter_map(|line| line.strip_prefix("RequiredBy="));
    for by in required.flat_map(str::split_whitespace) {
        let directory = units.join(format!("{by}.requires"));
        fs::create_dir_all(&directory).expect("directory");
        symlink(format!("../{unit}"), directory.join(unit)).expect("links");
    }
}
