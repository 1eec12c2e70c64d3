//! What a cluster does beside: it leads `coordinator-ready` to the replicas that are ready; and a pod that asks for a certificate again and
//! again, so that the longest time without one is known.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use contrast_e2e::{
    harness::{Cluster, get},
    load::{Connection, Deployment, Refusal},
};

use crate::{ledger::Ledger, workload::leaf};

const PROBE_PERIOD: Duration = Duration::from_millis(250);
const ASK_PERIOD: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(8);
/// Of somebody who asks for metrics.
pub(crate) const PATIENCE_OF_USERS: Duration = Duration::from_secs(5);

/// Numbers of the replicas that are ready.
pub(crate) type Ready = Arc<Mutex<Vec<usize>>>;

/// A thread that works until it is dropped.
pub(crate) struct Worker<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    pub(crate) fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Self {
            stop,
            thread: Some(spawn(move || work(&told))),
        }
    }

    pub(crate) fn finish(mut self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("runs");
        thread.join().expect("no panic")
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits, but not beyond the end.
pub(crate) fn pause(stop: &AtomicBool, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time && !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20).min(time));
    }
}

/// Endpoints of the service `coordinator-ready`. Who asks for the name gets them in another order each time they change places.
pub(crate) fn lead_to_ready(
    cluster: Arc<Cluster>,
    replicas: Vec<(IpAddr, SocketAddr)>,
) -> (Worker<()>, Ready) {
    let ready = Ready::default();
    let known = Arc::clone(&ready);
    let worker = Worker::start(move |stop| {
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            let serves = |ops: SocketAddr| {
                get(ops, "/probe/readiness", Duration::from_secs(1))
                    .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
            };
            let mut found: Vec<usize> = (0..replicas.len())
                .filter(|replica| serves(replicas[*replica].1))
                .collect();
            turn += 1;
            let first = turn % found.len().max(1);
            found.rotate_left(first);
            let addresses = found.iter().map(|replica| replicas[*replica].0).collect();
            cluster.lead("coordinator-ready", addresses);
            *known.lock().unwrap_or_else(PoisonError::into_inner) = found;
            pause(stop, PROBE_PERIOD);
        }
    });
    (worker, ready)
}

/// What the asking pod met.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) issued: u64,
    pub(crate) failed: u64,
    pub(crate) longest_outage: Duration,
}

/// Asks for certificates of `policy`, which `deployment` proves, at whoever is ready.
pub(crate) fn ask(
    deployment: Deployment,
    policy: String,
    ready: Ready,
    ledger: Ledger,
) -> Worker<Asked> {
    Worker::start(move |stop| {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let connect =
            |apis: &_| Connection::new(*apis, &deployment.coordinators, &deployment.workload);
        let mut connections: Vec<Connection> = deployment.replicas.iter().map(connect).collect();
        let mut asked = Asked::default();
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let order = ready.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for replica in order {
                match runtime.block_on(connections[replica].certificate()) {
                    Ok(answer) => {
                        let (serial, _) = leaf(&answer.certificate_chain).expect("a certificate");
                        ledger.received(&policy, serial, 0);
                        ledger.note(|facts| {
                            facts.enrolled.entry(policy.clone()).or_default().received += 1;
                        });
                        asked.issued += 1;
                        asked.longest_outage = asked.longest_outage.max(last.elapsed());
                        last = Instant::now();
                        break;
                    }
                    Err(refusal) => {
                        asked.failed += 1;
                        note_failure(&refusal, replica, &policy, &ledger);
                    }
                }
            }
            pause(stop, ASK_PERIOD);
        }
        asked.longest_outage = asked.longest_outage.max(last.elapsed());
        ledger.require(last.elapsed() < PATIENCE, || {
            format!("no certificate for {:?} at the end", last.elapsed())
        });
        asked
    })
}

fn note_failure(refusal: &Refusal, replica: usize, policy: &str, ledger: &Ledger) {
    match refusal {
        Refusal::NoConnection(_) => {}
        Refusal::Evidence(why) => {
            ledger.wrong(format!("evidence of replica {replica} is refused: {why}"));
        }
        // The answer is lost: there may be a certificate.
        Refusal::NoAnswer(_) => ledger.note(|facts| {
            facts.enrolled.entry(policy.to_owned()).or_default().unknown += 1;
        }),
        Refusal::Status { code, .. } if *code == tonic::Code::Unavailable => {}
        Refusal::Status { reason, .. }
            if reason == "RECOVERY_NEEDED" || reason == "NO_MANIFEST" => {}
        status @ Refusal::Status { .. } => {
            ledger.wrong(format!("replica {replica} refuses a workload: {status}"));
        }
    }
}
