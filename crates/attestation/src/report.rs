use std::fmt;

use crate::CheckList;

/// The outcome of comparing evidence with one reference value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetReport {
    /// The reference value's name, for example `snp[0] Metal-QEMU-SNP`.
    pub name: String,
    /// Every check that was made.
    pub checks: CheckList,
}

/// The outcome of comparing evidence with every reference value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppraisalReport {
    /// One entry for each reference value that applies to this kind of evidence, the one that it came closest to first.
    pub sets: Vec<SetReport>,
    /// What kept the verifier from knowing more, for example that a vendor's service did not answer.
    pub remarks: Vec<String>,
}

impl AppraisalReport {
    /// Orders the reference values by the number of their failed checks: the one that the evidence came closest to is what
    /// its reader most likely meant. Equally close ones keep the manifest's order.
    pub(crate) fn closest_first(&mut self) {
        self.sets.sort_by_key(|set| {
            let failed = set.checks.checks().iter().filter(|check| !check.passed);
            failed.count()
        });
    }
}

impl fmt::Display for AppraisalReport {
    /// All failed checks, one line each, grouped by reference value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, set) in self.sets.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", set.name)?;
            for check in set.checks.checks().iter().filter(|check| !check.passed) {
                write!(f, "\n  {check}")?;
            }
        }
        for remark in &self.remarks {
            write!(f, "\nnote: {remark}")?;
        }
        Ok(())
    }
}
