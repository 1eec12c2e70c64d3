use std::{fs, path::PathBuf};

/// The file `name` among collected evidence; `None`, with a message, on machines that do not have it.
pub fn evidence_path(name: &str) -> Option<PathBuf> {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/evidence");
    let directory = std::env::var_os("CONTRAST_EVIDENCE_DIR");
    let path = directory
        .map_or_else(|| workspace.into(), PathBuf::from)
        .join(name);
    if !path.is_file() {
        println!(
            "skipped: {} is not there; set CONTRAST_EVIDENCE_DIR",
            path.display()
        );
        return None;
    }
    Some(path)
}

/// The contents of [`evidence_path`].
///
/// # Panics
/// When the file is there and cannot be read.
pub fn evidence(name: &str) -> Option<Vec<u8>> {
    evidence_path(name).map(|path| fs::read(path).expect("readable evidence"))
}
