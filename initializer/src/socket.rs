//! Unix sockets for the programs of the pod.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {}; give a path of at most 107 bytes in a directory that exists ({option})",
    path.display()
)]
pub struct SocketError {
    /// Where.
    pub path: PathBuf,
    /// The option that says where, and what else it takes.
    pub option: &'static str,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// Listens at `path`, which `option` can change (it is for the message), for those whom `mode` lets in, of which the owner is `owner` or else the own user. A socket
/// that an earlier run left there is replaced, nothing else is.
pub(crate) fn listen(
    path: &Path,
    option: &'static str,
    (mode, owner): (u32, Option<u32>),
) -> Result<UnixListener, SocketError> {
    made(path, mode, owner).map_err(|source| SocketError {
        path: path.to_owned(),
        option,
        source,
    })
}

fn made(path: &Path, mode: u32, owner: Option<u32>) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            let what = "there is something else than a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Where only the own user gets in until the socket has its mode and owner.
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let private = tempfile::Builder::new()
        .prefix(".")
        .rand_bytes(4)
        .tempdir_in(parent)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(mode))?;
    if owner.is_some() {
        chown(&made, owner, None)?;
    }
    fs::rename(&made, path)?;
    Ok(listener)
}
