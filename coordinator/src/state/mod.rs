//! The Coordinator's state.
//!
//! Invariants:
//! - Readers take an immutable snapshot ([`Guard::snapshot`]) and never lock; a request works with one snapshot throughout.
//! - [`Guard`] is the only writer. It hears of a change when the log of a quorum has it durably. The history file ([`Store`]) is a second
//!   copy: written before readers see the first change of a process, and within a tick (`replica::Timing::tick`) after later ones.
//! - A [`History`] in memory is always complete and consistent in itself; whether its signatures are right is known only in
//!   [`Phase::Active`], because checking them takes the seed.
//! - Nothing secret goes to the [`Store`].

mod collection;
mod course;
mod deployment;
mod error;
mod guard;
mod history;
mod medium;
mod phase;
pub(crate) mod proposal;
pub(crate) mod recovery;
mod runs;
mod store;
mod transition;
mod unserved;
mod update;
mod volumes;

#[cfg(test)]
pub(crate) mod tests;

pub use collection::{Collected, Collection, SeedShareRequest};
pub use deployment::Deployment;
pub use error::{KeysError, StateError};
pub use guard::{Guard, Observer, Step, UpdateRequest};
pub use history::{History, HistoryError, Link};
pub(crate) use medium::{CopyOnWrite, builder};
pub use medium::{Directory, Fill, Medium};
pub use phase::{Active, Held, Keys, Phase, Sealed};
pub use recovery::RecoveryRequest;
pub use store::{Followed, Records, Store, StoreError, initialise};
pub use transition::{Transition, TransitionFormatError, TransitionHash};
pub use unserved::Unserved;
pub(crate) use update::named;
pub use update::{Approval, ApprovalError, PoliciesError};
pub use volumes::{
    Advance, Advanced, FoundVolumes, Generation, VOLUME_SECRET_ID_BYTES_MAX, VOLUMES_MAX,
    VOLUMES_PER_SECRET_ID_MAX, VolumeId, Volumes, VolumesError,
};
