//! Disks: what a host gives a replica to write on.
//!
//! A [`Disk`] belongs to a place and survives the replica that writes on it; each process has a [`Drive`], which fails from the
//! moment on when its node ends. A write is durable after the next sync. At a power loss each 4 KiB page that was written since is
//! as it was, as it became, or torn within; and so the host may leave it. The host keeps every synced state of a file and can put
//! any of them back while the replica is down. It can edit the record of encrypted volumes, too.

mod image;
mod medium;
mod record;

pub use image::{Fate, Image};
pub use medium::{Disk, Drive, FileName};
