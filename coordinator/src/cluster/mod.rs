//! Replication of the history: authenticated Raft storage on an untrusted disk.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`record`] | the format of a record, its MAC, and what a MAC cannot show |
//! | [`raft_types`] | types for openraft; a log entry carries a signed transition and what it names |
//! | `codec` | payloads as bytes |
//! | `journal` | the store: records in a redb database, one transaction for each change |
//! | `medium` | where the database is: a file that is inspected before it may be changed |
//! | `log_store` | [`LogStore`]: openraft's log storage on a journal |
//! | `earlier` | [`read_earlier`]: what the store of an earlier life still has |
//! | `state_machine` | [`StateMachine`]: applies transitions to the history; its snapshot is the signed chain |
//!
//! Invariants:
//! - Nothing is read from the disk that this node of this cluster did not write, nor anything but the latest that it wrote, as
//!   far as one disk can show (see [`record`]). Anything else is a typed error, and the disk stays as it was.
//! - A store is created or opened, never both: a store that vanished is an error, not a new one.
//! - A store of an earlier life is read, set aside or left alone, but never written to.
//! - A vote is durable before any entry of its term; an entry is durable before openraft hears of it.
//! - After a failed write the store refuses everything: what is on the disk is unknown then, and only a restart reads it again.
//! - Nothing secret is written: neither seed nor record key nor the mesh CA's private key has a field in any record.

pub(crate) mod codec;
mod earlier;
mod error;
mod journal;
mod log_store;
mod medium;
pub mod raft_types;
pub mod record;
mod state_machine;

#[cfg(test)]
pub(crate) mod tests;

pub use earlier::{Earlier, read_earlier};
pub use error::LogStoreError;
pub use log_store::LogStore;
pub use medium::{Check, LogFile, LogMedium};
pub use raft_types::*;
pub use record::{Kind, RecordError, RecordFault, RecordKey, RecordName};
pub use state_machine::{ChainError, SignedChain, Sink, SnapshotBuilder, StateMachine, View};
