use std::{net::SocketAddr, sync::Arc};

use contrast_clock::WallClock;
use contrast_telemetry::{drain::Watcher, tasks::Tasks};
use tokio::net::TcpListener;

use crate::{
    config::Config,
    ops::Metrics,
    replica::Hosted,
    transit::{self, TransitService},
};

/// What is bound, its address, and the variable that changes it.
pub(super) fn port(config: &Config) -> (&'static str, SocketAddr, &'static str) {
    (
        "transit API",
        config.transit_api_address,
        "CONTRAST_TRANSIT_API_ADDRESS",
    )
}

/// The transit engine, bound but not served yet.
pub(super) struct TransitApi(pub(super) TcpListener);

impl TransitApi {
    /// Serves as one of `apis` until `drain`.
    pub(super) fn spawn(
        self,
        apis: &mut Tasks,
        (replica, clock): (&Hosted, &Arc<dyn WallClock>),
        metrics: &Arc<Metrics>,
        drain: &Watcher,
    ) {
        let service = TransitService::new(replica.clone(), Arc::clone(clock), Arc::clone(metrics));
        let serving = transit::serve(self.0, service, drain.clone());
        apis.spawn("transit API", serving);
    }
}
