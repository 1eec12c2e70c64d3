//! Virtual machines with a real kernel, for what this kernel cannot do: device mapper, disks that vanish, power that goes.
//!
//! QEMU emulates the processor, so that it runs everywhere; a machine is up after about three seconds. Its root file system is in memory: the
//! programs under test, those of Debian that they call, and an agent that runs what the test asks for. Disks are files here, which a test
//! changes as a host would.

mod disk;
mod image;
mod machine;
mod write_log;

pub use disk::Disk;
pub use image::{why_not, why_not_long};
pub use machine::{FORWARDED, Machine, Options, Said};
pub use write_log::WriteLog;
