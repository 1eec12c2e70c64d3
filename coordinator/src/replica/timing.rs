use std::time::Duration;

/// How long things take. All of it is about availability: no value here makes an answer wrong, but for
/// [`confirmation_bound`](Self::confirmation_bound).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader lets others hear of it.
    pub heartbeat: Duration,
    /// A follower that hears of no leader stands for election after [`election_max`](Self::election_max), for which it is bound to the
    /// leader (openraft's leader lease), and a random time between these two. Well above the slowest flush.
    pub election_min: Duration,
    /// See [`election_min`](Self::election_min).
    pub election_max: Duration,
    /// Certificates are issued under a state whose last confirmation by a quorum is at most this old.
    pub confirmation_bound: Duration,
    /// A member that nobody hears of for this long is removed.
    pub dead_member_grace: Duration,
    /// A member that nobody hears of for this long may be replaced by a new one of the same place.
    pub silence: Duration,
    /// How often members look after their cluster.
    pub tick: Duration,
    /// How often a replica looks for others.
    pub discovery: Duration,
    /// How long an answer of another replica may take.
    pub call: Duration,
    /// How long a confirmation may take before a read gives up.
    pub read: Duration,
    /// How long a change may take before its caller is told that its outcome is unknown.
    pub change: Duration,
    /// How long a leader looks for a mesh CA key that nobody seems to have before it makes a new one.
    pub key_patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(400),
            confirmation_bound: Duration::from_secs(10),
            dead_member_grace: Duration::from_mins(5),
            silence: Duration::from_secs(2),
            tick: Duration::from_millis(200),
            discovery: Duration::from_secs(1),
            call: Duration::from_secs(2),
            read: Duration::from_secs(1),
            change: Duration::from_secs(10),
            key_patience: Duration::from_secs(5),
        }
    }
}

impl Timing {
    /// openraft's options.
    ///
    /// # Errors
    /// When they contradict each other, in openraft's words.
    pub(crate) fn raft(&self) -> Result<openraft::Config, openraft::ConfigError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "contrast".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            install_snapshot_timeout: millis(Duration::from_secs(30)),
            enable_pre_vote: Some(true),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            ..openraft::Config::default()
        };
        config.validate()
    }
}

/// A snapshot writes the whole chain; in between the log grows by this many entries. An update has all policies of its manifest in its
/// entry, a MiB for twenty workloads, so this many have to fit on the disk.
const SNAPSHOT_EVERY: u64 = 64;
/// Entries that are kept for followers that are a little behind.
const ENTRIES_KEPT: u64 = 8;
