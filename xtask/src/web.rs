//! The WebAssembly module, and the page as one file that needs nothing else.
//!
//! Whoever builds the same sources with the same compilers gets the same bytes: paths of the machine are replaced, and the build stops if one
//! is left.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};

use crate::{
    process::{cargo, run},
    workspace_root,
};

const TARGET: &str = "wasm32-unknown-unknown";
/// Places in `web/verify.html` where the parts go; each is there once.
const POLICY: &str = "{{policy}}";
const STYLE: &str = "{{style}}";
const SCRIPT: &str = "{{script}}";
const MODULE: &str = "{{module}}";

/// Builds `target/web`.
pub(crate) fn build() -> Result<()> {
    let root = workspace_root();
    let module = build_module(&root)?;
    let source = |name: &str| {
        let path = root.join("web").join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let script = source("verify.mjs")?;
    let page = assemble(
        &source("verify.html")?,
        &source("verify.css")?,
        &script,
        &module,
    )?;
    let out = root.join("target/web");
    fs::create_dir_all(&out)?;
    fs::write(out.join("verify.wasm"), &module)?;
    fs::write(out.join("verify.mjs"), &script)?;
    fs::write(out.join("verify.html"), page)?;
    Ok(())
}

/// Builds what the tests of the page need where that is possible; else they say that they skip.
#[expect(clippy::print_stderr, reason = "a task that tells a person why")]
pub(crate) fn build_or_explain() {
    if let Err(error) = build() {
        // What an earlier build left says nothing about the sources of now.
        let _ = fs::remove_dir_all(workspace_root().join("target/web"));
        eprintln!("no page for browsers, so its tests will skip: {error:#}");
    }
}

fn build_module(root: &Path) -> Result<Vec<u8>> {
    let sysroot = output_of("rustc", &["--print", "sysroot"])?;
    let installed = Path::new(&sysroot).join("lib/rustlib").join(TARGET);
    ensure!(
        installed.is_dir(),
        "the compiler cannot build for {TARGET}; run `rustup target add {TARGET}`"
    );
    output_of("clang", &["--version"])
        .context("ring's C needs clang; install it (Debian: `apt-get install clang`)")?;
    let paths = paths(root, &sysroot)?;
    let flags = |option: &str, separator: &str| {
        let flags = paths
            .iter()
            .map(|(from, to)| format!("{option}={from}={to}"));
        flags.collect::<Vec<_>>().join(separator)
    };
    // The separator of this variable may be in no path; that of RUSTFLAGS is a space.
    let encoded = flags("--remap-path-prefix", "\u{1f}");
    let mut command = cargo(["build", "--quiet", "--locked", "--profile", "web"]);
    command
        .args(["--package", "contrast-sdk-wasm", "--target", TARGET])
        .args(["--target-dir", "target/wasm"])
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", encoded)
        .env("CC_wasm32_unknown_unknown", "clang")
        .env(
            "CFLAGS_wasm32_unknown_unknown",
            flags("-ffile-prefix-map", " "),
        );
    run(command)?;
    let built = root.join("target/wasm").join(TARGET);
    let module = fs::read(built.join("web/contrast_sdk_wasm.wasm"))?;
    for (path, _) in &paths {
        let found = module
            .windows(path.len())
            .any(|window| window == path.as_bytes());
        ensure!(
            !found,
            "the module names {path}, a path of this machine, so that nobody else can build the same one"
        );
    }
    Ok(module)
}

/// Directories that compilers may name, and what they shall name instead. The later of two that match is taken.
fn paths(root: &Path, sysroot: &str) -> Result<Vec<(String, String)>> {
    let version = output_of("rustc", &["--version", "--verbose"])?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .context("the compiler does not say its commit")?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let home = home.context("expected CARGO_HOME or HOME in the environment")?;
    let text = |path: &Path| {
        let text = path.to_str().context("a path is not UTF-8")?;
        Ok::<_, anyhow::Error>(text.to_owned())
    };
    Ok(vec![
        (text(root)?, "contrast".to_owned()),
        (text(&home)?, "cargo".to_owned()),
        (sysroot.to_owned(), "toolchain".to_owned()),
        (
            format!("{sysroot}/lib/rustlib/src/rust"),
            format!("/rustc/{commit}"),
        ),
    ])
}

/// Puts the parts into the page. Its policy names script and style by their hashes, so that nothing else on it can run.
fn assemble(page: &str, style: &str, script: &str, module: &[u8]) -> Result<String> {
    ensure!(
        !script.contains("</script") && !script.contains("<!--") && !style.contains("</style"),
        "script and style must not hold what ends them in HTML"
    );
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}' 'wasm-unsafe-eval'; style-src 'sha256-{}'; connect-src http: https:; \
         base-uri 'none'; form-action 'none'",
        hash(script),
        hash(style)
    );
    let module = BASE64_STANDARD.encode(module);
    let parts = [
        (POLICY, policy.as_str()),
        (STYLE, style),
        (SCRIPT, script),
        (MODULE, &module),
    ];
    let mut whole = String::new();
    let mut rest = page;
    for (place, part) in parts {
        let Some((before, after)) = rest.split_once(place) else {
            bail!(
                "web/verify.html: expected {place}, in the order {POLICY}, {STYLE}, {SCRIPT}, {MODULE}"
            );
        };
        whole.push_str(before);
        whole.push_str(part);
        rest = after;
    }
    whole.push_str(rest);
    Ok(whole)
}

fn output_of(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let output = command
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
