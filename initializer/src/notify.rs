//! Tells systemd that a service is ready (sd_notify(3)), so that what comes after it can start.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// systemd would wait in vain.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot say at the socket that {VARIABLE} names that this service is ready; expected what systemd sets for a unit of Type=notify, or no such variable"
)]
pub struct NotifyError(#[source] io::Error);

/// Says that the service is ready, if somebody wants to know.
pub(crate) fn notify_ready() -> Result<(), NotifyError> {
    match env::var_os(VARIABLE) {
        Some(socket) => say(&socket, b"READY=1").map_err(NotifyError),
        None => Ok(()),
    }
}

fn say(socket: &OsStr, state: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 100];
        let count = listener.recv(&mut buffer).expect("receives");
        buffer.get(..count).expect("in the buffer").to_vec()
    }

    #[test]
    fn path_and_abstract_name_are_told() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("binds");
        say(path.as_os_str(), b"READY=1").expect("says");
        assert_eq!(heard(&listener), b"READY=1");

        let name = format!("contrast-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let listener = UnixDatagram::bind_addr(&address).expect("binds");
        say(OsStr::new(&format!("@{name}")), b"READY=1").expect("says");
        assert_eq!(heard(&listener), b"READY=1");

        say(OsStr::new("/nowhere/at/all"), b"READY=1").expect_err("nobody listens");
    }
}
