//! Seed shares of several owners, until there are enough for a recovery. In memory only.

use std::time::Duration;

use contrast_pki::{
    Salt,
    shares::{Collector, Progress, SeedShare, SeedSharesDocument},
};
use tokio::time::Instant;

use super::{RecoveryRequest, StateError, TransitionHash};

/// How long the first share is kept while the others are missing.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a seed share owner hands in.
#[derive(Debug)]
pub(crate) struct SeedShareRequest {
    /// The share; with threshold 1 the seed itself.
    pub(crate) share: SeedShare,
    /// Salt of the owner's seed shares document.
    pub(crate) salt: Salt,
    /// Latest transition that the owner has seen, if any.
    pub(crate) known: Option<TransitionHash>,
    /// Recover although other replicas answer that know this deployment.
    pub(crate) force: bool,
}

/// What a share made of the collection.
#[derive(Debug)]
pub(crate) enum Collected {
    /// More owners are needed.
    Missing(u32),
    /// What all owners together ask for; the collection is empty again.
    Complete(RecoveryRequest),
}

/// The shares so far.
#[derive(Debug, Default)]
pub(crate) struct Collection(Option<Begun>);

#[derive(Debug)]
struct Begun {
    shares: Collector,
    set: Vec<u8>,
    salt: Salt,
    known: Vec<TransitionHash>,
    /// Whether every owner asked for it: one alone must not override what guards the others.
    force: bool,
    deadline: Instant,
}

impl Collection {
    /// Adds a share of `document`.
    ///
    /// # Errors
    /// When it is none, or came with another salt than those before; those stay.
    pub(crate) fn add(
        &mut self,
        document: &SeedSharesDocument,
        request: SeedShareRequest,
        now: Instant,
    ) -> Result<Collected, StateError> {
        self.expire(now);
        let SeedShareRequest {
            share,
            salt,
            known,
            force,
        } = request;
        let begun = self.0.take().filter(|begun| begun.set == document.set);
        let mut begun = begun.unwrap_or_else(|| Begun {
            shares: Collector::new(document.clone()),
            set: document.set.clone(),
            salt,
            known: Vec::new(),
            force: true,
            deadline: now + PATIENCE,
        });
        let added = match begun.salt == salt {
            true => begun.shares.add(share).map_err(StateError::from),
            false => Err(StateError::OtherSalt),
        };
        let progress = match added {
            Ok(progress) => progress,
            Err(error) => {
                // A wrong first share must not fix the salt and the deadline for the others.
                self.0 = (!begun.shares.is_empty()).then_some(begun);
                return Err(error);
            }
        };
        begun.known.extend(known);
        begun.force &= force;
        match progress {
            Progress::Missing(missing) => {
                self.0 = Some(begun);
                Ok(Collected::Missing(missing))
            }
            Progress::Complete(seed) => Ok(Collected::Complete(RecoveryRequest {
                seed,
                salt,
                known: begun.known,
                force: begun.force,
            })),
        }
    }

    /// Forgets the shares when the others did not come in time.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.0.as_ref().is_some_and(|begun| begun.deadline <= now) {
            tracing::warn!("too few seed shares came in time; those that came are forgotten");
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use contrast_clock::SystemEntropy;
    use contrast_pki::{
        Seed,
        shares::{
            SeedShareOwnerKey, SharesError, decrypt_share, encrypt_seed, generate_owner_key_pem,
        },
    };

    use super::*;

    struct Deployment {
        seed: Seed,
        salt: Salt,
        document: SeedSharesDocument,
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
            document,
        }
    }

    impl Deployment {
        fn request(&self, share: usize, known: u8, force: bool) -> SeedShareRequest {
            SeedShareRequest {
                share: self.shares[share].clone(),
                salt: self.salt,
                known: Some(TransitionHash([known; 32])),
                force,
            }
        }
    }

    #[test]
    fn owners_recover_together_by_what_each_of_them_demands() {
        let ours = deployment();
        let now = Instant::now();
        let mut collection = Collection::default();
        let mut add = |request, now| collection.add(&ours.document, request, now);

        let first = add(ours.request(0, 1, true), now).expect("adds");
        assert!(matches!(first, Collected::Missing(1)));
        let again = add(ours.request(0, 1, true), now).expect("adds");
        assert!(matches!(again, Collected::Missing(1)));
        let mut wrong = ours.request(1, 2, true);
        wrong.share = SeedShare::from_bytes(vec![0; 83]);
        let error = add(wrong, now).expect_err("no share");
        assert!(
            matches!(error, StateError::Shares(SharesError::Unknown { .. })),
            "{error}"
        );
        let mut salted = ours.request(1, 2, true);
        salted.salt = Salt::from_slice(&[9; 32]).expect("salt");
        assert!(matches!(add(salted, now), Err(StateError::OtherSalt)));

        let Collected::Complete(request) = add(ours.request(2, 2, false), now).expect("adds")
        else {
            panic!("two are enough");
        };
        assert_eq!(request.seed.expose(), ours.seed.expose());
        assert!(!request.force, "not all of them want that");
        let known = [1, 1, 2].map(|byte| TransitionHash([byte; 32]));
        assert_eq!(request.known, known);
        // Whatever comes of it, the next recovery begins at the beginning.
        let next = add(ours.request(2, 2, false), now).expect("adds");
        assert!(matches!(next, Collected::Missing(1)));
    }

    #[test]
    fn shares_that_wait_too_long_are_forgotten() {
        let ours = deployment();
        let now = Instant::now();
        let mut collection = Collection::default();
        let mut add =
            |share, now| collection.add(&ours.document, ours.request(share, 1, false), now);
        assert!(matches!(add(0, now), Ok(Collected::Missing(1))));
        assert!(matches!(add(1, now + PATIENCE), Ok(Collected::Missing(1))));
        let soon = now + 2 * PATIENCE - Duration::from_secs(1);
        assert!(matches!(add(2, soon), Ok(Collected::Complete(_))));
    }

    #[test]
    fn a_wrong_first_share_leaves_nothing_behind() {
        let ours = deployment();
        let now = Instant::now();
        let mut collection = Collection::default();
        let mut wrong = ours.request(0, 1, true);
        wrong.share = SeedShare::from_bytes(vec![0; 83]);
        wrong.salt = Salt::from_slice(&[9; 32]).expect("salt");
        collection
            .add(&ours.document, wrong, now)
            .expect_err("no share");
        for (share, complete) in [(0, false), (1, true)] {
            let added = collection.add(&ours.document, ours.request(share, 1, false), now);
            assert_eq!(
                matches!(added, Ok(Collected::Complete(_))),
                complete,
                "{added:?}"
            );
        }
    }
}
