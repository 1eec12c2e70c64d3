use std::{collections::BTreeMap, fmt, ops::AddAssign};

/// How often what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps of the world.
    pub steps: u64,
    /// Virtual time, in seconds.
    pub virtual_seconds: u64,
    /// Leaders that replicated.
    pub elections: u64,
    /// Manifests that owners were told are set.
    pub acknowledged: u64,
    /// Confirmed reads that were answered.
    pub reads: u64,
    /// Certificates.
    pub certificates: u64,
    /// Encrypted volumes that pods opened.
    pub volumes_opened: u64,
    /// Pods that were refused one.
    pub volumes_refused: u64,
    /// Recoveries that owners were told of.
    pub recoveries: u64,
    /// Runs at whose end no disk had what owners were told: the host had taken it away.
    pub destroyed: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts a fault.
    pub fn count(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.steps += other.steps;
        self.virtual_seconds += other.virtual_seconds;
        self.elections += other.elections;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.certificates += other.certificates;
        self.volumes_opened += other.volumes_opened;
        self.volumes_refused += other.volumes_refused;
        self.recoveries += other.recoveries;
        self.destroyed += other.destroyed;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} steps, {} h of virtual time, {} elections, {} sets acknowledged, {} confirmed reads, {} certificates, \
             {} volumes opened and {} refused, {} recoveries, {} deployments destroyed by the host",
            self.steps,
            self.virtual_seconds / 3600,
            self.elections,
            self.acknowledged,
            self.reads,
            self.certificates,
            self.volumes_opened,
            self.volumes_refused,
            self.recoveries,
            self.destroyed
        )?;
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        write!(f, "faults: {}", faults.join(", "))
    }
}
