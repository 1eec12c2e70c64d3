use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Link, TransitionHash};

/// The latest transition that this replica has seen come into force, and the one that it saw in force before.
///
/// Nothing of it is on a disk or comes from another replica: who restarts, joins, recovers or skips a transition does not know when the
/// mesh CA changed, and so keeps none trusted for longer than the latest.
#[derive(Debug)]
pub(super) struct Course {
    head: TransitionHash,
    mesh_ca: Bytes,
    applied: SystemTime,
    /// Public key of the mesh CA before, SubjectPublicKeyInfo DER.
    before: Option<Bytes>,
}

impl Course {
    /// Notes that `head` is in force at `now`, after all that `course` says.
    pub(super) fn follow(course: Option<Self>, head: &Link, now: SystemTime) -> Self {
        match course {
            Some(course) if course.head == head.hash => course,
            course => Self {
                before: course
                    .filter(|course| course.head == head.transition.previous)
                    .map(|course| course.mesh_ca),
                head: head.hash,
                mesh_ca: head.transition.mesh_ca_public_key.clone(),
                applied: now,
            },
        }
    }

    /// Public key of the mesh CA before, and when it was replaced.
    pub(super) fn change(&self) -> Option<(&Bytes, SystemTime)> {
        self.before.as_ref().map(|before| (before, self.applied))
    }
}

/// The mesh CA that the latest one replaced.
#[derive(Debug)]
pub(crate) struct PreviousCa {
    pub(crate) self_signed_pem: String,
    /// When it was replaced, as early as this replica knows of it.
    pub(crate) replaced: SystemTime,
}

impl PreviousCa {
    /// How long it stays trusted from `now` on, when it does so for `overlap` in all. A clock that was set back to before the change ends it,
    /// for nobody knows then how much of the time has passed. One that was set back less is not noticed.
    pub(crate) fn trusted_for(&self, overlap: Duration, now: SystemTime) -> Option<Duration> {
        let passed = now.duration_since(self.replaced).ok()?;
        let left = overlap.checked_sub(passed)?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_ends_with_the_overlap_and_with_a_clock_that_was_set_back() {
        let replaced = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let previous = PreviousCa {
            self_signed_pem: String::new(),
            replaced,
        };
        let overlap = Duration::from_secs(600);
        let left = |now| previous.trusted_for(overlap, now);
        let second = Duration::from_secs(1);
        assert_eq!(left(replaced), Some(overlap));
        assert_eq!(left(replaced + 599 * second), Some(second));
        assert_eq!(left(replaced + 600 * second), None);
        assert_eq!(left(replaced + 601 * second), None);
        assert_eq!(left(replaced - second), None);
        assert_eq!(previous.trusted_for(Duration::ZERO, replaced), None);
    }
}
