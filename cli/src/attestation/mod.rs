//! Evidence in files: what it says, and whether it holds.
//!
//! [`input`] turns files into evidence, [`collateral`] does so for Intel's part; [`inspect`] shows what is in them, [`verdict`]
//! what verification found.

pub mod collateral;
pub mod input;
pub mod inspect;
pub mod verdict;
