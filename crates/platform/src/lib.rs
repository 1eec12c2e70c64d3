//! Platforms, and the runtime classes that stand for them.
//!
//! `generate` writes a runtime class, the node installer makes containerd know it: both read this table, so neither invents a name.

/// Classes of a certain version of the runtime end with so many hex digits.
const VERSION_DIGITS: usize = 8;

/// Where the evidence of a platform comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hardware {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// No TEE at all.
    Software,
}

/// A platform: what a confidential VM is launched with, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// Bare metal, QEMU, AMD SEV-SNP.
    MetalQemuSnp,
    /// The same with NVIDIA GPUs.
    MetalQemuSnpGpu,
    /// Bare metal, QEMU, Intel TDX.
    MetalQemuTdx,
    /// The same with NVIDIA GPUs.
    MetalQemuTdxGpu,
    /// No TEE at all.
    SoftwareTee,
}

/// A runtime class that stands for no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is of no known platform; expected one of {known}, with or without `-` and the {VERSION_DIGITS} hex digits of a version",
    known = Platform::ALL.map(Platform::class).join(", ")
)]
pub struct UnknownClass {
    /// What was given.
    pub found: String,
}

impl Platform {
    /// Every platform.
    pub const ALL: [Self; 5] = [
        Self::MetalQemuSnp,
        Self::MetalQemuSnpGpu,
        Self::MetalQemuTdx,
        Self::MetalQemuTdxGpu,
        Self::SoftwareTee,
    ];

    /// `Platform` of its reference values in the manifest.
    pub const fn display(self) -> &'static str {
        match self {
            Self::MetalQemuSnp => "Metal-QEMU-SNP",
            Self::MetalQemuSnpGpu => "Metal-QEMU-SNP-GPU",
            Self::MetalQemuTdx => "Metal-QEMU-TDX",
            Self::MetalQemuTdxGpu => "Metal-QEMU-TDX-GPU",
            Self::SoftwareTee => "Insecure-Software-TEE",
        }
    }

    /// Its runtime class, without a version.
    pub const fn class(self) -> &'static str {
        match self {
            Self::MetalQemuSnp => "contrast-cc-metal-qemu-snp",
            Self::MetalQemuSnpGpu => "contrast-cc-metal-qemu-snp-gpu",
            Self::MetalQemuTdx => "contrast-cc-metal-qemu-tdx",
            Self::MetalQemuTdxGpu => "contrast-cc-metal-qemu-tdx-gpu",
            Self::SoftwareTee => "contrast-insecure-software-tee",
        }
    }

    /// What a node must have for it.
    pub const fn hardware(self) -> Hardware {
        match self {
            Self::MetalQemuSnp | Self::MetalQemuSnpGpu => Hardware::Snp,
            Self::MetalQemuTdx | Self::MetalQemuTdxGpu => Hardware::Tdx,
            Self::SoftwareTee => Hardware::Software,
        }
    }

    /// The same platform for pods with GPUs.
    #[must_use]
    pub const fn with_gpus(self) -> Self {
        match self {
            Self::MetalQemuSnp => Self::MetalQemuSnpGpu,
            Self::MetalQemuTdx => Self::MetalQemuTdxGpu,
            other => other,
        }
    }

    /// The platform of a class, with or without the version of a runtime.
    ///
    /// # Errors
    /// When the class is of no platform.
    pub fn of_class(class: &str) -> Result<Self, UnknownClass> {
        let name = match class.rsplit_once('-') {
            Some((name, version))
                if version.len() == VERSION_DIGITS
                    && version.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                name
            }
            _ => class,
        };
        Self::ALL
            .into_iter()
            .find(|platform| platform.class() == name)
            .ok_or_else(|| UnknownClass {
                found: class.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_found_with_and_without_a_version() {
        for platform in Platform::ALL {
            let class = platform.class();
            assert_eq!(Platform::of_class(class), Ok(platform));
            assert_eq!(
                Platform::of_class(&format!("{class}-0a1b2c3d")),
                Ok(platform)
            );
        }
    }

    #[test]
    fn other_classes_are_refused_with_the_known_ones() {
        for class in [
            "contrast-cc",
            "contrast-cc-aks-clh-snp",
            "contrast-cc-metal-qemu-snp-0a1b2c3",
            "contrast-cc-metal-qemu-snp-xyzxyzxy",
        ] {
            let error = Platform::of_class(class).expect_err(class).to_string();
            assert!(error.contains(class), "{error}");
            assert!(error.contains("contrast-cc-metal-qemu-tdx-gpu,"), "{error}");
        }
    }

    #[test]
    fn gpus_change_the_platform_and_not_the_hardware() {
        for platform in Platform::ALL {
            assert_eq!(platform.with_gpus().hardware(), platform.hardware());
            assert_eq!(platform.with_gpus().with_gpus(), platform.with_gpus());
        }
        assert_ne!(Platform::MetalQemuSnp.with_gpus(), Platform::MetalQemuSnp);
    }
}
