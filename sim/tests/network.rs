//! Connections: what arrives, who is believed, and that secrets are watched.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use contrast_attestation::PolicyHash;
use contrast_coordinator::{
    cluster::ClusterId,
    replica::{
        message::{BootId, MeshCaKey, Place, Reply, Request, Secrets},
        peers::{BoxFuture, CallError, Caller, PeerFailure, Peers, Trust, Trusted},
    },
};
use contrast_pki::{Salt, Seed};
use contrast_sim::{
    checker::Checker,
    deployment::{Owners, coordinator_policy, trusted, workload_policy},
    dice::Dice,
    journal::Journal,
    network::{Endpoint, Identity, Link, Network, SimPeers},
    runtime::{Node, NodeRuntime, elapsed, sleep_in_world},
};
use openraft::AsyncRuntime;
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);
const CLUSTER: ClusterId = ClusterId([1; 32]);

fn trust() -> Arc<Trusted> {
    let manifest = Owners::new().expect("owners").manifest("a", &[1]);
    Arc::new(trusted(&manifest.expect("manifest")).expect("valid"))
}

/// Answers questions for secrets, to those who prove what `demands` asks for, and notes who asked.
struct Server {
    heard: Mutex<Vec<String>>,
    demands: Option<Arc<Trusted>>,
    takes: Duration,
    /// Ends itself before it answers, in the same poll.
    ends: bool,
}

impl Endpoint for Server {
    fn handle(
        self: Arc<Self>,
        caller: Arc<Identity>,
        request: Request,
    ) -> BoxFuture<Result<Reply, PeerFailure>> {
        Box::pin(async move {
            let asked = format!("{} {}", caller.name, request.name());
            self.heard.lock().expect("lock").push(asked);
            NodeRuntime::sleep(self.takes).await;
            if self.ends {
                Node::current().expect("within the server").kill();
            }
            if let Some(trusted) = &self.demands {
                caller
                    .prove_coordinator(trusted)
                    .map_err(PeerFailure::NotCoordinator)?;
            }
            Ok(match request {
                Request::FetchSecrets => Reply::Secrets(Secrets {
                    cluster: CLUSTER,
                    seed: Arc::new(Seed::from_slice(&[1; 64]).expect("64 bytes")),
                    salt: Arc::new(Salt::from_slice(&[1; 32]).expect("32 bytes")),
                    mesh_ca_keys: Vec::new(),
                    manifest: contrast_manifest::ManifestHash([1; 32]),
                }),
                Request::FetchKey { .. } => Reply::Key(Some(key())),
                _ => Reply::Done,
            })
        })
    }
}

fn key() -> MeshCaKey {
    MeshCaKey {
        pkcs8: Arc::new(Zeroizing::new(vec![1])),
    }
}

struct World {
    journal: Journal,
    network: Network,
    server: Arc<Server>,
    server_node: Node,
}

fn identity(name: &str, policy: PolicyHash, genuine: bool) -> Arc<Identity> {
    Arc::new(Identity {
        name: name.to_owned(),
        place: Place::new(name),
        policy,
        genuine,
    })
}

fn coordinator(name: &str) -> Arc<Identity> {
    identity(name, coordinator_policy(1), true)
}

impl World {
    fn new(server: &Arc<Identity>, demands: Option<Arc<Trusted>>) -> Self {
        let journal = Journal::default();
        let checker = Checker::new(&journal, SECOND);
        let network = Network::new(Dice::new(1, "network"), &journal, &checker);
        network.allow_secrets_to(coordinator_policy(1));
        let mut world = Self {
            journal,
            network,
            server: Arc::new(Server {
                heard: Mutex::default(),
                demands,
                takes: Duration::ZERO,
                ends: false,
            }),
            server_node: Node::new("server"),
        };
        world.attach(server, Duration::ZERO, false);
        world
    }

    /// Starts the server, or its next process.
    fn attach(&mut self, identity: &Arc<Identity>, takes: Duration, ends: bool) {
        self.server_node.kill();
        self.server_node = Node::new(&identity.name);
        self.server = Arc::new(Server {
            heard: Mutex::default(),
            demands: self.server.demands.clone(),
            takes,
            ends,
        });
        let server = Arc::clone(&self.server);
        self.network
            .attach(&self.server_node, Arc::clone(identity), server);
    }

    fn heard(&self) -> Vec<String> {
        self.server.heard.lock().expect("lock").clone()
    }

    async fn ask(
        &self,
        from: &Arc<Identity>,
        request: Request,
        trust: Trust,
    ) -> Result<Reply, CallError> {
        let node = Node::new(&from.name);
        let peers = SimPeers::new(&self.network, &node, Arc::clone(from));
        let task = node.spawn(async move {
            let call = peers.call(Place::new("server"), request, trust, SECOND);
            call.await
        });
        task.await.expect("the client lives")
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    NodeRuntime::with_seed(1).block_on(future)
}

fn hello() -> Request {
    Request::Hello {
        boot: BootId(1),
        head: None,
    }
}

#[test]
fn server_that_is_not_believed_hears_nothing() {
    run(async {
        for (policy, genuine) in [(workload_policy(), true), (coordinator_policy(1), false)] {
            let world = World::new(&identity("server", policy, genuine), None);
            let client = coordinator("client");
            let trust = Trust::CoordinatorOf(trust());
            let error = world.ask(&client, hello(), trust).await;
            assert!(matches!(error, Err(CallError::NotBelieved { .. })));
            assert!(world.heard().is_empty());
            let anyone = world.ask(&client, hello(), Trust::Anyone).await;
            assert!(anyone.is_ok(), "{anyone:?}");
        }
    });
}

#[test]
fn client_that_proves_nothing_is_told_so_and_secrets_to_it_are_noticed() {
    run(async {
        let server = coordinator("server");
        let stranger = identity("stranger", coordinator_policy(1), false);
        let world = World::new(&server, Some(trust()));
        let refused = world
            .ask(&stranger, Request::FetchSecrets, Trust::Anyone)
            .await;
        assert!(matches!(refused, Err(CallError::NotBelievedBy { .. })));
        let given = world
            .ask(&coordinator("client"), Request::FetchSecrets, Trust::Anyone)
            .await;
        assert!(matches!(given, Ok(Reply::Secrets(_))));
        assert_eq!(world.journal.verdict(), None);

        let fetch_key = || Request::FetchKey {
            cluster: CLUSTER,
            public_key: bytes::Bytes::new(),
        };
        let workload = identity("workload", workload_policy(), true);
        for (client, request) in [(&stranger, Request::FetchSecrets), (&workload, fetch_key())] {
            let careless = World::new(&server, None);
            careless
                .ask(client, request, Trust::Anyone)
                .await
                .expect("answers");
            let verdict = careless.journal.verdict().expect("noticed");
            assert!(verdict.contains("no genuine Coordinator"), "{verdict}");
        }
        let thief = World::new(&identity("server", workload_policy(), true), None);
        let offer = Request::OfferKey {
            cluster: CLUSTER,
            key: key(),
        };
        drop(
            thief
                .ask(&coordinator("client"), offer, Trust::Anyone)
                .await,
        );
        assert!(thief.journal.verdict().is_some());
    });
}

#[test]
fn cut_direction_lets_nothing_through_and_the_other_one_works() {
    run(async {
        let (server, client) = (coordinator("server"), coordinator("client"));
        let world = World::new(&server, None);
        let cut = |from: &Identity, to: &Identity, cut| {
            world
                .network
                .change(&from.place, &to.place, |link| link.cut = cut);
        };
        cut(&client, &server, true);
        let start = elapsed();
        let lost = world.ask(&client, hello(), Trust::Anyone).await;
        assert!(matches!(lost, Err(CallError::Unreachable { .. })));
        assert!(
            elapsed() - start >= SECOND,
            "silence takes until the deadline"
        );
        assert!(world.heard().is_empty());

        cut(&client, &server, false);
        cut(&server, &client, true);
        let unheard = world.ask(&client, hello(), Trust::Anyone).await;
        assert!(matches!(unheard, Err(CallError::Unreachable { .. })));
        assert_eq!(world.heard().len(), 1, "only the answer was lost");

        world.network.set_all(Link::default());
        world
            .ask(&client, hello(), Trust::Anyone)
            .await
            .expect("answers");
    });
}

#[test]
fn messages_are_doubled_lost_and_overtaken_as_the_link_says() {
    run(async {
        let (server, client) = (coordinator("server"), coordinator("client"));
        let world = World::new(&server, None);
        world.network.set_all(Link {
            doubles: 1000,
            ..Link::default()
        });
        world
            .ask(&client, hello(), Trust::Anyone)
            .await
            .expect("answers");
        sleep_in_world(SECOND).await;
        assert_eq!(world.heard().len(), 2);

        world.network.set_all(Link {
            loss: 1000,
            ..Link::default()
        });
        world
            .ask(&client, hello(), Trust::Anyone)
            .await
            .expect_err("lost");
        assert_eq!(world.heard().len(), 2);

        world.network.set_all(Link {
            delay: (Duration::ZERO, Duration::from_millis(900)),
            ..Link::default()
        });
        let names: Vec<String> = (0..20).map(|number| format!("client-{number}")).collect();
        let node = Node::new("clients");
        for name in &names {
            let peers = SimPeers::new(&world.network, &node, coordinator(name));
            let call = peers.call(Place::new("server"), hello(), Trust::Anyone, SECOND);
            drop(node.spawn(call));
        }
        sleep_in_world(SECOND).await;
        let heard = world.heard().split_off(2);
        let order: Vec<&str> = heard
            .iter()
            .filter_map(|asked| asked.split(' ').next())
            .collect();
        assert_eq!(order.len(), names.len());
        assert_ne!(
            order, names,
            "all came in the order in which they were sent"
        );
    });
}

#[test]
fn recorded_question_reaches_a_later_process_again_with_its_proof_and_a_forged_one_without() {
    run(async {
        let (server, client) = (coordinator("server"), coordinator("client"));
        let mut world = World::new(&server, Some(trust()));
        world
            .ask(&client, Request::FetchSecrets, Trust::Anyone)
            .await
            .expect("answers");
        world.attach(&server, Duration::ZERO, false);
        world.network.replay();
        sleep_in_world(SECOND).await;
        assert_eq!(world.heard(), ["client FetchSecrets"]);

        let stranger = identity("stranger", coordinator_policy(1), false);
        world.network.forge(&stranger);
        sleep_in_world(SECOND).await;
        assert_eq!(world.heard()[1..], ["stranger FetchSecrets"]);
        assert_eq!(world.journal.verdict(), None, "it was refused");
        world.server_node.kill();
        let dead = world.ask(&client, hello(), Trust::Anyone).await;
        assert!(matches!(dead, Err(CallError::Unreachable { .. })));
    });
}

#[test]
fn server_that_ends_while_it_answers_is_not_heard() {
    run(async {
        let (server, client) = (coordinator("server"), coordinator("client"));
        let mut world = World::new(&server, None);
        for ends in [false, true] {
            world.attach(&server, Duration::from_millis(100), ends);
            if !ends {
                world.server_node.kill_after_polls(1);
            }
            let answer = world.ask(&client, hello(), Trust::Anyone).await;
            assert!(matches!(answer, Err(CallError::Unreachable { .. })));
            assert_eq!(world.heard().len(), 1);
        }
    });
}
