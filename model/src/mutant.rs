//! Rules that are wrong, each in one way.

/// A wrong rule. The exhaustive check finds a counterexample to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A restarted replica takes its identity, vote and log back from its disk, whatever anyone remembers.
    ResumeFromDisk,
    /// It does so when one survivor, which sees no quorum, remembers nothing newer: votes and entries.
    ResumeBySurvivor,
    /// It does so only when really less than a quorum lives, and all survivors are asked.
    ResumeBelowQuorum,
    /// As before, but survivors remember entries only.
    ResumeBelowQuorumWithoutVotes,
    /// The vote and the acknowledgements of a fresh identity count for the identity that its place had before.
    CountByPlace,
    /// The next membership replaces the former one without a joint one between them.
    ChangeWithoutJoint,
    /// A running replica does not remember for whom it voted in its term.
    ForgetVote,
    /// A recovery takes any history with the seed's signature.
    RecoverWithoutGuard,
    /// A recovery compares the number of transitions with the guard's, not the transitions.
    GuardByLength,
    /// Owners recover while replicas run that take no part in it.
    RecoverBesideSurvivors,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ResumeFromDisk,
        Self::ResumeBySurvivor,
        Self::ResumeBelowQuorum,
        Self::ResumeBelowQuorumWithoutVotes,
        Self::CountByPlace,
        Self::ChangeWithoutJoint,
        Self::ForgetVote,
        Self::RecoverWithoutGuard,
        Self::GuardByLength,
        Self::RecoverBesideSurvivors,
    ];

    /// Bounds within which it fails.
    #[cfg(feature = "mutants")]
    pub fn bounds(self) -> crate::Bounds {
        let restarts = match self {
            Self::ResumeBelowQuorum | Self::ResumeBelowQuorumWithoutVotes => 2,
            _ => 1,
        };
        crate::Bounds {
            replicas: 3,
            restarts,
            clones: 0,
            transitions: 2,
            terms: 2,
        }
    }

    /// The invariant that it breaks.
    #[cfg(feature = "mutants")]
    pub fn breaks(self) -> &'static str {
        let [one_history, none_lost, one_leader, guarded] = crate::ALWAYS;
        match self {
            Self::ResumeFromDisk
            | Self::ResumeBySurvivor
            | Self::ResumeBelowQuorum
            | Self::CountByPlace => none_lost,
            Self::ResumeBelowQuorumWithoutVotes | Self::ForgetVote => one_leader,
            Self::ChangeWithoutJoint | Self::RecoverBesideSurvivors => one_history,
            Self::RecoverWithoutGuard | Self::GuardByLength => guarded,
        }
    }

    /// Whether a restarted replica may take an identity back from a disk.
    pub(crate) fn resumes(self) -> bool {
        matches!(
            self,
            Self::ResumeFromDisk
                | Self::ResumeBySurvivor
                | Self::ResumeBelowQuorum
                | Self::ResumeBelowQuorumWithoutVotes
        )
    }
}
