//! Workloads: their Initializers in namespaces of their own, killed and come back.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use contrast_e2e::harness::{Cluster, Pod, PodSpec};
use x509_cert::Certificate;

use crate::ledger::{Ledger, now_ms};

pub(crate) const INITIALIZER: &str = "contrast-initializer";
/// Name by which workloads find a Coordinator that serves, as the chart has it.
pub(crate) const COORDINATOR: &str = "coordinator-ready.votes.svc:7777";
/// A certificate of a new mesh CA is presented only when half of the overlap is over.
const PRESENTED_MS: u64 = 4000;
const CHAIN: &str = "tls-config/certChain.pem";

pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) policy: String,
    spec: PodSpec,
    pod: Pod,
    alone: bool,
    /// Since when it waits for its first certificate.
    joining: Option<Instant>,
    /// When its files were looked at.
    looked: Instant,
}

/// What an Initializer reports about itself.
#[derive(Debug, Default, Clone, Copy)]
struct Report {
    enrolments: u64,
    failures: u64,
}

impl Workload {
    /// Only the Initializer.
    pub(crate) fn alone(cluster: &Cluster, spec: &PodSpec) -> Self {
        let pod = cluster.start_initializer_at(spec, COORDINATOR);
        Self::new(spec, pod.expect("starts"), true)
    }

    /// With service mesh and application, all ready.
    pub(crate) fn whole(cluster: &Cluster, spec: &PodSpec) -> Self {
        let pod = cluster.start_pod_at(spec, COORDINATOR);
        Self::new(spec, pod.expect("starts"), false)
    }

    fn new(spec: &PodSpec, pod: Pod, alone: bool) -> Self {
        Self {
            name: spec.name.clone(),
            policy: spec.policy_hash(),
            spec: spec.clone(),
            pod,
            alone,
            joining: Some(Instant::now()),
            looked: Instant::now(),
        }
    }

    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Whether there is no more in its pod than the Initializer.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    pub(crate) fn chain(&self) -> Option<String> {
        fs::read_to_string(self.pod.file(CHAIN)).ok()
    }

    fn report(&self) -> Report {
        let text = fs::read_to_string(self.pod.file("enrolment")).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
                .unwrap_or(0)
        };
        Report {
            enrolments: field("enrolments "),
            failures: field("failures "),
        }
    }

    /// Writes down which certificate it presents, and whether it has its first one.
    pub(crate) fn look(&mut self, ledger: &Ledger) {
        // Who looks may have been busy with a failure in between.
        let since = std::mem::replace(&mut self.looked, Instant::now()).elapsed();
        let late_ms = PRESENTED_MS + milliseconds(since);
        if let Some((serial, ends_ms)) = self.chain().and_then(|chain| leaf(&chain)) {
            let valid = self.is_joining() || now_ms() < ends_ms;
            ledger.require(valid, || {
                format!("the certificate of {} has ended", self.name)
            });
            ledger.received(&self.policy, serial, late_ms);
        }
        if let Some(since) = self.joining
            && self.report().enrolments > 0
        {
            self.joining = None;
            let took = milliseconds(since.elapsed());
            ledger.note(|facts| facts.joins_ms.push(took));
        }
    }

    pub(crate) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// Ends the Initializer with SIGKILL, and writes down what it had until then.
    pub(crate) fn kill(&mut self, ledger: &Ledger) {
        self.pod
            .container(INITIALIZER)
            .and_then(|process| process.kill())
            .expect("is killed");
        self.look(ledger);
        let report = self.report();
        ledger.note(|facts| {
            let enrolled = facts.enrolled.entry(self.policy.clone()).or_default();
            enrolled.received += report.enrolments;
            // It may have been asking when it was killed.
            enrolled.unknown += report.failures + 1;
        });
        let _ = fs::remove_file(self.pod.file("enrolment"));
    }

    /// Comes back: the container in the same pod, or, where it is alone, another pod without the files of this one.
    pub(crate) fn come_back(&mut self, cluster: &Cluster, another: bool) {
        if another {
            fs::remove_dir_all(self.pod.file("")).expect("its files go");
            let site = self.pod.site().clone();
            let pod = cluster.start_initializer_in(&self.spec, site, COORDINATOR);
            self.pod = pod.expect("starts");
        } else {
            cluster
                .restart_container(&mut self.pod, &self.spec, INITIALIZER, COORDINATOR)
                .expect("starts again");
        }
        self.joining = Some(Instant::now());
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Serial number of a chain's leaf, as the audit stream writes it, and when it ends, milliseconds since 1970.
pub(crate) fn leaf(chain: &str) -> Option<(String, u64)> {
    let chain = Certificate::load_pem_chain(chain.as_bytes()).ok()?;
    let leaf = chain.first()?.tbs_certificate();
    let end = leaf.validity().not_after.to_unix_duration();
    let serial = hex::encode(leaf.serial_number().as_bytes());
    Some((serial, u64::try_from(end.as_millis()).ok()?))
}

/// Everything that workloads have on disk.
pub(crate) fn await_all(
    workloads: &mut [Workload],
    ledger: &Ledger,
    deadline: Duration,
    what: &str,
    holds: impl Fn(&Workload) -> bool,
) {
    let start = Instant::now();
    loop {
        for workload in &mut *workloads {
            workload.look(ledger);
        }
        let missing: Vec<&str> = workloads
            .iter()
            .filter(|workload| !holds(workload))
            .map(|workload| workload.name.as_str())
            .collect();
        if missing.is_empty() {
            return;
        }
        if start.elapsed() > deadline {
            ledger.wrong(format!(
                "after {deadline:?} without {what}: {missing:?} ({})",
                now_ms()
            ));
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a chain is valid now under the mesh CA in `ca`.
pub(crate) fn is_valid_under(chain: &str, ca: &Path) -> bool {
    use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
    use tokio_rustls::rustls::{RootCertStore, server::WebPkiClientVerifier};
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).expect("the mesh CA") {
        roots.add(certificate.expect("PEM")).expect("a CA");
    }
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let Ok([leaf, others @ ..]) = chain.as_deref() else {
        return false;
    };
    let verifier = WebPkiClientVerifier::builder(roots.into()).build();
    let verifier = verifier.expect("a verifier");
    verifier
        .verify_client_cert(leaf, others, UnixTime::now())
        .is_ok()
}
