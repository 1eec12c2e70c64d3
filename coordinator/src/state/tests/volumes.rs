//! What a host can do to the record of encrypted volumes between two lives of a Coordinator.

use contrast_pki::shares::SeedSharesDocument;
use redb::{ReadableDatabase, TableDefinition};

use super::fixture::{Disk, Lone, document, open_with, owner_key, recovery, request};
use crate::state::{
    Advance, Advanced, Generation, Medium, RecoveryRequest, StateError, TransitionHash, VolumeId,
    Volumes, VolumesError,
};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ROW: &str = "volumes";
const VOLUME: VolumeId = VolumeId([7; 16]);

/// The two files of a Coordinator that is alone.
#[derive(Clone, Default)]
struct Disks {
    history: Disk,
    log: Disk,
}

impl Disks {
    fn open(&self) -> Lone {
        let log = Box::new(self.log.clone());
        open_with(Box::new(self.history.clone()), log).expect("opens")
    }

    /// The host puts back what was there at another time.
    fn copy(&self) -> Self {
        Self {
            history: Disk::holding(self.history.bytes()),
            log: Disk::holding(self.log.bytes()),
        }
    }

    fn without_log(&self) -> Self {
        Self {
            history: Disk::holding(self.history.bytes()),
            log: Disk::default(),
        }
    }

    fn row(&self) -> Option<Vec<u8>> {
        let database = Medium::open(&self.history).expect("opens");
        let reading = database.begin_read().expect("reads");
        let meta = reading.open_table(META).expect("a table");
        let row = meta.get(ROW).expect("reads");
        row.map(|row| row.value().to_vec())
    }

    /// The host writes the row itself.
    fn put_row(&self, row: Option<&[u8]>) {
        let database = Medium::open(&self.history).expect("opens");
        let writing = database.begin_write().expect("writes");
        {
            let mut meta = writing.open_table(META).expect("a table");
            match row {
                Some(row) => drop(meta.insert(ROW, row).expect("writes")),
                None => drop(meta.remove(ROW).expect("writes")),
            }
        }
        writing.commit().expect("commits");
    }
}

fn report(number: u64) -> Advance {
    Advance {
        secret_id: "secret".into(),
        volume: VOLUME,
        generation: Generation {
            number,
            reporter: [1; 32],
        },
    }
}

fn number(volumes: &Volumes) -> Option<u64> {
    volumes.get("secret", VOLUME).map(|at| at.number)
}

/// A Coordinator that ended, with generation 1 under the first manifest and 2 and 3 under the second; its disk as it was under the
/// first; the seed shares; the latest transition.
async fn history() -> (Disks, Disks, SeedSharesDocument, TransitionHash) {
    let (disks, owner) = (Disks::default(), owner_key(1));
    let lone = disks.open();
    let first = request(&document("a", &[&owner]), TransitionHash::NONE, &[]);
    let first = lone.set_manifest(first).await.expect("sets");
    assert_eq!(number(&lone.volumes().await.expect("confirms")), None);
    let advanced = lone.advance(report(1)).await.expect("records");
    assert_eq!(advanced, Advanced::Accepted);
    lone.catch_up().expect("writes");
    let early = disks.copy();
    let update = request(&document("b", &[&owner]), first.transition(), &[&owner]);
    let second = lone.set_manifest(update).await.expect("sets");
    for number in [2, 3] {
        let advanced = lone.advance(report(number)).await.expect("records");
        assert_eq!(advanced, Advanced::Accepted);
    }
    assert_eq!(number(&lone.volumes().await.expect("confirms")), Some(3));
    let shares = first.history().seed_shares().clone();
    lone.close().await;
    (disks, early, shares, second.transition())
}

async fn recovered(disks: &Disks, request: RecoveryRequest) -> Result<Option<u64>, StateError> {
    let lone = disks.open();
    let outcome = match lone.recover(request).await {
        Ok(_) => Ok(number(&lone.volumes().await.expect("confirms"))),
        Err(error) => Err(error),
    };
    lone.close().await;
    outcome
}

#[tokio::test]
async fn generation_survives_recovery_from_either_file() {
    let (disks, _, shares, latest) = history().await;
    let request = || recovery(&shares, Some(latest));
    let without_log = disks.without_log();
    assert_eq!(recovered(&without_log, request()).await.ok(), Some(Some(3)));
    // And a recovery after that one.
    let request_again = recovery(&shares, None);
    assert_eq!(
        recovered(&without_log, request_again).await.ok(),
        Some(Some(3))
    );

    disks.put_row(None);
    assert_eq!(
        recovered(&disks, request()).await.ok(),
        Some(Some(3)),
        "the log has it"
    );
}

#[tokio::test]
async fn record_that_the_host_removed_changed_or_mixed_is_not_believed() {
    let (disks, early, shares, latest) = history().await;
    let row = disks.row().expect("written");
    let mut flipped = row.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let earlier = early.row().expect("written");
    for (row, expected) in [
        (None, VolumesError::Missing),
        (Some(flipped.as_slice()), VolumesError::Forged),
        (Some(&row[..row.len() - 1]), VolumesError::Forged),
        // Authentic, of the transition before.
        (Some(earlier.as_slice()), VolumesError::Forged),
    ] {
        let host = disks.without_log();
        host.put_row(row);
        let error = recovered(&host, recovery(&shares, Some(latest))).await;
        let error = error.expect_err("refused");
        assert!(
            matches!(&error, StateError::Volumes(found) if *found == expected),
            "{error}"
        );
        assert!(error.to_string().contains("--forget-volumes"), "{error}");
        let forgetting = RecoveryRequest {
            forget_volumes: true,
            ..recovery(&shares, Some(latest))
        };
        assert_eq!(recovered(&host, forgetting).await.ok(), Some(None));
    }
}

/// What one disk cannot show: that all of it is old. The transition that owners know is the bound.
#[tokio::test]
async fn whole_disk_of_an_earlier_time_is_refused_by_the_transition_only() {
    let (_, early, shares, latest) = history().await;
    let error = recovered(&early.copy(), recovery(&shares, Some(latest))).await;
    assert!(matches!(error, Err(StateError::History(_))), "{error:?}");
    assert_eq!(
        recovered(&early, recovery(&shares, None)).await.ok(),
        Some(Some(1))
    );
}
