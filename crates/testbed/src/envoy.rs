use std::path::PathBuf;

/// The Envoy to test with: `CONTRAST_ENVOY_BINARY`, else the one that `cargo xtask tools` fetches; `None`, with a message, without one.
pub fn envoy() -> Option<PathBuf> {
    let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/envoy");
    let found = std::env::var_os("CONTRAST_ENVOY_BINARY");
    let found = found.map_or_else(|| fetched.into(), PathBuf::from);
    if found.is_file() {
        return Some(found);
    }
    println!(
        "skipped: no Envoy at {}; run `cargo xtask tools` to fetch it",
        found.display()
    );
    None
}
