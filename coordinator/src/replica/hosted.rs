use std::{fmt, ops::Deref, sync::Arc};

use contrast_pki::{Salt, Seed};
use tokio::runtime::Handle;

use super::{Replica, message::SetReceipt};
use crate::{
    cluster::TypeConfig,
    state::{Advance, Advanced, RecoveryRequest, StateError, TransitionHash, UpdateRequest},
};

/// A replica on a runtime of its own, so that busy APIs do not delay heartbeats.
///
/// What changes something runs there to its end, even when the caller goes away.
#[derive(Clone)]
pub struct Hosted {
    replica: Arc<Replica<TypeConfig>>,
    runtime: Handle,
}

impl Hosted {
    /// Runs changes of `replica` on `runtime`.
    pub fn new(replica: Arc<Replica<TypeConfig>>, runtime: Handle) -> Self {
        Self { replica, runtime }
    }

    /// The replica.
    pub fn replica(&self) -> &Arc<Replica<TypeConfig>> {
        &self.replica
    }

    /// As [`Replica::set_manifest`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_manifest(&self, request: UpdateRequest) -> Result<SetReceipt, StateError> {
        let replica = Arc::clone(&self.replica);
        let change = async move { replica.set_manifest(request).await };
        let changed = self.runtime.spawn(change).await;
        changed.unwrap_or(Err(StateError::Panicked))
    }

    /// As [`Replica::import`].
    ///
    /// # Errors
    /// As there.
    pub async fn import(
        &self,
        request: UpdateRequest,
        seed: Arc<Seed>,
        salt: Arc<Salt>,
    ) -> Result<SetReceipt, StateError> {
        let replica = Arc::clone(&self.replica);
        let change = async move { replica.import(request, seed, salt).await };
        let changed = self.runtime.spawn(change).await;
        changed.unwrap_or(Err(StateError::Panicked))
    }

    /// As [`Replica::advance_volume`].
    ///
    /// # Errors
    /// As there.
    pub async fn advance_volume(&self, advance: Advance) -> Result<Advanced, StateError> {
        let replica = Arc::clone(&self.replica);
        let change = async move { replica.advance_volume(advance).await };
        let changed = self.runtime.spawn(change).await;
        changed.unwrap_or(Err(StateError::Panicked))
    }

    /// As [`Replica::recover`].
    ///
    /// # Errors
    /// As there.
    pub async fn recover(&self, request: RecoveryRequest) -> Result<TransitionHash, StateError> {
        let replica = Arc::clone(&self.replica);
        let change = async move { replica.recover(request).await };
        let changed = self.runtime.spawn(change).await;
        changed.unwrap_or(Err(StateError::Panicked))
    }
}

impl Deref for Hosted {
    type Target = Replica<TypeConfig>;

    fn deref(&self) -> &Self::Target {
        &self.replica
    }
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.replica.fmt(f)
    }
}
