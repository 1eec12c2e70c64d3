//! The Coordinator's state.
//!
//! Invariants:
//! - Readers take an immutable snapshot ([`Guard::snapshot`]) and never lock; a request works with one snapshot throughout.
//! - [`Guard`] is the only writer. It makes a change durable ([`Store`]) before readers can see it.
//! - A [`History`] in memory is always complete and consistent in itself; whether its signatures are right is known only in
//!   [`Phase::Active`], because checking them takes the seed.
//! - Nothing secret goes to the [`Store`].

mod error;
mod guard;
mod history;
mod medium;
mod phase;
mod recovery;
mod store;
mod transition;
mod update;

#[cfg(test)]
pub(crate) mod tests;

pub use error::{KeysError, StateError};
pub use guard::{Guard, Observer, Step, UpdateRequest};
pub use history::{History, HistoryError, Link};
pub(crate) use medium::{CopyOnWrite, builder};
pub use medium::{Directory, Medium};
pub use phase::{Active, Keys, Phase, Sealed};
pub use recovery::RecoveryRequest;
pub use store::{Commit, Founding, Records, Store, StoreError, initialise};
pub use transition::{Transition, TransitionFormatError, TransitionHash};
pub(crate) use update::named;
pub use update::{Approval, ApprovalError, PoliciesError};
