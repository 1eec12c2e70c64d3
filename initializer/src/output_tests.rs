use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use contrast_clock::{SystemWallClock, WallClock as _};
use tokio::time::sleep;

use super::*;
use crate::rollover::tests::{answer, seconds};

/// With jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A pod that is in the overlap of two mesh CAs, which ends after a minute.
struct OverlappingPod {
    directory: tempfile::TempDir,
    output: Output,
    rollover: Option<Rollover>,
}

impl OverlappingPod {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let output = Output {
            target: Target::own(directory.path().to_owned()),
            identity: Arc::new(Identity::generate(SystemWallClock.now()).expect("identity")),
            private_key: Arc::new(Zeroizing::new("key".to_owned())),
            svid: watch::Sender::new(None),
            secret: watch::Sender::default(),
        };
        let rollover = Rollover::begin(now(), &answer(2, 1, Some((1, 60_000))));
        output.put(&rollover.credentials()).expect("installs");
        Self {
            directory,
            output,
            rollover: Some(rollover),
        }
    }

    async fn keep(&self, rollover: Option<Rollover>, answers: mpsc::Receiver<Enrolled>) {
        self.output.keep(rollover.expect("once"), answers).await;
    }

    fn tls_config(&self) -> PathBuf {
        self.directory.path().join("tls-config")
    }

    /// Nothing can be installed any more; returns where the files are now. It stops root, too, which a directory without permission does not.
    fn break_target(&self) -> PathBuf {
        let aside = self.directory.path().join("aside");
        fs::rename(self.tls_config(), &aside).expect("moves");
        fs::write(self.tls_config(), "a file in the way").expect("writes");
        aside
    }

    fn mend_target(&self, aside: &Path) {
        fs::remove_file(self.tls_config()).expect("removes");
        fs::rename(aside, self.tls_config()).expect("moves back");
    }
}

fn trusted(tls_config: &Path) -> String {
    fs::read_to_string(tls_config.join("mesh-ca.pem")).expect("bundle")
}

#[tokio::test(start_paused = true)]
async fn end_of_the_overlap_is_installed_late_rather_than_never() {
    let mut pod = OverlappingPod::new();
    let (_answers, receiver) = mpsc::channel(1);
    let rollover = pod.rollover.take();
    let aside = pod.break_target();
    let story = async {
        // Attempts for an hour after the overlap, and none of them touches what is there.
        sleep(seconds(3660)).await;
        assert_eq!(trusted(&aside), "ca-2\nca-1\n");
        pod.mend_target(&aside);
        sleep(LONGEST_PAUSE).await;
        assert_eq!(trusted(&pod.tls_config()), "ca-2\n");
    };
    tokio::select! {
        () = pod.keep(rollover, receiver) => panic!("nobody closed the answers"),
        () = story => {}
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_between_attempts_grow_and_begin_anew_after_a_success() {
    let pod = OverlappingPod::new();
    let rollover = pod.rollover.as_ref().expect("rollover");
    let aside = pod.break_target();
    let mut retry = None;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        retry = pod.output.replace(rollover, retry);
        pauses.push(retry.as_ref().expect("a failure").at - now());
    }
    assert!(pauses[0] < seconds(1), "{pauses:?}");
    assert!(pauses[7] >= seconds(10), "{pauses:?}");
    assert!(pauses[7] <= LONGEST_PAUSE, "{pauses:?}");
    pod.mend_target(&aside);
    assert!(pod.output.replace(rollover, retry).is_none());
    pod.break_target();
    let first = pod.output.replace(rollover, None).expect("a failure").at;
    assert!(first - now() < seconds(1));
}

#[tokio::test(start_paused = true)]
async fn newer_certificate_takes_the_place_of_one_that_waits() {
    let mut pod = OverlappingPod::new();
    let (answers, receiver) = mpsc::channel(1);
    let rollover = pod.rollover.take();
    let aside = pod.break_target();
    let story = async {
        sleep(seconds(120)).await;
        answers.send(answer(2, 7, None)).await.expect("taken");
        sleep(seconds(30)).await;
        pod.mend_target(&aside);
        sleep(LONGEST_PAUSE).await;
        let chain = fs::read_to_string(pod.tls_config().join("certChain.pem"));
        assert_eq!(chain.expect("chain"), "ca-2/7");
    };
    tokio::select! {
        () = pod.keep(rollover, receiver) => panic!("nobody closed the answers"),
        () = story => {}
    }
}

#[tokio::test(start_paused = true)]
async fn end_of_the_answers_ends_the_attempts_at_once() {
    let mut pod = OverlappingPod::new();
    let (answers, receiver) = mpsc::channel(1);
    let rollover = pod.rollover.take();
    pod.break_target();
    let end = async {
        sleep(seconds(3600)).await;
        drop(answers);
        now()
    };
    let ((), ended) = tokio::join!(pod.keep(rollover, receiver), end);
    assert_eq!(now(), ended);
}
