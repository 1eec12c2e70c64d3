//! A TCP connection that goes to the remote itself, not through the pod's own Envoy.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

#[cfg(target_os = "linux")]
use contrast_firewall::EGRESS_MARK;
use contrast_mesh_annotation::{Host, Remote};
use socket2::{Domain, Protocol, Socket, Type};

/// The addresses of a remote, in the order in which they are tried; each once.
pub(crate) fn resolve(remote: &Remote) -> io::Result<Vec<SocketAddr>> {
    match &remote.host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, remote.port)]),
        Host::Dns(name) => {
            let mut addresses = Vec::new();
            for address in (name.as_str(), remote.port).to_socket_addrs()? {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            Ok(addresses)
        }
    }
}

/// A socket towards one address.
pub(crate) struct Prepared {
    socket: Socket,
    address: SocketAddr,
    /// Whether the kernel's rules know the socket as Envoy's and do not lead it to Envoy.
    pub(crate) marked: bool,
}

/// A socket with the mark of Envoy's own connections, where the process may set it (CAP_NET_ADMIN or CAP_NET_RAW).
pub(crate) fn prepare(address: SocketAddr) -> io::Result<Prepared> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    #[cfg(target_os = "linux")]
    let marked = socket.set_mark(EGRESS_MARK).is_ok();
    // Elsewhere nothing captures connections.
    #[cfg(not(target_os = "linux"))]
    let marked = false;
    Ok(Prepared {
        socket,
        address,
        marked,
    })
}

impl Prepared {
    pub(crate) fn connect(self, deadline: Duration) -> io::Result<TcpStream> {
        self.socket
            .connect_timeout(&self.address.into(), deadline)?;
        let stream = TcpStream::from(self.socket);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Whether the kernel's rules never capture connections to this address.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback()
}
