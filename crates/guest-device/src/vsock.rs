use std::{io, time::Duration};

use socket2::Socket;

/// Context identifier of the host (`VMADDR_CID_HOST`).
pub const VSOCK_HOST: u32 = 2;

/// Connects a stream to `port` of the context `cid` within `timeout`. Reads and writes have no deadline until the caller sets one.
///
/// # Errors
/// When the guest has no vsock device, nobody listens, or the time is over.
#[cfg(target_os = "linux")]
pub fn connect_vsock(cid: u32, port: u32, timeout: Duration) -> io::Result<Socket> {
    use socket2::{Domain, SockAddr, Type};

    let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::vsock(cid, port), timeout)?;
    // The kernel was seen to call a socket writable, without an error, to which nobody had answered.
    socket.peer_addr()?;
    Ok(socket)
}

/// Connects a stream to `port` of the context `cid` within `timeout`.
///
/// # Errors
/// Always: only Linux guests have evidence.
#[cfg(not(target_os = "linux"))]
pub fn connect_vsock(_: u32, _: u32, _: Duration) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}
