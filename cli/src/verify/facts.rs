//! What a report says beside its checks, and how it shows times.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

pub use contrast_sdk::facts::{Allowed, Authorities, EvidenceFacts, Version, Workload};

/// A time in RFC 3339, UTC, whole seconds.
pub fn shown_time(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}
