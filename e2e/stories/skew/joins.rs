//! Workloads that join all the time, so that an upgrade shows how long nobody could.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use contrast_e2e::load::{Connection, Deployment};

const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Joins {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Joined>,
}

/// What became of them.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) count: u32,
    pub(crate) longest_gap: Duration,
}

impl Joins {
    /// A pod that asks one replica, and the next one when it gets no certificate.
    pub(crate) fn begin(deployment: Deployment) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = spawn({
            let stop = Arc::clone(&stop);
            move || join_until(&deployment, &stop)
        });
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> Joined {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("joins")
    }
}

fn join_until(deployment: &Deployment, stop: &AtomicBool) -> Joined {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let connect = |apis: &_| Connection::new(*apis, &deployment.coordinators, &deployment.workload);
    let mut replicas: Vec<Connection> = deployment.replicas.iter().map(connect).collect();
    let (mut asked, mut count) = (0, 0);
    let (mut last, mut longest_gap) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let replica = &mut replicas[asked];
        match runtime.block_on(replica.certificate()) {
            Ok(_) => {
                count += 1;
                longest_gap = longest_gap.max(last.elapsed());
                last = Instant::now();
                sleep(PAUSE);
            }
            Err(_) => {
                replica.reset();
                asked = (asked + 1) % replicas.len();
                sleep(PAUSE / 5);
            }
        }
    }
    Joined {
        count,
        longest_gap: longest_gap.max(last.elapsed()),
    }
}
