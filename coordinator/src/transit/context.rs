use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use contrast_clock::{Entropy, WallClock};
use contrast_mesh_tls::{Member, MeshServer};
use contrast_pki::{LeafRequest, SigningKey};
use tokio::sync::Mutex;

use super::{
    failure::Failure,
    life::Activity,
    shares::{Share, Shares},
};
use crate::{replica::Hosted, state::Active};

/// Names of the server: the Services that lead to it. Clients in other namespaces name one of them as the expected one.
const NAMES: [&str; 2] = ["coordinator", "coordinator-ready"];

/// What holds under one active state: whose certificates are accepted, and who has keys.
#[derive(Debug)]
pub(super) struct Context {
    /// Never used twice.
    number: u64,
    pub(super) active: Arc<Active>,
    pub(super) tls: MeshServer,
    /// Workload secret ids of the manifest.
    ids: HashSet<String>,
    /// When the server's certificate is half over, or a previous mesh CA is not trusted any more.
    renew_at: SystemTime,
}

/// The context of the moment, made again when the state or the time asks for it.
#[derive(Debug)]
pub(super) struct Contexts {
    replica: Hosted,
    clock: Arc<dyn WallClock>,
    current: ArcSwapOption<Context>,
    made: AtomicU64,
    making: Mutex<()>,
}

impl Contexts {
    pub(super) fn new(replica: Hosted, clock: Arc<dyn WallClock>) -> Self {
        Self {
            replica,
            clock,
            current: ArcSwapOption::empty(),
            made: AtomicU64::new(1),
            making: Mutex::new(()),
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn entropy(&self) -> &dyn Entropy {
        self.replica.guard().entropy()
    }

    /// The context of a state that a quorum confirmed not longer ago than certificates are issued after.
    pub(super) async fn current(&self) -> Result<Arc<Context>, Failure> {
        let active = self.replica.recently_confirmed().await?;
        if let Some(context) = self.fitting(&active) {
            return Ok(context);
        }
        let _making = self.making.lock().await;
        if let Some(context) = self.fitting(&active) {
            return Ok(context);
        }
        let context = Arc::new(self.make(active)?);
        self.current.store(Some(Arc::clone(&context)));
        Ok(context)
    }

    /// The context that was the current one last. It may only let somebody in who is then told that there is no current one.
    pub(super) fn last(&self) -> Option<Arc<Context>> {
        self.current.load_full()
    }

    fn fitting(&self, active: &Arc<Active>) -> Option<Arc<Context>> {
        let now = self.now();
        let current = self.current.load_full()?;
        (Arc::ptr_eq(&current.active, active) && now < current.renew_at).then_some(current)
    }

    fn make(&self, active: Arc<Active>) -> Result<Context, Failure> {
        let now = self.now();
        let entropy = self.entropy();
        let failed =
            |error: &dyn ToString| Failure::internal("server certificate", error.to_string());
        let key = SigningKey::generate(entropy).map_err(|error| failed(&error))?;
        let lifetime = active.manifest().mesh_cert_lifetime();
        let request = LeafRequest {
            public_key_spki: key.public_key_spki(),
            sans: &NAMES.map(str::to_owned),
            spiffe_id: None,
            peer_ip: None,
            workload_secret_id: None,
            extensions: &[],
            lifetime,
        };
        let leaf = active.mesh_ca().issue_leaf(&request, entropy, now);
        let leaf = leaf.map_err(|error| failed(&error))?;
        let own_ca = active.mesh_ca().self_signed_pem();
        let previous = active.previous_mesh_ca(now);
        let mesh_cas: Vec<&str> = [own_ca.as_str()]
            .into_iter()
            .chain(previous.map(|(pem, _)| pem))
            .collect();
        let pkcs8 = key.to_pkcs8_der().map_err(|error| failed(&error))?;
        let clock = Arc::clone(&self.clock);
        let tls = MeshServer::new(&leaf.chain_pem, &pkcs8, &mesh_cas, clock);
        let tls = tls.map_err(|error| failed(&error))?;
        let usable = previous.map_or(lifetime / 2, |(_, left)| left.min(lifetime / 2));
        let policies = active.manifest().policies().values();
        let ids = policies
            .map(|entry| entry.workload_secret_id.clone())
            .filter(|id| !id.is_empty())
            .collect();
        Ok(Context {
            number: self.made.fetch_add(1, Ordering::Relaxed),
            tls,
            ids,
            renew_at: now.checked_add(usable).unwrap_or(now),
            active,
        })
    }
}

/// Whom a connection belongs to.
#[derive(Debug)]
pub(super) struct Client {
    member: Member,
    /// Number of the context that accepted it last.
    accepted: AtomicU64,
    share: Arc<Share>,
    activity: Activity,
}

impl Client {
    pub(super) fn new(member: Member, context: &Context, shares: &Shares) -> Self {
        let share = shares.of(member.facts().workload_secret_id.as_deref());
        Self {
            share,
            activity: Activity::begin(),
            member,
            accepted: AtomicU64::new(context.number),
        }
    }

    /// Workload secret id of its certificate.
    pub(super) fn id(&self) -> Option<&str> {
        self.member.facts().workload_secret_id.as_deref()
    }

    /// What its workload may take at the same time, over all of its connections.
    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Connections outlive manifests and certificates: whether this one would be accepted now.
    pub(super) fn admit(&self, context: &Context, now: SystemTime) -> Result<(), Failure> {
        let same = self.accepted.load(Ordering::Acquire) == context.number;
        if same && now < self.member.facts().not_after {
            return Ok(());
        }
        context
            .tls
            .still_accepts(&self.member, now)
            .map_err(|error| {
                tracing::debug!(%error, "a client of the transit engine is not accepted any more");
                Failure::Denied
            })?;
        self.accepted.store(context.number, Ordering::Release);
        Ok(())
    }

    /// Whether the key `name` is its own, and the manifest still knows it.
    pub(super) fn authorise(&self, context: &Context, name: &str) -> Result<(), Failure> {
        let own = !name.is_empty() && self.id() == Some(name);
        match own && context.ids.contains(name) {
            true => Ok(()),
            false => Err(Failure::Denied),
        }
    }
}
