//! How much of the engine's memory and time all requests have together, and how much those of one workload.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{failure::Failure, handler::BODY_BYTES_MAX};

/// Limits; whatever is above waits.
struct Limits {
    /// Requests at the same time, until their answers are sent.
    requests: usize,
    /// Bytes of bodies that are read or worked on.
    bytes: usize,
    /// Requests at the same time that work for longer than a moment.
    long: usize,
}

const ALL: Limits = Limits {
    requests: 256,
    bytes: 32 * BODY_BYTES_MAX,
    long: 4,
};

/// Of one workload: small enough that a few of them do not use up [`ALL`].
const ONE: Limits = Limits {
    requests: 16,
    bytes: 4 * BODY_BYTES_MAX,
    long: 2,
};

/// What is left of some limits.
#[derive(Debug)]
pub(super) struct Share {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Share {
    fn new(limits: &Limits) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            requests: semaphore(limits.requests),
            bytes: semaphore(limits.bytes),
            long: semaphore(limits.long),
        }
    }
}

/// Parts of a workload's share and of everybody's; given back when dropped.
#[derive(Debug)]
#[must_use = "it is given back when dropped"]
pub(super) struct Permit {
    _parts: [Option<OwnedSemaphorePermit>; 2],
}

/// The shares of all workloads that are connected.
#[derive(Debug)]
pub(super) struct Shares {
    all: Share,
    /// By workload secret id; that of members without one, who have no key, is empty. Not longer than there are connections.
    by_id: Mutex<HashMap<String, Weak<Share>>>,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self {
            all: Share::new(&ALL),
            by_id: Mutex::default(),
        }
    }

    /// The share of a workload, for as long as one of its connections keeps it.
    pub(super) fn of(&self, id: Option<&str>) -> Arc<Share> {
        let id = id.unwrap_or_default();
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = by_id.get(id).and_then(Weak::upgrade) {
            return share;
        }
        by_id.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share::new(&ONE));
        by_id.insert(id.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Waits until one more request may be worked on.
    pub(super) async fn request(&self, own: &Share) -> Permit {
        take([&own.requests, &self.all.requests], 1).await
    }

    /// Waits until a body of `length` bytes may be read; more than [`BODY_BYTES_MAX`], or a length that is not known, is as that.
    pub(super) async fn body(&self, own: &Share, length: Option<u64>) -> Permit {
        let length = length.and_then(|length| usize::try_from(length).ok());
        let length = length.map_or(BODY_BYTES_MAX, |length| length.min(BODY_BYTES_MAX));
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        take([&own.bytes, &self.all.bytes], length).await
    }

    /// Runs what takes long where it hinders no other task. It runs to its end, and keeps `body`, also when the caller has gone.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        own: &Share,
        body: Permit,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = take([&own.long, &self.all.long], 1).await;
        let made = spawn_blocking(move || {
            let _held = (permit, body);
            work()
        });
        made.await
            .map_err(|error| Failure::internal("long request", error))?
    }
}

/// The own part first: who has used it up waits in no other's way.
async fn take(semaphores: [&Arc<Semaphore>; 2], count: u32) -> Permit {
    let [own, all] = semaphores.map(|semaphore| Arc::clone(semaphore).acquire_many_owned(count));
    // Nobody closes them.
    let own = own.await.ok();
    Permit {
        _parts: [own, all.await.ok()],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::{FutureExt as _, future::join};

    use super::*;

    const LENGTH: Option<u64> = Some(1024 * 1024);

    #[test]
    fn one_workload_uses_up_its_own_share_only() {
        let shares = Shares::new();
        let (one, other) = (shares.of(Some("one")), shares.of(Some("other")));
        let request = |own: &Arc<Share>| shares.request(own).now_or_never();
        let body = |own: &Arc<Share>, length| shares.body(own, length).now_or_never();
        let requests: Vec<_> = (0..ONE.requests).map_while(|_| request(&one)).collect();
        assert_eq!(requests.len(), ONE.requests);
        assert!(request(&shares.of(Some("one"))).is_none());
        assert!(request(&other).is_some());
        drop(requests);
        assert!(request(&one).is_some());

        let bodies: Vec<_> = (0..100).map_while(|_| body(&one, LENGTH)).collect();
        assert_eq!(bodies.len(), 4);
        assert!(body(&one, Some(1)).is_none());
        assert!(body(&one, Some(0)).is_some());
        assert!(body(&other, None).is_some());
    }

    #[test]
    fn bodies_of_all_workloads_have_a_limit() {
        let shares = Shares::new();
        let ids = (0..20).map(|number| shares.of(Some(&number.to_string())));
        let ids: Vec<_> = ids.collect();
        // Of unknown length, or longer than any may be.
        for length in [None, Some(u64::MAX)] {
            let bodies = ids
                .iter()
                .flat_map(|own| (0..4).map_while(|_| shares.body(own, length).now_or_never()));
            assert_eq!(bodies.collect::<Vec<_>>().len(), 32);
        }
        assert!(shares.body(&ids[0], None).now_or_never().is_some());
    }

    #[test]
    fn shares_of_who_is_gone_are_forgotten() {
        let shares = Shares::new();
        for number in 0..10 {
            drop(shares.of(Some(&number.to_string())));
        }
        assert_eq!(shares.by_id.lock().expect("a map").len(), 1);
    }

    /// On one thread: work that ran on it would wait for ever.
    #[tokio::test]
    async fn long_work_hinders_no_other_task_and_not_more_than_two_of_one_workload_run() {
        let shares = Shares::new();
        let (one, other) = (shares.of(Some("one")), shares.of(Some("other")));
        let (ends, waits): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel::<()>()).unzip();
        let mut running: Vec<_> = Vec::new();
        for wait in waits {
            let body = shares.body(&one, LENGTH).await;
            let work = move || Ok(wait.recv());
            let mut work = Box::pin(shares.apart(&one, body, work));
            assert!((&mut work).now_or_never().is_none());
            running.push(work);
        }
        let body = shares.body(&one, LENGTH).await;
        let mut third = Box::pin(shares.apart(&one, body, || Ok(())));
        assert!((&mut third).now_or_never().is_none());
        let body = shares.body(&other, LENGTH).await;
        let ran = shares.apart(&other, body, || Ok(7)).await;
        assert_eq!(ran.expect("runs"), 7);
        assert!((&mut third).now_or_never().is_none(), "two are running");
        for end in ends {
            end.send(()).expect("is waited for");
        }
        let second = running.pop().expect("two");
        let first = running.pop().expect("two");
        let (first, second) = join(first, second).await;
        first.expect("runs").expect("is told");
        second.expect("runs").expect("is told");
        third.await.expect("runs");
    }
}
