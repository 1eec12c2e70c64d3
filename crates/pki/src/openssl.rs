//! The `openssl` program as a second opinion in tests.

use std::{
    ffi::OsStr,
    process::{Command, Output},
};

/// Runs `openssl` with `arguments`; `None`, with a message, where there is no such program.
pub(crate) fn openssl<A: AsRef<OsStr>>(arguments: &[A]) -> Option<Output> {
    match Command::new("openssl").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: cannot run openssl: {error}");
            None
        }
    }
}

/// Runs `openssl`, which must succeed; returns what it printed.
pub(crate) fn openssl_succeeds<A: AsRef<OsStr>>(arguments: &[A]) -> Option<Vec<u8>> {
    let output = openssl(arguments)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    Some(output.stdout)
}
