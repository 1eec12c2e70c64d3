//! What most stories begin with: a server whose application echoes, and a member of the mesh that talks to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use contrast_e2e::harness::mesh::{Application, Bed, Generation, MeshPod, Wire, presented, reach};

/// Port of the application that no ingress entry names.
pub(crate) const PORT: u16 = 8080;
/// Name of the server, which its certificate carries.
pub(crate) const SERVER: &str = "server";

/// One story at a time: each is a handful of busy processes.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other story runs.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server, the CA that all members trust, and a node that is no member.
pub(crate) struct Scene {
    pub(crate) application: Application,
    pub(crate) server: MeshPod,
    pub(crate) generation: Generation,
    pub(crate) stranger: usize,
    pub(crate) bed: Bed,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    /// A server with these ingress entries; `None`, with a message, where that cannot be.
    pub(crate) fn begin(story: &str, ingress: &str) -> Option<Self> {
        let turn = turn();
        let mut bed = Bed::create(story).expect("network")?;
        let generation = Generation::create().expect("CA");
        let stranger = bed.stranger().expect("node");
        let environment = [
            ("CONTRAST_INGRESS_PROXY_CONFIG", ingress.to_owned()),
            ("CONTRAST_NAMESPACE", "test".to_owned()),
        ];
        let server = bed.ready(&environment, |names| {
            let names = [&[SERVER.to_owned()], names].concat();
            generation.issue("test/deployment/server", &names)
        });
        let server = server.expect("the server's sidecar is ready");
        let application =
            Application::start(bed.network(), server.node, PORT).expect("application");
        Some(Self {
            application,
            server,
            generation,
            stranger,
            bed,
            _turn: turn,
        })
    }

    /// A member of the mesh, `test/deployment/NAME`, with these egress entries.
    pub(crate) fn member(&mut self, name: &str, egress: &str) -> MeshPod {
        let environment = [
            ("CONTRAST_INGRESS_PROXY_CONFIG", "DISABLED".to_owned()),
            ("CONTRAST_EGRESS_PROXY_CONFIG", egress.to_owned()),
            ("CONTRAST_NAMESPACE", "test".to_owned()),
        ];
        let member = self.bed.ready(&environment, |names| {
            let workload = format!("test/deployment/{name}");
            self.generation.issue(&workload, names)
        });
        member.expect("the member's sidecar is ready")
    }

    /// Egress entries, one for each address of the server, that lead from [`alias`] to `port` and have `options`.
    pub(crate) fn egress(&self, port: u16, options: &str) -> String {
        let entries = self.server.at(port).enumerate().map(|(index, remote)| {
            format!("server{index}#{}#{remote}{options}", alias(index, port))
        });
        entries.collect::<Vec<_>>().join("##")
    }

    /// Whether an exchange with `address` from `node` succeeds; the error says why not.
    pub(crate) fn reach(
        &self,
        node: usize,
        address: SocketAddr,
        wire: &Wire,
    ) -> anyhow::Result<()> {
        reach(self.bed.network(), node, address, wire)
    }
}

impl Scene {
    /// The certificate that the server presents now, DER.
    pub(crate) fn server_certificate(&self) -> Vec<u8> {
        let names = ["observer".to_owned()];
        let observer = self.generation.issue("test/deployment/observer", &names);
        let client = observer.and_then(|observer| observer.client());
        let address = (self.server.addresses[0], PORT).into();
        let presented = presented(
            self.bed.network(),
            self.stranger,
            address,
            client.expect("client"),
            SERVER,
        );
        presented.expect("a certificate")
    }
}

/// Loopback address of a member that leads to the server's address number `index`.
pub(crate) fn alias(index: usize, port: u16) -> SocketAddr {
    let last = u8::try_from(index + 1).expect("there are two");
    (Ipv4Addr::new(127, 137, 0, last), port).into()
}
