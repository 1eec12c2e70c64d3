//! Evidence in files: what it says, and whether it holds.
//!
//! [`input`] and [`vtpm`] turn files into evidence; [`inspect`] shows what is in them, [`verdict`] what verification found.

pub mod input;
pub mod inspect;
pub mod verdict;
pub mod vtpm;
