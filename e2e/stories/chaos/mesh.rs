//! Somebody who uses the sample application through the mesh all the time.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use contrast_e2e::harness::MeshClient;

use crate::{
    ledger::Ledger,
    probe::{Worker, pause},
};

const PERIOD: Duration = Duration::from_millis(400);

/// What the user met.
#[derive(Debug, Default)]
pub(crate) struct Used {
    pub(crate) answers: u64,
    pub(crate) failures: u64,
    pub(crate) longest_outage: Duration,
    /// Why the latest failure was one.
    pub(crate) why: String,
    /// Whether the latest question was answered.
    pub(crate) works: bool,
}

/// Asks `web` for the results, which asks `api`, which asks `store`.
pub(crate) fn browse(client: MeshClient, web: SocketAddr, ledger: Ledger) -> Worker<Used> {
    Worker::start(move |stop| {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let mut used = Used::default();
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let answer = runtime.block_on(client.request(web, "web", "GET", "/results"));
            let answer = answer.unwrap_or_else(|error| format!("{error:#}"));
            used.works = answer.starts_with("HTTP/1.1 200");
            if used.works {
                used.answers += 1;
                used.longest_outage = used.longest_outage.max(last.elapsed());
                last = Instant::now();
            } else {
                used.failures += 1;
                used.why = answer.replace("\r\n", " ");
                ledger.happened(format!("no answer through the mesh: {}", used.why));
            }
            pause(stop, PERIOD);
        }
        used.longest_outage = used.longest_outage.max(last.elapsed());
        used
    })
}
