//! The command for the systems that people have on their desks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    images::{self, Profile},
    process::{cargo, run},
    tools, workspace_root,
};

/// The compiler's name of a system, and what can be done for it here.
struct System {
    target: &'static str,
    program: &'static str,
    /// Starts its programs on x86-64 Linux, with the Debian package that has it.
    emulator: Option<(&'static str, &'static str)>,
    /// Linking needs a kit that its vendor does not let others pass on.
    vendor_kit: bool,
}

const SYSTEMS: [System; 4] = [
    System {
        target: "x86_64-unknown-linux-musl",
        program: "contrast",
        emulator: None,
        vendor_kit: false,
    },
    System {
        target: AARCH64,
        program: "contrast",
        emulator: Some(("qemu-aarch64", "qemu-user")),
        vendor_kit: false,
    },
    System {
        target: "x86_64-pc-windows-gnu",
        program: "contrast.exe",
        emulator: Some(("wine", "wine")),
        vendor_kit: false,
    },
    System {
        target: "aarch64-apple-darwin",
        program: "contrast",
        emulator: None,
        vendor_kit: true,
    },
];

/// The programs of the images are built for it too.
const AARCH64: &str = "aarch64-unknown-linux-musl";
const COMMAND: [&str; 4] = ["--package", "contrast-cli", "--bin", "contrast"];

impl System {
    /// Whether all of its code is compiled for tests as well.
    fn same_as_here(&self) -> bool {
        self.target.starts_with("x86_64-unknown-linux")
    }
}

/// Options of `cargo xtask cross`.
#[derive(Debug, Args)]
pub(crate) struct Cross {
    /// Only check that it compiles, which needs no C compiler for other systems.
    #[arg(long, exclusive = true)]
    check: bool,
    /// How it is built: `release`, or `image-check`, which is quick and only good for tests.
    #[arg(long, default_value = "release")]
    profile: Profile,
    /// Then have each program say its version: under QEMU (package `qemu-user`) that for aarch64, under Wine (`wine`) that for Windows.
    #[arg(long = "try")]
    trial: bool,
}

impl Cross {
    pub(crate) fn run(self) -> Result<()> {
        match self.check {
            true => check(),
            false => self.build(),
        }
    }

    #[expect(
        clippy::print_stdout,
        reason = "the result, for the person at the terminal"
    )]
    fn build(&self) -> Result<()> {
        let output = workspace_root().join("target/cross");
        fs::create_dir_all(&output)?;
        let (built, skipped): (Vec<_>, Vec<_>) = SYSTEMS
            .iter()
            .partition(|system| !system.vendor_kit || std::env::var_os("SDKROOT").is_some());
        require_targets(&built)?;
        let mut build = tools::zigbuild()?;
        build
            .args(["build", "--locked", "--profile", self.profile.name()])
            .args(COMMAND);
        for system in &built {
            build.args(["--target", system.target]);
        }
        run(build)?;
        let services = images::programs(&workspace_root())?;
        let mut build = tools::zigbuild()?;
        build.args(["build", "--locked", "--profile", self.profile.name()]);
        build.args(["--target", AARCH64]);
        for (package, program) in &services {
            build.args(["--package", package, "--bin", program]);
        }
        run(build)?;
        let mut sums = String::new();
        for system in &built {
            let mut programs = vec![system.program];
            if system.target == AARCH64 {
                programs.extend(services.iter().map(|(_, program)| program.as_str()));
            }
            for program in programs {
                let path = built_program(system.target, program, self.profile);
                let name = format!("{}-{program}", system.target);
                let copy = output.join(&name);
                fs::copy(&path, &copy)
                    .with_context(|| format!("{} was not built", path.display()))?;
                let bytes = fs::read(&copy)?;
                sums.push_str(&format!("{}  {name}\n", images::sha256(&bytes)));
                if self.trial {
                    try_version(system, &copy)?;
                }
            }
        }
        fs::write(output.join("SHA256SUMS"), &sums)?;
        println!("{sums}");
        for system in skipped {
            println!(
                "not built: {}, because SDKROOT does not name a macOS SDK of Apple",
                system.target
            );
        }
        Ok(())
    }
}

fn built_program(target: &str, program: &str, profile: Profile) -> PathBuf {
    let directory = workspace_root().join("target").join(target);
    directory.join(profile.name()).join(program)
}

/// A check links nothing, so what the C compiler would make is never opened: `true` takes its place.
fn check() -> Result<()> {
    let others: Vec<_> = SYSTEMS
        .iter()
        .filter(|system| !system.same_as_here())
        .collect();
    require_targets(&others)?;
    let mut check = cargo(["check", "--locked"]);
    check.args(COMMAND);
    for system in others {
        check.args(["--target", system.target]);
    }
    // Build scripts say that they depend on these variables, so that whoever links later compiles.
    for variable in ["CC", "CXX", "AR"] {
        check.env(variable, "true");
    }
    run(check)
}

fn require_targets(systems: &[&System]) -> Result<()> {
    let missing: Vec<_> = systems
        .iter()
        .map(|system| system.target)
        .filter(|target| !has_target(target))
        .collect();
    ensure!(
        missing.is_empty(),
        "Rust's standard library is missing for {0}: `rustup target add {0}`",
        missing.join(" ")
    );
    Ok(())
}

fn has_target(target: &str) -> bool {
    let printed = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(workspace_root())
        .output();
    printed.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

fn try_version(system: &System, program: &Path) -> Result<()> {
    let mut command = match system.emulator {
        Some((emulator, _)) => {
            let mut command = Command::new(emulator);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    let output = command.arg("--version").output().with_context(|| {
        let hint = system.emulator.map_or_else(String::new, |(_, package)| {
            format!("; Debian's package {package} has the emulator")
        });
        format!("cannot start {command:?}{hint}")
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains(env!("CARGO_PKG_VERSION")),
        "{command:?} ended with {} and said `{said}{}`; expected the version {}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        env!("CARGO_PKG_VERSION")
    );
    Ok(())
}
