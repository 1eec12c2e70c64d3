use proptest::prelude::*;

use super::fixture::{NODE, key, key_of};
use crate::cluster::{
    ClusterId, RecordFault, RecordKey, RecordName,
    record::{Kind, Mac},
};

fn sealed(payload: &[u8]) -> (Vec<u8>, Mac) {
    key().seal(RecordName::entry(7), payload).expect("seals")
}

fn refusal(key: &RecordKey, name: RecordName, record: &[u8]) -> RecordFault {
    let error = key.open(name, record).expect_err("refused");
    assert_eq!(error.record, name);
    error.fault
}

#[test]
fn record_equals_a_vector_computed_elsewhere() {
    // Python: hmac.new(bytes(range(64)), b"contrast raft record v1" + b"\x09"*32 + (42).to_bytes(8, "big") + record, "sha256")
    // where record is the 19 bytes below.
    let mac_key =
        aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &(0..64).collect::<Vec<u8>>());
    let key = RecordKey::with_mac_key(mac_key, ClusterId([9; 32]), NODE);
    let (record, mac) = key.seal(RecordName::entry(7), b"hello").expect("seals");
    assert_eq!(
        hex::encode(&record[..19]),
        "010300000000000000070000000568656c6c6f"
    );
    assert_eq!(
        hex::encode(mac),
        "0efe66c11616d77997de89e4a391bed788db9415a5c96033f079e55ebe7ee237"
    );
    assert_eq!(record[19..], mac);
}

#[test]
fn record_is_read_back_by_its_writer() {
    for payload in [&b""[..], b"x", &[0; 10_000]] {
        let (record, mac) = sealed(payload);
        let read = key().open(RecordName::entry(7), &record);
        assert_eq!(read.expect("opens"), (payload, mac));
    }
}

#[test]
fn truncated_record_is_refused_at_every_length() {
    let (record, _) = sealed(b"payload");
    for length in 0..record.len() {
        let fault = refusal(&key(), RecordName::entry(7), &record[..length]);
        match length {
            0..46 => assert_eq!(fault, RecordFault::Short { found: length }),
            _ => assert_eq!(
                fault,
                RecordFault::Length {
                    expected: 53,
                    found: length
                }
            ),
        }
    }
}

#[test]
fn extended_record_is_refused() {
    let (mut record, _) = sealed(b"payload");
    record.push(0);
    let fault = refusal(&key(), RecordName::entry(7), &record);
    assert_eq!(
        fault,
        RecordFault::Length {
            expected: 53,
            found: 54
        }
    );
}

#[test]
fn record_of_another_position_is_refused_by_name() {
    let (record, _) = sealed(b"payload");
    let fault = refusal(&key(), RecordName::entry(8), &record);
    assert_eq!(
        fault,
        RecordFault::Misplaced {
            found: RecordName::entry(7)
        }
    );
}

#[test]
fn record_of_another_kind_is_refused_by_name() {
    let written = RecordName::single(Kind::Purged);
    let (record, _) = key().seal(written, b"payload").expect("seals");
    let fault = refusal(&key(), RecordName::single(Kind::Committed), &record);
    assert_eq!(fault, RecordFault::Misplaced { found: written });
}

#[test]
fn record_of_another_node_is_refused() {
    let (record, _) = sealed(b"payload");
    let fault = refusal(&key_of(1, 1, NODE + 1), RecordName::entry(7), &record);
    assert_eq!(fault, RecordFault::Mac);
}

#[test]
fn record_of_another_cluster_is_refused() {
    let (record, _) = sealed(b"payload");
    let fault = refusal(&key_of(1, 2, NODE), RecordName::entry(7), &record);
    assert_eq!(fault, RecordFault::Mac);
}

#[test]
fn record_of_another_seed_is_refused() {
    let (record, _) = sealed(b"payload");
    let fault = refusal(&key_of(2, 1, NODE), RecordName::entry(7), &record);
    assert_eq!(fault, RecordFault::Mac);
}

#[test]
fn record_of_another_version_is_refused_by_number() {
    let (mut record, _) = sealed(b"payload");
    record[0] = 2;
    let fault = refusal(&key(), RecordName::entry(7), &record);
    assert_eq!(fault, RecordFault::Version { found: 2 });
}

#[test]
fn refusal_says_which_record_what_failed_and_what_to_do() {
    let (record, _) = sealed(b"payload");
    let error = key()
        .open(RecordName::entry(8), &record)
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the log entry 8 of the Raft store is not usable: expected it there, found the authentic log entry 7. The disk was \
         damaged or tampered with: do not resume from it, let this replica rejoin under a fresh identity with a new store"
    );
}

#[test]
fn debug_shows_no_key() {
    let text = format!("{:?}", key());
    assert!(
        text.starts_with("RecordKey { cluster: ClusterId(0101"),
        "{text}"
    );
    assert!(text.ends_with("node: 42, .. }"), "{text}");
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        position in any::<u64>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let name = RecordName::entry(position);
        let (mut record, _) = key().seal(name, &payload).expect("seals");
        prop_assert!(key().open(name, &record).is_ok());
        let bit = flip.index(record.len() * 8);
        record[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(key().open(name, &record).is_err());
    }

    #[test]
    fn foreign_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), position in any::<u64>()) {
        prop_assert!(key().open(RecordName::entry(position), &bytes).is_err());
    }
}
