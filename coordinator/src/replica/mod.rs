//! One replica of the Coordinator: how it enters a cluster, takes part in it, and answers for it.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`message`] | what replicas ask of each other, free of any wire format |
//! | [`peers`] | how a replica reaches others, and what it believes of whom |
//! | [`status`] | what it says about itself to people |

pub mod message;
pub mod peers;
pub mod status;
