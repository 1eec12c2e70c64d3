//! Evidence in files: what it says, and whether it holds.
//!
//! [`input`] turns files into evidence; [`inspect`] shows what is in them, [`verdict`] what verification found.

pub mod input;
pub mod inspect;
pub mod verdict;
