//! One installer at a time.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    host::Host,
    path::{HostPath, NotPlain},
    tree::{HostTree, TreeError},
};

/// Where the lock is: gone with the next boot, as whoever held it.
const PATH: &str = "/run/contrast-node-installer.lock";
const POLL: Duration = Duration::from_secs(1);

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

/// The lock was not obtained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another installer has it.
    #[error(
        "another installer works on this node for more than {waited} s; wait for it, or end the pod that holds {PATH}"
    )]
    Busy {
        /// Seconds.
        waited: u64,
    },
    /// The kernel refuses it for another reason.
    #[error("cannot lock {PATH} on the host")]
    Refused(#[source] std::io::Error),
    /// It cannot be named.
    #[error(transparent)]
    Path(#[from] NotPlain),
    /// It cannot be opened.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Lock {
    /// Waits at most `seconds` for the lock.
    ///
    /// # Errors
    /// When another installer has it for longer.
    pub fn take(tree: &HostTree, host: &dyn Host, seconds: u64) -> Result<Self, LockError> {
        let path = HostPath::new(PATH)?;
        let mut waited = 0;
        loop {
            let file = tree.open_lock(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever uninstalls removes the file; then this lock is one on nothing.
                Ok(()) if tree.is_at(&file, &path)? => return Ok(Self { _file: file }),
                Ok(()) => continue,
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(LockError::Refused(errno.into())),
            }
            if waited >= seconds {
                return Err(LockError::Busy { waited });
            }
            if waited == 0 {
                tracing::info!("another installer works on this node; waiting for it");
            }
            host.pause(POLL);
            waited += POLL.as_secs();
        }
    }

    /// Removes the lock's file and lets go.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self, tree: &HostTree) -> Result<(), LockError> {
        tree.remove(&HostPath::new(PATH)?)?;
        Ok(())
    }
}
