//! Measurements against other implementations and against values that real machines or other projects published.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod firmware;
mod id_block;
mod snp;
mod tdx;
