use proptest::prelude::*;

use super::fixture::{change, founding, id, members, three_entries};
use crate::{
    cluster::{
        LoggedMembers, NodeVote, SnapshotInfo,
        codec::{self, Malformed, SnapshotDescription},
        record::MAC_BYTES,
    },
    state::{Advance, Generation, History, Transition, TransitionHash, VolumeId, Volumes, named},
};

const ENDS: Malformed = Malformed("it ends within a field");

fn history() -> History {
    let first = change(TransitionHash::NONE, "a");
    let second = change(first.transition.hash(), "b");
    let shares = contrast_pki::shares::SeedSharesDocument::from_json(&founding().seed_shares);
    let root = founding().root_certificate;
    History::found(
        first.transition,
        b"a",
        named(first.policies),
        shares.expect("JSON"),
        &root,
    )
    .extended(second.transition, b"b", &named(second.policies))
}

#[test]
fn every_payload_is_read_back_and_refused_when_cut_or_extended() {
    for vote in [NodeVote::new(3, 4), NodeVote::new_committed(u64::MAX, 0)] {
        let bytes = codec::encode_vote(&vote);
        assert_eq!(codec::decode_vote(&bytes), Ok(vote));
        exact(&bytes, |bytes| codec::decode_vote(bytes).map(drop));
    }
    let bytes = codec::encode_entry_id(&id(3, 9));
    assert_eq!(codec::decode_entry_id(&bytes), Ok(id(3, 9)));
    exact(&bytes, |bytes| codec::decode_entry_id(bytes).map(drop));
    let mut entries = three_entries();
    entries.push(super::fixture::entry(
        2,
        3,
        openraft::EntryPayload::Normal(change(TransitionHash([1; 32]), "without founding").into()),
    ));
    for entry in entries {
        let bytes = codec::encode_entry(&[5; MAC_BYTES], &entry);
        let index = entry.log_id.index;
        assert_eq!(
            codec::decode_entry(index, &bytes),
            Ok(([5; MAC_BYTES], entry))
        );
        exact(&bytes, |bytes| codec::decode_entry(index, bytes).map(drop));
    }
    let description = SnapshotDescription {
        info: SnapshotInfo {
            last_log_id: Some(id(1, 5)),
            last_membership: LoggedMembers::new(Some(id(1, 2)), members()),
        },
        length: 77,
        digest: [8; 32],
    };
    let bytes = description.encode();
    assert_eq!(SnapshotDescription::decode(&bytes), Ok(description));
    exact(&bytes, |bytes| SnapshotDescription::decode(bytes).map(drop));
}

/// `decode` takes `bytes`, and neither a part nor more of it.
fn exact(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<(), Malformed>) {
    decode(bytes).expect("the whole");
    for length in 0..bytes.len() {
        decode(&bytes[..length]).expect_err("a part");
    }
    let more = [bytes, &[0]].concat();
    assert_eq!(
        decode(&more),
        Err(Malformed("something follows its last field"))
    );
}

#[test]
fn chain_holds_the_whole_history() {
    let history = history();
    let chain = codec::encode_chain(Some(&history)).expect("encodes");
    let records = codec::decode_chain(&chain)
        .expect("decodes")
        .expect("not empty");
    let read = History::read_links(records).expect("consistent");
    assert_eq!(
        read.links().collect::<Vec<_>>(),
        history.links().collect::<Vec<_>>()
    );
    assert_eq!(read.manifests(), history.manifests());
    assert_eq!(read.policies(), history.policies());
    assert_eq!(read.seed_shares(), history.seed_shares());
    assert_eq!(read.root_certificate(), history.root_certificate());
    assert_eq!(
        codec::encode_chain(Some(&read)).expect("encodes"),
        chain,
        "one history, one chain"
    );
    for length in 0..chain.len() {
        let part = codec::decode_chain(&chain[..length]);
        assert_eq!(part.map(drop), Err(ENDS));
    }
}

#[test]
fn chain_has_the_generations_of_volumes_if_there_are_any() {
    let history = history();
    let without = codec::encode_chain(Some(&history)).expect("encodes");
    assert_eq!(without.first(), Some(&1), "earlier programs read it");
    let mut volumes = Volumes::default();
    for (id, volume) in [("a", 1), ("a", 2), ("b", 1)] {
        volumes.advance(&Advance {
            secret_id: id.into(),
            volume: VolumeId([volume; 16]),
            generation: Generation {
                number: 7,
                reporter: [9; 32],
            },
        });
    }
    let history = history.with_volumes(volumes.clone());
    let chain = codec::encode_chain(Some(&history)).expect("encodes");
    assert_eq!(chain.first(), Some(&2));
    let records = codec::decode_chain(&chain).expect("decodes");
    let read = History::read_links(records.expect("not empty")).expect("consistent");
    assert_eq!(read.volumes(), &volumes);
    for length in 0..chain.len() {
        let part = codec::decode_chain(&chain[..length]);
        assert_eq!(part.map(drop), Err(ENDS));
    }
}

#[test]
fn chain_before_the_first_transition_is_empty() {
    let chain = codec::encode_chain(None).expect("encodes");
    assert_eq!(chain.as_ref(), [1, 0, 0, 0, 0]);
    assert!(codec::decode_chain(&chain).expect("decodes").is_none());
}

#[test]
fn count_that_lies_costs_no_memory() {
    let huge = [1, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(codec::decode_chain(&huge).map(drop), Err(ENDS));
}

#[test]
fn change_is_shown_without_its_documents() {
    let change = change(TransitionHash::NONE, "secretive manifest");
    let shown = format!("{change} {change:?}");
    assert!(shown.contains(&Transition::hash(&change.transition).to_string()));
    assert!(!shown.contains("secretive"), "{shown}");
}

proptest! {
    #[test]
    fn foreign_bytes_cause_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = codec::decode_vote(&bytes);
        let _ = codec::decode_entry_id(&bytes);
        let _ = codec::decode_entry(1, &bytes);
        let _ = SnapshotDescription::decode(&bytes);
        if let Ok(Some(records)) = codec::decode_chain(&bytes) {
            let _ = History::read_links(records);
        }
    }

    #[test]
    fn changed_chain_is_never_the_same_signed_history(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
        let history = history();
        let chain = codec::encode_chain(Some(&history)).expect("encodes").to_vec();
        let mut changed = chain.clone();
        changed[at.index(chain.len())] ^= flip;
        let key = super::fixture::transition_key(1);
        let read = codec::decode_chain(&changed).ok().flatten().and_then(|records| History::read_links(records).ok());
        if let Some(read) = read.filter(|read| read.verify(key.public_key_spki()).is_ok()) {
            // What no signature covers: policies beside the manifest, seed shares, root certificate.
            prop_assert_eq!(read.head().hash, history.head().hash);
            prop_assert_eq!(read.manifests(), history.manifests());
        }
    }
}
