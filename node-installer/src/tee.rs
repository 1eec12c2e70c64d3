//! Whether the node can run confidential VMs of the platform.

use contrast_platform::{Hardware, Platform};

use crate::{
    path::{HostPath, NotPlain},
    tree::{HostTree, TreeError},
};

const SNP: &str = "/sys/module/kvm_amd/parameters/sev_snp";
const TDX: &str = "/sys/module/kvm_intel/parameters/tdx";

/// The node cannot run confidential VMs of the platform.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeeError {
    /// KVM says no, or nothing.
    #[error("{platform} needs {name}, but {file} on the host is {found}; {hint}", platform = platform.display())]
    Missing {
        /// What was to be installed.
        platform: Platform,
        /// What it needs.
        name: &'static str,
        /// Where KVM says whether it is there.
        file: &'static str,
        /// What it says.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// It cannot be named.
    #[error(transparent)]
    Path(#[from] NotPlain),
    /// It cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Asks KVM on the host.
///
/// # Errors
/// When the platform needs a TEE that is not there.
pub(crate) fn check(tree: &HostTree, platform: Platform) -> Result<(), TeeError> {
    let (name, file, hint) = match platform.hardware() {
        Hardware::Software => return Ok(()),
        Hardware::Snp => (
            "AMD SEV-SNP",
            SNP,
            "enable SEV-SNP in the firmware, run Linux 6.11 or newer, and load kvm_amd with `sev_snp=1`",
        ),
        Hardware::Tdx => (
            "Intel TDX",
            TDX,
            "enable TDX in the firmware, run Linux 6.16 or newer, and boot with `nohibernate kvm_intel.tdx=1`",
        ),
    };
    let found = tree.read(&HostPath::new(file)?)?;
    let found = found.map(|text| String::from_utf8_lossy(&text.bytes).trim().to_owned());
    match found.as_deref() {
        Some("Y" | "y" | "1") => Ok(()),
        other => Err(TeeError::Missing {
            platform,
            name,
            file,
            found: other.map_or_else(|| "not there".into(), |value| format!("`{value}`")),
            hint,
        }),
    }
}
