//! Seed shares of several owners, until there are enough for a recovery. In memory only.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use contrast_pki::{
    Salt,
    shares::{Collector, Progress, SeedShare, SeedSharesDocument},
};
use contrast_telemetry::exposure::PUBLIC;

use super::{History, RecoveryRequest, StateError, TransitionHash, transition::sha256};

/// How long the first share is kept while the others are missing.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a seed share owner hands in.
#[derive(Debug)]
pub struct SeedShareRequest {
    /// The share; with threshold 1 the seed itself.
    pub share: SeedShare,
    /// Salt of the owner's seed shares document.
    pub salt: Salt,
    /// Latest transition that the owner has seen, if any.
    pub known: Option<TransitionHash>,
    /// Recover although other replicas answer that know this deployment.
    pub force: bool,
    /// Recover although the generations of encrypted volumes cannot be believed.
    pub forget_volumes: bool,
}

/// What a share made of the collection.
#[derive(Debug)]
pub enum Collected {
    /// More owners are needed.
    Missing(u32),
    /// What the owners together ask for.
    Complete(RecoveryRequest),
}

/// The shares so far.
#[derive(Debug, Default)]
pub struct Collection(Option<Begun>);

#[derive(Debug)]
struct Begun {
    shares: Collector,
    document: SeedSharesDocument,
    /// What each owner demands, by the owner's public key. Handing a share in again replaces it.
    demands: BTreeMap<Vec<u8>, Demand>,
    deadline: Instant,
}

/// On what condition an owner hands in a share.
#[derive(Debug, Clone, Copy)]
struct Demand {
    known: Option<TransitionHash>,
    force: bool,
    forget_volumes: bool,
}

impl Collection {
    /// Adds a share of the document that belongs to `history`, at `now`. The shares stay until a recovery succeeded ([`clear`](Self::clear)) or the
    /// deadline passed: when a recovery fails, owners hand in again only what was wrong.
    ///
    /// # Errors
    /// When it is none, or came with another salt; nothing changes then.
    pub fn add(
        &mut self,
        history: &History,
        request: SeedShareRequest,
        now: Instant,
    ) -> Result<Collected, StateError> {
        self.expire(now);
        let document = history.seed_shares();
        let SeedShareRequest {
            share,
            salt,
            known,
            force,
            forget_volumes,
        } = request;
        let demand = Demand {
            known,
            force,
            forget_volumes,
        };
        let begun = self.0.take().filter(|begun| begun.document == *document);
        let mut begun = begun.unwrap_or_else(|| Begun {
            shares: Collector::new(document.clone()),
            document: document.clone(),
            demands: BTreeMap::new(),
            deadline: now + PATIENCE,
        });
        let added = begun.add(share, salt, demand);
        let threshold = document.threshold;
        let progress = match added {
            Ok(progress) => progress,
            Err(error) => {
                // A wrong first share must not start the time of the others.
                self.0 = (!begun.demands.is_empty()).then_some(begun);
                return Err(error);
            }
        };
        match progress {
            Progress::Missing(missing) => {
                self.0 = Some(begun);
                Ok(Collected::Missing(missing))
            }
            Progress::Complete(seed) => {
                let agreed = begun.agreed(history, threshold);
                let agreed = match threshold {
                    // The share is not collected; its owner is not known.
                    1 => vec![demand],
                    _ => {
                        self.0 = Some(begun);
                        agreed
                    }
                };
                Ok(Collected::Complete(RecoveryRequest {
                    seed,
                    salt,
                    known: agreed.iter().filter_map(|demand| demand.known).collect(),
                    force: agreed.iter().all(|demand| demand.force),
                    forget_volumes: agreed.iter().all(|demand| demand.forget_volumes),
                }))
            }
        }
    }

    /// Forgets all shares: they are not needed any more.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Forgets the shares when the others did not come in time.
    pub fn expire(&mut self, now: Instant) {
        if self.0.as_ref().is_some_and(|begun| begun.deadline <= now) {
            tracing::warn!(
                exposure = PUBLIC,
                "the time for seed shares is over; those that came are forgotten"
            );
            self.clear();
        }
    }
}

impl Begun {
    fn add(
        &mut self,
        share: SeedShare,
        salt: Salt,
        demand: Demand,
    ) -> Result<Progress, StateError> {
        let owner = self.shares.owner(&share)?.map(<[u8]>::to_vec);
        if owner.is_some() && self.document.salt != salt.as_bytes() {
            return Err(StateError::OtherSalt);
        }
        let progress = self.shares.add(share)?;
        if let Some(owner) = owner {
            self.demands.insert(owner, demand);
        }
        Ok(progress)
    }

    /// The demands under which the history on this disk can be recovered, when enough owners make such ones: an owner beyond the threshold
    /// who names a transition that nobody else knows must not hinder the others. Else all, and the recovery will say what is wrong.
    fn agreed(&self, history: &History, threshold: u32) -> Vec<Demand> {
        let fits = |demand: &Demand| {
            let known = demand.known;
            known.is_none_or(|known| history.check_contains(known).is_ok())
        };
        let fitting: Vec<Demand> = self.demands.values().copied().filter(fits).collect();
        for (owner, demand) in self.demands.iter().filter(|(_, demand)| !fits(demand)) {
            tracing::warn!(
                owner_key_sha256 = %hex::encode(sha256(&[owner])),
                known = ?demand.known,
                "an owner names a transition that is not in the history on this disk"
            );
        }
        match usize::try_from(threshold).is_ok_and(|needed| fitting.len() >= needed) {
            true => fitting,
            false => self.demands.values().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use contrast_clock::SystemEntropy;
    use contrast_manifest::ManifestHash;
    use contrast_pki::{
        Seed, SigningKey,
        shares::{
            SeedShareOwnerKey, SharesError, decrypt_share, encrypt_seed, generate_owner_key_pem,
        },
    };

    use super::*;
    use crate::state::Transition;

    struct Deployment {
        seed: Seed,
        salt: Salt,
        history: History,
        shares: Vec<SeedShare>,
    }

    /// A seed that two of three can recover. It takes seconds to find their keys.
    fn deployment() -> &'static Deployment {
        static DEPLOYMENT: OnceLock<Deployment> = OnceLock::new();
        DEPLOYMENT.get_or_init(create)
    }

    fn create() -> Deployment {
        let seed = Seed::generate(&SystemEntropy).expect("seed");
        let salt = Salt::generate(&SystemEntropy).expect("salt");
        let keys = [(); 3].map(|()| generate_owner_key_pem().expect("key"));
        let owners = keys
            .each_ref()
            .map(|pem| SeedShareOwnerKey::from_pem(pem).expect("public half"));
        let document = encrypt_seed(&seed, &salt, &owners, 2, &SystemEntropy).expect("shares");
        let shares = keys
            .iter()
            .map(|pem| decrypt_share(&document, pem).expect("share"));
        Deployment {
            shares: shares.collect(),
            seed,
            salt,
            history: history(&document),
        }
    }

    fn history(document: &SeedSharesDocument) -> History {
        let key = SigningKey::generate(&SystemEntropy).expect("key");
        let (manifest, none) = (ManifestHash::of(b"manifest"), TransitionHash::NONE);
        let digest = document.digest().expect("JSON");
        let first = Transition::sign(manifest, none, b"mesh CA", digest, &key).expect("signs");
        let document = document.clone();
        History::found(first, b"manifest", BTreeMap::new(), document, b"root")
    }

    impl Deployment {
        /// As an owner hands it in who saw the latest transition.
        fn request(&self, share: usize) -> SeedShareRequest {
            SeedShareRequest {
                share: self.shares[share].clone(),
                salt: self.salt,
                known: Some(self.history.head().hash),
                force: false,
                forget_volumes: false,
            }
        }
    }

    fn missing(added: Result<Collected, StateError>) -> u32 {
        match added.expect("adds") {
            Collected::Missing(missing) => missing,
            Collected::Complete(_) => 0,
        }
    }

    fn complete(added: Result<Collected, StateError>) -> RecoveryRequest {
        match added.expect("adds") {
            Collected::Complete(request) => request,
            Collected::Missing(missing) => panic!("{missing} are missing"),
        }
    }

    #[test]
    fn owners_recover_together_by_what_each_of_them_demands() {
        let ours = deployment();
        let now = Instant::now();
        let mut collection = Collection::default();
        let mut add = |request| collection.add(&ours.history, request, now);
        let forced = |share| SeedShareRequest {
            force: true,
            ..ours.request(share)
        };

        assert_eq!(missing(add(forced(0))), 1);
        assert_eq!(missing(add(forced(0))), 1, "the same share again");
        let request = complete(add(ours.request(2)));
        assert_eq!(request.seed.expose(), ours.seed.expose());
        assert!(!request.force, "not all of them want that");
        assert_eq!(request.known, [ours.history.head().hash; 2]);
        // The recovery failed, and the second owner thinks again.
        assert!(complete(add(forced(2))).force);
        collection.clear();
        let again = collection.add(&ours.history, ours.request(2), now);
        assert_eq!(missing(again), 1);
    }

    #[test]
    fn wrong_shares_and_salts_are_refused_and_change_nothing() {
        let ours = deployment();
        let now = Instant::now();
        let mut collection = Collection::default();
        let mut add = |request| collection.add(&ours.history, request, now);
        let noise = || SeedShareRequest {
            share: SeedShare::from_bytes(vec![0; 83]),
            ..ours.request(0)
        };
        let salted = |share| SeedShareRequest {
            salt: Salt::from_slice(&[9; 32]).expect("salt"),
            ..ours.request(share)
        };
        for _ in 0..2 {
            // Also before all others: the salt is the document's, not that of the first who comes.
            assert!(matches!(add(salted(1)), Err(StateError::OtherSalt)));
            let error = add(noise()).expect_err("no share");
            assert!(
                matches!(
                    error,
                    StateError::Shares(SharesError::Replaced | SharesError::Unknown { .. })
                ),
                "{error}"
            );
            assert_eq!(missing(add(ours.request(0))), 1);
        }
        complete(add(ours.request(1)));
    }

    #[test]
    fn one_owner_who_makes_up_a_transition_does_not_hinder_enough_others() {
        let ours = deployment();
        let now = Instant::now();
        let mut collection = Collection::default();
        let mut add = |request| collection.add(&ours.history, request, now);
        let made_up = TransitionHash([7; 32]);
        let liar = SeedShareRequest {
            known: Some(made_up),
            ..ours.request(0)
        };
        assert_eq!(missing(add(liar)), 1);
        // Two are enough for the seed, but not for a history that one of them calls rolled back.
        let disputed = complete(add(ours.request(1)));
        assert!(disputed.known.contains(&made_up));
        let request = complete(add(ours.request(2)));
        assert_eq!(request.known, [ours.history.head().hash; 2]);
    }

    #[test]
    fn shares_that_wait_too_long_are_forgotten() {
        let ours = deployment();
        let now = Instant::now();
        let mut collection = Collection::default();
        let mut add = |share, now| collection.add(&ours.history, ours.request(share), now);
        assert_eq!(missing(add(0, now)), 1);
        assert_eq!(missing(add(1, now + PATIENCE)), 1);
        let soon = now + 2 * PATIENCE - Duration::from_secs(1);
        complete(add(2, soon));
    }
}
