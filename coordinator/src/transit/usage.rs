use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::failure::Failure;
use crate::ops::Metrics;

/// Messages under one AES-GCM key with random nonces of 96 bits: beyond this, two equal nonces become likelier than 2^-32 (NIST SP 800-38D,
/// section 8.3).
const LIMIT: u64 = 1 << 32;
/// Operators hear of it at half of that.
const WARN: u64 = LIMIT / 2;

/// How often each key encrypted, in this process since it started.
#[derive(Debug)]
pub(super) struct Usage {
    counts: Mutex<HashMap<(String, u32), u64>>,
    metrics: Arc<Metrics>,
}

impl Usage {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            counts: Mutex::default(),
            metrics,
        }
    }

    /// Counts one encryption, or refuses it.
    pub(super) fn count(&self, name: &str, version: u32) -> Result<(), Failure> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((name.to_owned(), version)).or_default();
        if *count >= LIMIT {
            return Err(Failure::bad(format!(
                "version {version} of the key has encrypted 2^32 messages, the most for AES-GCM; encrypt with the next key_version"
            )));
        }
        *count = count.saturating_add(1);
        let warn = *count == WARN;
        drop(counts);
        if warn {
            self.metrics.transit_key_worn();
            tracing::warn!(
                event = "transit-key-worn",
                name,
                version,
                "a transit key has encrypted 2^31 messages since this process started; it refuses after 2^32: encrypt \
                 with the next key_version"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_once_and_refuses_in_the_end() {
        let metrics = Arc::new(Metrics::new(std::time::SystemTime::UNIX_EPOCH));
        let usage = Usage::new(Arc::clone(&metrics));
        let start_at = |count| {
            let key = ("web".to_owned(), 1);
            usage.counts.lock().expect("lock").insert(key, count);
        };
        start_at(WARN - 1);
        assert_eq!(metrics.transit_keys_worn(), 0);
        usage.count("web", 1).expect("counts");
        usage.count("web", 1).expect("counts");
        assert_eq!(metrics.transit_keys_worn(), 1);
        start_at(LIMIT - 1);
        usage.count("web", 1).expect("the last one");
        let refused = usage.count("web", 1).expect_err("refused").to_string();
        assert!(refused.contains("next key_version"), "{refused}");
        usage.count("web", 2).expect("another key");
    }
}
