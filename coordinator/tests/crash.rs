//! The process dies at every step of `set`; a restart finds the old or the new manifest, never neither.
//!
//! The test runs its own program again as a child with [`CHILD`] set: the child is a Coordinator that aborts at the step of
//! that name. The parent talks to it like any client.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::Parser;
use contrast_attestation::software::SoftwareTee;
use contrast_clock::{SystemEntropy, SystemWallClock};
use contrast_collateral::Collateral;
use contrast_coordinator::{
    app::{Bound, Surroundings},
    cluster::LogFile,
    config::Config,
    state::{Directory, Observer, Step},
};
use contrast_proto::user::{GetManifestsRequest, GetSeedSharesRequest};
use support::{COORDINATOR_INITDATA, Deployment, Process, policy_hash, user_client};
use tokio::runtime::Runtime;

/// `<step>:<changes that survive>`, for example `Committed:1`.
const CHILD: &str = "CONTRAST_TEST_CRASH";
const DIRECTORY: &str = "CONTRAST_TEST_DIRECTORY";

const STEPS: [Step; 5] = [
    Step::BeforeWrite,
    Step::InTransaction,
    Step::BeforeCommit,
    Step::Committed,
    Step::BeforeAnswer,
];

/// Not a test of its own: the child's half. Without [`CHILD`] it has nothing to do.
#[test]
fn child() {
    let Ok(crash) = std::env::var(CHILD) else {
        return;
    };
    let directory = std::path::PathBuf::from(std::env::var_os(DIRECTORY).expect("set"));
    let (step, survive) = crash.split_once(':').expect("step and number");
    let step = STEPS.into_iter().find(|known| format!("{known:?}") == step);
    let survive: usize = survive.parse().expect("number");
    let reached = AtomicUsize::new(0);
    let observer = Observer::new(move |now| {
        if Some(now) == step && reached.fetch_add(1, Ordering::SeqCst) == survive {
            std::process::abort();
        }
    });
    let tee = SoftwareTee::open(&directory.join("tee")).expect("opens");
    let config = Config::parse_from([
        "coordinator",
        "--user-api-address=127.0.0.1:0",
        "--mesh-api-address=127.0.0.1:0",
        "--attest-api-address=127.0.0.1:0",
        "--transit-api-address=127.0.0.1:0",
        "--ops-address=127.0.0.1:0",
        "--address-file",
        directory.join("addresses.json").to_str().expect("UTF-8"),
    ]);
    let claimed = Directory::claim(&directory).expect("claims");
    let surroundings = Surroundings {
        log: Box::new(LogFile::new(&claimed)),
        issuer: Arc::new(tee.snp_guest(policy_hash(COORDINATOR_INITDATA))),
        collateral: Collateral::offline(),
        medium: Box::new(claimed),
        clock: Arc::new(SystemWallClock),
        entropy: Arc::new(SystemEntropy),
        observer,
    };
    Runtime::new().expect("runtime").block_on(async {
        let bound = Bound::bind(&config, surroundings).await.expect("binds");
        bound.run(std::future::pending()).await.expect("serves");
    });
}

/// Starts the child; `step` `None` never crashes.
fn start(deployment: &Deployment, step: Option<Step>, survive: usize) -> Process {
    // Makes the software TEE's directory.
    drop(deployment.command());
    let _ = std::fs::remove_file(deployment.address_file());
    let step = step.map_or_else(|| "never".to_owned(), |step| format!("{step:?}"));
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, format!("{step}:{survive}"))
        .env(DIRECTORY, deployment.data.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process::spawn(command)
}

#[tokio::test]
async fn crash_at_every_step_of_the_first_set_leaves_nothing_or_a_recoverable_deployment() {
    for step in STEPS {
        let deployment = Deployment::new();
        let manifest = deployment.manifest("web");
        {
            let mut process = start(&deployment, Some(step), 0);
            let address = process.addresses(&deployment.address_file())["user_api"];
            let mut client = user_client(address, &manifest).await;
            client
                .set_manifest(deployment.request(&manifest, &[]))
                .await
                .expect_err("crashes");
            assert!(!process.0.wait().expect("waits").success());
        }
        let mut process = start(&deployment, None, 0);
        let address = process.addresses(&deployment.address_file())["user_api"];
        let mut client = user_client(address, &manifest).await;
        let durable = matches!(step, Step::Committed | Step::BeforeAnswer);
        match client.get_seed_shares(GetSeedSharesRequest {}).await {
            Ok(shares) => {
                assert!(durable, "{step:?}");
                let request = deployment.recover_request(&shares.into_inner(), &[]);
                client.recover(request).await.expect("recovers");
            }
            Err(_) => {
                assert!(!durable, "{step:?}");
                client
                    .set_manifest(deployment.request(&manifest, &[]))
                    .await
                    .expect("sets");
            }
        }
        let history = client
            .get_manifests(GetManifestsRequest {})
            .await
            .expect("serves")
            .into_inner();
        assert_eq!(history.manifests, [manifest.bytes()], "{step:?}");
    }
}

#[tokio::test]
async fn crash_at_every_step_of_writing_an_update_loses_nothing_that_the_log_has() {
    for step in STEPS {
        let deployment = Deployment::new();
        let (old, new) = (deployment.manifest("old"), deployment.manifest("new"));
        let set = {
            let mut process = start(&deployment, Some(step), 1);
            let address = process.addresses(&deployment.address_file())["user_api"];
            let mut client = user_client(address, &old).await;
            let set = client
                .set_manifest(deployment.request(&old, &[]))
                .await
                .expect("sets")
                .into_inner();
            let update = deployment.request(&new, &set.transition);
            // The history is written after the answer, if the answer comes first.
            let answered = client.set_manifest(update).await.is_ok();
            assert!(!answered || step != Step::BeforeAnswer);
            assert!(!process.0.wait().expect("waits").success());
            set
        };
        let mut process = start(&deployment, None, 0);
        let address = process.addresses(&deployment.address_file())["user_api"];
        let mut client = user_client(address, &old).await;
        let shares = set.seed_shares.expect("first");
        let request = deployment.recover_request(&shares, &set.transition);
        // Recovery checks every signature of the chain.
        client.recover(request).await.expect("recovers");
        let history = client
            .get_manifests(GetManifestsRequest {})
            .await
            .expect("serves")
            .into_inner();
        let latest = &history.transitions.last().expect("not empty").manifest_hash;
        // The log was durable before the history was written.
        assert_eq!(*latest, new.hash().0[..], "{step:?}");
        assert_eq!(history.root_ca, set.root_ca, "{step:?}");
    }
}
