//! A hint that the state changed, for many that wait for it.
//!
//! It costs no round among the replicas: what a pod does with it is to ask for a certificate, which a quorum confirms. A replica that lags
//! tells late, and one that is cut off must say so, or its pods would wait for what it cannot learn: it tells nothing when its last
//! confirmation is older than what it may issue certificates under ([`Timing::confirmation_bound`](super::Timing::confirmation_bound)).

use std::{sync::Arc, time::Duration};

use openraft::type_config::TypeConfigExt;

use super::Replica;
use crate::{
    cluster::ClusterTypes,
    state::{Active, StateError, TransitionHash},
};

impl<C: ClusterTypes> Replica<C> {
    /// The active transition as soon as it is another than `known`, or whatever it is after `within`.
    ///
    /// # Errors
    /// When there is no active state, or this replica is cut off; at the latest after `within`.
    pub async fn next_transition(
        &self,
        known: Option<TransitionHash>,
        within: Duration,
    ) -> Result<TransitionHash, StateError> {
        let mut changes = self.guard.changes();
        let news = async {
            loop {
                match self.recent().await {
                    Ok(active) if known == Some(active.transition()) => {}
                    // Between two transitions, while the key of the later one is on its way.
                    Err(StateError::Held(_)) => {}
                    outcome => return outcome,
                }
                if changes.changed().await.is_err() {
                    return self.recent().await;
                }
            }
        };
        let outcome = match C::timeout(within, news).await {
            Ok(outcome) => outcome,
            Err(_) => self.recent().await,
        };
        outcome.map(|active| active.transition())
    }

    /// The state, confirmed a moment ago; asks for a confirmation only when the duties of this replica lack one.
    async fn recent(&self) -> Result<Arc<Active>, StateError> {
        let life = self.member()?;
        if self.check_bound(&life).is_err() {
            self.confirm(&life).await.map_err(StateError::NoQuorum)?;
        }
        self.active()
    }
}
