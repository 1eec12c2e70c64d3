//! What `contrast measure` is given.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use contrast_measure::{
    Firmware, FirmwareError, VcpuCount, VcpuError, VcpuType,
    tdx::{MemorySize, TdxError},
};

use crate::{
    commands::measure::LaunchArgs,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    workspace,
};

/// Numbers of vCPUs, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuCounts(pub(super) Vec<VcpuCount>);

/// Not a list of numbers of vCPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VcpuCountsError {
    /// Not a number or range.
    #[error("expected N or N..M, possibly several with commas, found `{found}`")]
    Syntax {
        /// The part that is neither.
        found: String,
    },
    /// A number that no VM has.
    #[error(transparent)]
    Count(#[from] VcpuError),
}

impl FromStr for VcpuCounts {
    type Err = VcpuCountsError;

    fn from_str(text: &str) -> Result<Self, VcpuCountsError> {
        let mut counts = Vec::new();
        for part in text.split(',') {
            let syntax = || VcpuCountsError::Syntax {
                found: part.to_owned(),
            };
            let count = |text: &str| {
                let count = text.parse().map_err(|_| syntax())?;
                VcpuCount::new(count).map_err(VcpuCountsError::Count)
            };
            let (from, to) = part.split_once("..").unwrap_or((part, part));
            let (from, to) = (count(from)?, count(to)?);
            if from > to {
                return Err(syntax());
            }
            for value in from.get()..=to.get() {
                let value = VcpuCount::new(value)?;
                if !counts.contains(&value) {
                    counts.push(value);
                }
            }
        }
        Ok(Self(counts))
    }
}

pub(crate) fn vcpu_type(name: &str) -> Result<VcpuType, VcpuError> {
    name.parse()
}

pub(crate) fn hex_u64(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // `from_str_radix` takes a sign, too.
    match u64::from_str_radix(digits, 16) {
        Ok(value) if !digits.starts_with('+') => Ok(value),
        _ => Err("expected up to 16 hex digits, for example 0x30000".into()),
    }
}

pub(crate) fn hex_u32(text: &str) -> Result<u32, String> {
    hex_u64(text)
        .ok()
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| "expected up to 8 hex digits, for example 0x80000000".into())
}

pub(crate) fn memory(text: &str) -> Result<MemorySize, String> {
    let shift = match text.as_bytes().last() {
        Some(b'M' | b'm') => 20,
        Some(b'G' | b'g') => 30,
        _ => 0,
    };
    text.get(..text.len().saturating_sub(1))
        .filter(|digits| shift > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|size| size.checked_mul(1 << shift))
        .ok_or_else(|| {
            "expected a number with the unit M or G (1024-based), for example 2048M".into()
        })
        .and_then(|bytes| {
            MemorySize::from_bytes(bytes).map_err(|error: TdxError| error.to_string())
        })
}

/// A firmware file is unusable.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` is not a firmware that can be measured")]
pub(super) struct UnusableFirmware {
    path: String,
    #[source]
    source: FirmwareError,
}

impl Diagnose for UnusableFirmware {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

pub(super) fn firmware<'a>(path: &Path, image: &'a [u8]) -> Result<Firmware<'a>, UnusableFirmware> {
    Firmware::parse(image).map_err(|source| UnusableFirmware {
        path: path.display().to_string(),
        source,
    })
}

/// The bytes of the files that a VM is launched with.
pub(super) struct LaunchFiles {
    pub(super) ovmf: Vec<u8>,
    pub(super) kernel: Option<Vec<u8>>,
    pub(super) initrd: Option<Vec<u8>>,
}

impl LaunchFiles {
    pub(super) fn read(args: &LaunchArgs) -> Result<Self, Failure> {
        let optional = |what, path: &Option<PathBuf>| match path {
            Some(path) => workspace::read_image(what, path).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            ovmf: workspace::read_image("firmware", &args.ovmf)?,
            kernel: optional("kernel", &args.kernel)?,
            initrd: optional("initrd", &args.initrd)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Result<Vec<u32>, String> {
        let counts: VcpuCounts = text
            .parse()
            .map_err(|error: VcpuCountsError| error.to_string())?;
        Ok(counts.0.into_iter().map(VcpuCount::get).collect())
    }

    #[test]
    fn counts_are_numbers_and_ranges() {
        assert_eq!(counts("3"), Ok(vec![3]));
        assert_eq!(counts("4,1..3,2"), Ok(vec![4, 1, 2, 3]));
        assert_eq!(counts("1..220").map(|counts| counts.len()), Ok(220));
        for bad in [
            "",
            "1,",
            "..",
            "3..1",
            "1..",
            "a",
            "-1",
            "1...3",
            "1..4294967296",
        ] {
            assert!(
                counts(bad).is_err_and(|error| error.contains("N..M")),
                "{bad}"
            );
        }
        for bad in ["0", "221", "1..221", "0..3"] {
            assert!(
                counts(bad).is_err_and(|error| error.contains("1 to 220")),
                "{bad}"
            );
        }
    }

    #[test]
    fn memory_has_a_unit() {
        assert_eq!(memory("2G"), memory("2048M"));
        assert!(memory("2G").is_ok());
        for bad in [
            "",
            "G",
            "2",
            "2048",
            "+2G",
            "2 G",
            "0M",
            "99999999999999G",
            "2T",
            "é",
        ] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hexadecimal_numbers() {
        assert_eq!(hex_u64("0x30000"), Ok(0x3_0000));
        assert_eq!(hex_u64("ffffffffffffffff"), Ok(u64::MAX));
        assert_eq!(hex_u32("80000000"), Ok(0x8000_0000));
        for bad in ["", "0x", "+1", "0x+1", "-1", "10000000000000000", "g"] {
            assert!(hex_u64(bad).is_err(), "{bad}");
        }
        assert!(hex_u32("100000000").is_err());
    }
}
