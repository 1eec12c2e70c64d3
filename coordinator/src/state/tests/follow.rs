//! A store follows a history: one transaction, only what is lacking, and nothing is lost on the way.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::shares::SeedSharesDocument;
use tempfile::tempdir;

use super::fixture::{Disk, Operation};
use crate::state::{
    Directory, Followed, History, HistoryError, Medium, Observer, Step, Store, StoreError,
    Transition, named,
};

fn shares(salt: u8) -> SeedSharesDocument {
    SeedSharesDocument {
        salt: vec![salt; 32],
        threshold: 1,
        set: Vec::new(),
        shares: Vec::new(),
    }
}

/// A transition after the head of `history` to a manifest called `name`, with a policy of its own. Stores check no signature.
fn next(history: Option<&History>, name: &str) -> History {
    let manifest = format!("manifest {name}");
    let policies = named(vec![Bytes::from(format!("policy {name}"))]);
    let transition = Transition {
        manifest_hash: ManifestHash::of(manifest.as_bytes()),
        previous: history.map_or(crate::state::TransitionHash::NONE, |h| h.head().hash),
        mesh_ca_public_key: Bytes::from(vec![7; 120]),
        seed_shares: shares(1).digest().expect("JSON"),
        signing_public_key: Bytes::from(vec![9; 120]),
        signature: Bytes::from(vec![8; 103]),
    };
    match history {
        Some(history) => history.extended(transition, manifest.as_bytes(), &policies),
        None => History::found(
            transition,
            manifest.as_bytes(),
            policies,
            shares(1),
            b"root",
        ),
    }
}

/// A history of the manifests `names`.
fn history(names: &[&str]) -> History {
    let mut names = names.iter();
    let first = next(None, names.next().expect("at least one"));
    names.fold(first, |history, name| next(Some(&history), name))
}

fn long(count: usize) -> History {
    let first = next(None, "first");
    (1..count).fold(first, |history, at| next(Some(&history), &at.to_string()))
}

fn store(disk: &Disk) -> Store {
    Store::open(Box::new(disk.clone())).expect("opens").0
}

fn follow(store: &mut Store, history: &History) -> Result<Followed, StoreError> {
    store.follow(history, &[], &Observer::default())
}

/// The history on the disk; it has to be whole, with nothing beside it.
fn stored(disk: &Disk) -> History {
    let copy = Disk::holding(disk.bytes());
    let (_, records) = Store::open(Box::new(copy)).expect("opens");
    History::read_links(records.expect("is not empty")).expect("is a history")
}

fn same(a: &History, b: &History) -> bool {
    a.links().eq(b.links())
        && a.manifests() == b.manifests()
        && a.policies() == b.policies()
        && a.seed_shares() == b.seed_shares()
        && a.root_certificate() == b.root_certificate()
}

#[test]
fn store_contains_the_history_that_it_followed() {
    let disk = Disk::default();
    let mut store = store(&disk);
    for (names, transitions) in [
        (&["a"][..], 1),
        (&["a", "b"], 1),
        (&["a", "b", "c", "a", "d"], 3),
    ] {
        let history = history(names);
        let followed = follow(&mut store, &history).expect("follows");
        assert_eq!(followed, Followed::Extended { transitions });
        assert!(same(&stored(&disk), &history));
    }
}

#[test]
fn same_history_writes_nothing_and_another_root_alone_is_written() {
    let disk = Disk::default();
    let mut store = store(&disk);
    let mut history = history(&["a", "b"]);
    follow(&mut store, &history).expect("follows");
    disk.take_log();
    let quiet = Observer::new(|step| panic!("{step:?}, but there is nothing to do"));
    assert_eq!(
        store.follow(&history, &[], &quiet).expect("follows"),
        Followed::Unchanged
    );
    assert_eq!(disk.take_log().len(), 0);

    history.replace_founding(shares(1), Bytes::from("renewed"));
    let followed = follow(&mut store, &history).expect("follows");
    assert_eq!(followed, Followed::Extended { transitions: 0 });
    assert!(same(&stored(&disk), &history));
}

#[test]
fn seed_shares_that_the_latest_transition_does_not_name_are_refused() {
    let disk = Disk::default();
    let mut history = history(&["a", "b"]);
    let head = history.head().hash;
    history.replace_founding(shares(2), Bytes::from("root"));
    follow(&mut store(&disk), &history).expect("follows");
    let (_, records) = Store::open(Box::new(Disk::holding(disk.bytes()))).expect("opens");
    let error = History::read_links(records.expect("is not empty")).expect_err("other shares");
    assert!(
        matches!(error, HistoryError::OtherSeedShares { head: named } if named == head),
        "{error}"
    );
}

#[test]
fn many_transitions_become_durable_at_once() {
    let (short, long) = (history(&["a"]), history(&["a", "b", "c", "d"]));
    let mut failures = 0;
    for room in 0.. {
        let disk = Disk::default();
        let mut store = store(&disk);
        follow(&mut store, &short).expect("follows");
        disk.full_after(Some(room));
        let outcome = follow(&mut store, &long);
        disk.full_after(None);
        if outcome.is_ok() {
            break;
        }
        failures += 1;
        let found = stored(&disk);
        assert!(
            same(&found, &short) || same(&found, &long),
            "{room}: neither before nor after"
        );
        follow(&mut store, &long).expect("there is room again");
        assert!(same(&stored(&disk), &long));
    }
    assert!(failures > 3, "only {failures} operations could fail");
}

#[test]
fn effort_depends_on_what_is_new() {
    let written = |count: usize| {
        let disk = Disk::default();
        let mut store = store(&disk);
        let history = long(count);
        follow(&mut store, &history).expect("follows");
        disk.take_log();
        follow(&mut store, &next(Some(&history), "last")).expect("follows");
        let bytes = disk
            .take_log()
            .into_iter()
            .map(|operation| match operation {
                Operation::Write(_, data) => data.len(),
                _ => 0,
            });
        bytes.sum::<usize>()
    };
    let (few, many) = (written(20), written(5000));
    assert!(
        many < 4 * few,
        "{few} bytes after 20 transitions, {many} after 5000"
    );
}

#[test]
fn steps_are_heard_in_order() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let observer = Observer::new(move |step| ears.lock().expect("no panic").push(step));
    let mut store = store(&Disk::default());
    store
        .follow(&history(&["a", "b"]), &[], &observer)
        .expect("follows");
    let expected = [
        Step::BeforeWrite,
        Step::InTransaction,
        Step::BeforeCommit,
        Step::Committed,
    ];
    assert_eq!(*heard.lock().expect("no panic"), expected);
}

#[test]
fn policies_of_a_history_that_came_from_a_snapshot_are_all_written() {
    let disk = Disk::default();
    let mut store = store(&disk);
    follow(&mut store, &history(&["a", "b"])).expect("follows");

    let elsewhere = Disk::default();
    let full = history(&["a", "b", "c", "d"]);
    follow(&mut self::store(&elsewhere), &full).expect("follows");
    let received = stored(&elsewhere);
    follow(&mut store, &next(Some(&received), "e")).expect("follows");
    assert!(same(&stored(&disk), &next(Some(&full), "e")));
}

#[test]
fn failed_changes_give_way_to_another_history_and_leave_nothing_beside_it() {
    let base = history(&["a"]);
    let ours = history(&["a", "b", "c"]);
    // At any of these operations the transitions of a try may have reached the disk although it failed.
    for room in 0..40 {
        let disk = Disk::default();
        let mut store = store(&disk);
        follow(&mut store, &base).expect("follows");
        for rival in [
            history(&["a", "x", "y"]),
            history(&["a", "z"]),
            history(&["a", "b"]),
        ] {
            disk.full_after(Some(room));
            let _: Result<_, _> = follow(&mut store, &rival);
        }
        disk.full_after(None);
        let followed = follow(&mut store, &ours).expect("there is room again");
        let found = stored(&disk);
        assert!(found.links().eq(ours.links()), "{room}: {followed:?}");
    }
}

#[test]
fn transition_that_reached_the_disk_although_its_change_failed_gives_way() {
    let disk = Disk::default();
    let mut store = store(&disk);
    follow(&mut store, &history(&["a"])).expect("follows");
    let rival = history(&["a", "x", "y"]);
    let fails_after_commit = Disk::holding(disk.bytes());
    follow(&mut self::store(&fails_after_commit), &rival).expect("follows");
    // As if the last flush had failed after it had reached the disk.
    disk.full_after(Some(0));
    follow(&mut store, &rival).expect_err("full");
    disk.full_after(None);
    disk.restore(fails_after_commit.bytes());
    let ours = history(&["a", "b"]);
    let followed = follow(&mut store, &ours).expect("follows");
    assert_eq!(followed, Followed::Extended { transitions: 1 });
    assert!(stored(&disk).links().eq(ours.links()));
    assert_eq!(disk.aside(), None);
}

#[test]
fn store_of_another_branch_is_set_aside_whole() {
    let disk = Disk::default();
    let mut store = store(&disk);
    let branch = history(&["a", "b", "x"]);
    follow(&mut store, &branch).expect("follows");
    for ours in [history(&["a", "b"]), history(&["other deployment"])] {
        let head = stored(&disk).head().hash;
        let before = stored(&disk);
        let followed = follow(&mut store, &ours).expect("follows");
        assert_eq!(followed, Followed::SetAside { head });
        assert!(same(&stored(&disk), &ours));
        let aside = Disk::holding(disk.aside().expect("is kept"));
        assert!(same(&stored(&aside), &before));
        // The new store can be gone on with.
        let longer = next(Some(&ours), "next");
        follow(&mut store, &longer).expect("follows");
        assert!(same(&stored(&disk), &longer));
    }
}

#[test]
fn directory_keeps_the_store_that_it_sets_aside_and_replaces_an_earlier_one() {
    let directory = tempdir().expect("directory");
    let open = || {
        let claimed = Directory::claim(directory.path()).expect("claims");
        Store::open(Box::new(claimed)).expect("opens")
    };
    let read = |file: &str| {
        let bytes = fs::read(directory.path().join(file)).expect("reads");
        stored(&Disk::holding(bytes))
    };
    let histories = [history(&["a", "x"]), history(&["a", "y"]), history(&["b"])];
    let (mut store, _) = open();
    follow(&mut store, &histories[0]).expect("follows");
    for pair in histories.windows(2) {
        follow(&mut store, &pair[1]).expect("follows");
        assert!(same(&read("history.set-aside.redb"), &pair[0]));
    }
    drop(store);
    assert!(same(&read("history.redb"), &histories[2]));
    let files = fs::read_dir(directory.path()).expect("reads").count();
    assert_eq!(files, 3, "lock, store, and what was set aside");
}

#[test]
fn store_that_cannot_be_replaced_stays_in_its_place() {
    let directory = tempdir().expect("directory");
    let claimed = Directory::claim(directory.path()).expect("claims");
    let (mut store, _) = Store::open(Box::new(claimed)).expect("opens");
    let old = history(&["a", "x"]);
    follow(&mut store, &old).expect("follows");
    drop(store);

    let claimed = Directory::claim(directory.path()).expect("claims");
    let fails = |_: &redb::Database| Err(StoreError::Content("no room".to_owned()));
    claimed.set_aside(&fails).expect_err("fails");
    let (mut store, records) = Store::open(Box::new(claimed)).expect("opens");
    let found = History::read_links(records.expect("is not empty")).expect("is a history");
    assert!(same(&found, &old));

    // The next try starts over with what the first left behind.
    let ours = history(&["b"]);
    follow(&mut store, &ours).expect("follows");
}

#[test]
fn free_bytes_are_those_of_the_file_system() {
    let directory = tempdir().expect("directory");
    let claimed = Directory::claim(directory.path()).expect("claims");
    assert!(claimed.free_bytes().is_some_and(|bytes| bytes > 0));
    drop(directory);
    assert_eq!(claimed.free_bytes(), None);
}

#[test]
fn history_finds_its_transitions_and_what_comes_after_them() {
    let history = long(300);
    let links: Vec<_> = history.links().collect();
    assert_eq!(links.len(), history.generation());
    for (at, link) in links.iter().enumerate() {
        assert_eq!(history.position(link.hash), Some(at));
        assert!(history.links_from(at).iter().eq(&links[at..]));
        let late: BTreeMap<_, _> = history.policies_from(at).collect();
        assert_eq!(late.len(), history.generation() - at);
    }
    assert_eq!(history.links_from(300), Vec::<&crate::state::Link>::new());
    let other = long(2);
    assert_eq!(
        history.position(next(Some(&other), "other").head().hash),
        None
    );
}
