//! Replicas with real connections and invented answers.

#![allow(unreachable_pub, reason = "a module of a program of its own")]

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contrast_atls::{Dialer, TcpDialer};
use contrast_attestation::{PolicyHash, Tee, Verifier, software::SoftwareTee};
use contrast_clock::SystemWallClock;
use contrast_collateral::{Collateral, CompletingIssuer};
use contrast_coordinator::{
    cluster::ClusterId,
    peer::{Answer, Discovery, Handler, Local, PeerClient, Timing, serve},
    replica::{
        message::{BootId, Place, Reply, Request, Standing, Welcome},
        peers::{CallError, Caller, PeerFailure, Peers, Trust, Trusted},
    },
};
use contrast_manifest::ManifestHash;
use contrast_telemetry::drain::{self, Trigger};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::transport::Uri;

use crate::support::{COORDINATOR_INITDATA, Deployment, WEB_INITDATA, now, policy_hash};

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const CLUSTER: ClusterId = ClusterId([3; 32]);

/// A Coordinator of a later version.
pub const NEXT_INITDATA: &[u8] = b"version = \"0.1.0\"\n# next coordinator\n";

pub fn coordinator() -> PolicyHash {
    policy_hash(COORDINATOR_INITDATA)
}

pub fn next_coordinator() -> PolicyHash {
    policy_hash(NEXT_INITDATA)
}

pub fn workload() -> PolicyHash {
    policy_hash(WEB_INITDATA)
}

/// What a manifest with these Coordinators and the workload says.
pub fn trusting(coordinators: &[PolicyHash]) -> Arc<Trusted> {
    let references = vec![Deployment::new().tee().reference_value(Tee::Snp)];
    let policies = coordinators.iter().copied().chain([workload()]);
    Arc::new(Trusted {
        manifest: ManifestHash::of(format!("{coordinators:?}").as_bytes()),
        verifier: Verifier::new(references, policies),
        coordinators: coordinators.iter().copied().collect(),
    })
}

pub fn tee() -> SoftwareTee {
    SoftwareTee::generate(now()).expect("software TEE")
}

type Script = Box<dyn Fn(Request) -> Result<Reply, PeerFailure> + Send + Sync>;

/// Answers as its script says, after it asked the caller for its proof, and remembers what it was asked.
pub struct Fake {
    pub trust: Mutex<Option<Arc<Trusted>>>,
    pub script: Mutex<Script>,
    pub delay: Mutex<Duration>,
    pub asked: Mutex<Vec<&'static str>>,
}

impl Fake {
    pub fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().expect("not poisoned").clone()
    }

    pub fn answers(
        &self,
        script: impl Fn(Request) -> Result<Reply, PeerFailure> + Send + Sync + 'static,
    ) {
        *self.script.lock().expect("not poisoned") = Box::new(script);
    }

    pub fn trusts(&self, trusted: Option<&Arc<Trusted>>) {
        *self.trust.lock().expect("not poisoned") = trusted.cloned();
    }
}

impl Handler for Fake {
    fn trust(&self) -> Option<Arc<Trusted>> {
        self.trust.lock().expect("not poisoned").clone()
    }

    fn handle<'a>(&'a self, caller: &'a dyn Caller, request: Request) -> Answer<'a> {
        let name = request.name();
        self.asked.lock().expect("not poisoned").push(name);
        if name != "Hello" {
            let trusted = self
                .trust()
                .expect("others may ask only when there is trust");
            caller.prove_coordinator(&trusted).expect("a Coordinator");
        }
        let delay = *self.delay.lock().expect("not poisoned");
        Box::pin(async move {
            // A timer of no length takes a millisecond.
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            (self.script.lock().expect("not poisoned"))(request)
        })
    }
}

/// A replica that serves until it is dropped.
pub struct Replica {
    pub place: Place,
    pub address: SocketAddr,
    pub fake: Arc<Fake>,
    pub local: Local,
    pub drain: Trigger,
    pub tasks: JoinSet<()>,
}

pub fn local(tee: &SoftwareTee, policy: PolicyHash) -> Local {
    Local::new(CompletingIssuer {
        issuer: Arc::new(tee.snp_guest(policy)),
        collateral: Arc::new(Collateral::offline()),
        clock: Arc::new(SystemWallClock),
    })
    .expect("a TLS key")
}

impl Replica {
    pub async fn start(policy: PolicyHash, trusted: Option<&Arc<Trusted>>) -> Self {
        Self::start_as(local(Deployment::new().tee(), policy), trusted).await
    }

    pub async fn start_as(local: Local, trusted: Option<&Arc<Trusted>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        Self::start_on(listener, local, trusted)
    }

    pub fn start_on(listener: TcpListener, local: Local, trusted: Option<&Arc<Trusted>>) -> Self {
        let address = listener.local_addr().expect("an address");
        let fake = Arc::new(Fake {
            trust: Mutex::new(trusted.cloned()),
            script: Mutex::new(Box::new(usual)),
            delay: Mutex::default(),
            asked: Mutex::default(),
        });
        let (drain, watcher) = drain::channel();
        let mut tasks = JoinSet::new();
        let (handler, own) = (Arc::clone(&fake), local.clone());
        tasks.spawn(async move {
            serve(listener, handler, own, None, watcher)
                .await
                .expect("serves");
        });
        Self {
            place: Place::new(&address.to_string()),
            address,
            fake,
            local,
            drain,
            tasks,
        }
    }

    /// A client of this replica.
    pub fn client(&self) -> PeerClient {
        PeerClient::new(
            self.local.clone(),
            self.place.clone(),
            Discovery::new(Vec::new()),
        )
    }
}

/// Counts its dials, and takes its time.
#[derive(Clone, Default)]
pub struct Counting {
    pub dials: Arc<AtomicUsize>,
    pub delay: Duration,
}

impl Counting {
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }
}

impl Dialer for Counting {
    type Io = TcpStream;

    async fn dial(&self, uri: Uri) -> io::Result<TcpStream> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        TcpDialer.dial(uri).await
    }
}

/// A client over another transport.
pub fn client_over<D: Dialer>(local: &Local, dialer: D, timing: Timing) -> PeerClient<D> {
    let discovery = Discovery::new(Vec::new());
    PeerClient::with_dialer(
        local.clone(),
        Place::new("client:1"),
        discovery,
        dialer,
        timing,
    )
}

fn usual(request: Request) -> Result<Reply, PeerFailure> {
    Ok(match request {
        Request::Hello { boot, .. } => Reply::Welcome(Welcome {
            boot: BootId(boot.0.wrapping_add(1)),
            standing: Standing::Waiting,
        }),
        Request::Confirm { node, .. } => Reply::ReadIndex {
            index: node,
            settled: true,
        },
        _ => Reply::Done,
    })
}

pub fn hello() -> Request {
    Request::Hello {
        boot: BootId(41),
        head: None,
    }
}

pub fn confirm(node: u64) -> Request {
    Request::Confirm {
        cluster: CLUSTER,
        node,
    }
}

pub fn of(trusted: &Arc<Trusted>) -> Trust {
    Trust::CoordinatorOf(Arc::clone(trusted))
}

pub async fn ask<P: Peers>(
    client: &P,
    replica: &Replica,
    request: Request,
    trust: Trust,
) -> Result<Reply, CallError> {
    client
        .call(replica.place.clone(), request, trust, PATIENCE)
        .await
}

/// `Confirm` is answered with the number of the asking node.
pub async fn assert_confirms<P: Peers>(client: &P, replica: &Replica, trusted: &Arc<Trusted>) {
    let reply = ask(client, replica, confirm(7), of(trusted)).await;
    assert!(
        matches!(
            reply,
            Ok(Reply::ReadIndex {
                index: 7,
                settled: true
            })
        ),
        "{reply:?}"
    );
}
