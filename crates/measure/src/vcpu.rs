//! What kind of vCPU, and how many.

use std::{fmt, str::FromStr};

/// Most vCPUs of a pod's VM.
pub const VCPUS_MAX: u32 = 220;

/// How many vCPUs a VM has: 1 to [`VCPUS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuCount(u32);

impl VcpuCount {
    /// One vCPU, what a pod without CPU resources gets.
    pub const ONE: Self = Self(1);

    /// # Errors
    /// Unless the count is 1 to [`VCPUS_MAX`].
    pub fn new(count: u32) -> Result<Self, VcpuError> {
        match count {
            1..=VCPUS_MAX => Ok(Self(count)),
            found => Err(VcpuError::Count { found }),
        }
    }

    /// The count.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for VcpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// No such vCPU, or not so many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VcpuError {
    /// Too few or too many.
    #[error("expected 1 to {VCPUS_MAX} vCPUs, found {found}")]
    Count {
        /// What was asked for.
        found: u32,
    },
    /// A name that QEMU's SNP guests do not have.
    #[error(
        "expected a vCPU type EPYC, EPYC-IBPB, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin, possibly with a version \
         such as EPYC-v4, found `{found}`"
    )]
    Type {
        /// The name.
        found: String,
    },
}

/// A vCPU type as QEMU's `-cpu` names it.
///
/// Only the CPUID signature enters the measurement, so all versions of a model (`EPYC-Milan-v2`) measure alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VcpuType {
    /// `EPYC`, `EPYC-IBPB`: Naples, family 23, model 1, stepping 2.
    Epyc,
    /// `EPYC-Rome`: family 23, model 49, stepping 0.
    Rome,
    /// `EPYC-Milan`: family 25, model 1, stepping 1.
    Milan,
    /// `EPYC-Genoa`: family 25, model 17, stepping 0.
    Genoa,
    /// `EPYC-Turin`: family 26, model 0, stepping 0.
    Turin,
}

impl VcpuType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Epyc,
        Self::Rome,
        Self::Milan,
        Self::Genoa,
        Self::Turin,
    ];

    /// CPUID function 1, EAX (AMD publication 25481, "Family, Model, Stepping Identifiers").
    pub fn signature(self) -> u32 {
        let (family, model, stepping): (u32, u32, u32) = match self {
            Self::Epyc => (23, 1, 2),
            Self::Rome => (23, 49, 0),
            Self::Milan => (25, 1, 1),
            Self::Genoa => (25, 17, 0),
            Self::Turin => (26, 0, 0),
        };
        // All of these families are above 15, so the base family is 15 and the rest is in the extended family.
        (family - 15) << 20 | model >> 4 << 16 | 15 << 8 | (model & 15) << 4 | stepping
    }
}

impl fmt::Display for VcpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Epyc => "EPYC",
            Self::Rome => "EPYC-Rome",
            Self::Milan => "EPYC-Milan",
            Self::Genoa => "EPYC-Genoa",
            Self::Turin => "EPYC-Turin",
        })
    }
}

impl FromStr for VcpuType {
    type Err = VcpuError;

    fn from_str(name: &str) -> Result<Self, VcpuError> {
        let lower = name.to_ascii_lowercase();
        let model = match lower.rsplit_once("-v") {
            Some((model, "1" | "2" | "3" | "4" | "5")) => model,
            _ => &lower,
        };
        Ok(match model {
            "epyc" => Self::Epyc,
            // An alias of EPYC-v2, so it has no versions of its own.
            "epyc-ibpb" if model.len() == lower.len() => Self::Epyc,
            "epyc-rome" => Self::Rome,
            "epyc-milan" => Self::Milan,
            "epyc-genoa" => Self::Genoa,
            "epyc-turin" => Self::Turin,
            _ => {
                return Err(VcpuError::Type {
                    found: name.to_owned(),
                });
            }
        })
    }
}
