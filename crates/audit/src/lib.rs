//! The audit stream of a Coordinator: what it decided, in records that form a chain.
//!
//! [`Chain`] appends [`Event`]s and makes the lines, [`check()`] reads them back and says where the chain breaks. Both are pure: time comes
//! in as a number, lines go out as text. The format is specified in `docs/reference/audit.md`; in short, a record is one line of JSON
//! whose last member is the SHA-256 of the line without that member, and which names the hash of the record before it.
//!
//! Nothing in a record is secret, and nothing in it was chosen by a peer: names come from the manifest, everything else is a hash, a
//! number, or a word of a fixed list. Addresses and workload secret ids are left out.

mod chain;
mod check;
mod hash;
mod record;

pub use chain::{Chain, Entry};
pub use check::{CheckError, Checked, Head, Segment, check};
pub use hash::{Hash, HashError};
pub use record::{
    CHECKS_MAX, Event, FORMAT, Kind, LINE_BYTES_MAX, NAMES_MAX, Outcome, ParseError, Record,
    Subject, TEXT_BYTES_MAX, hex64,
};
