//! TCB_VERSION and the product lines that lay it out differently.

use crate::appraisal::{SnpProduct, SnpTcb};

use super::abi::Cpuid;

/// TCB_VERSION as it stands in the report: eight bytes, one per security version number, read as a little-endian integer.
///
/// | byte | Milan, Genoa | Turin |
/// | --- | --- | --- |
/// | 0 | bootloader | FMC |
/// | 1 | TEE | bootloader |
/// | 2 | - | TEE |
/// | 3 | - | SNP |
/// | 6 | SNP | - |
/// | 7 | microcode | microcode |
///
/// Source: AMD publication 56860 revision 1.58, table "Structure of the TCB_VERSION".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcbVersion(pub u64);

impl TcbVersion {
    /// The security version numbers in the layout of `product`.
    pub fn components(self, product: SnpProduct) -> SnpTcb {
        let bytes = self.0.to_le_bytes();
        match product {
            SnpProduct::Milan | SnpProduct::Genoa => {
                let [bootloader, tee, _, _, _, _, snp, microcode] = bytes;
                SnpTcb {
                    bootloader,
                    tee,
                    snp,
                    microcode,
                    fmc: None,
                }
            }
            SnpProduct::Turin => {
                let [fmc, bootloader, tee, snp, _, _, _, microcode] = bytes;
                SnpTcb {
                    bootloader,
                    tee,
                    snp,
                    microcode,
                    fmc: Some(fmc),
                }
            }
        }
    }

    /// The inverse of [`TcbVersion::components`].
    #[cfg(any(test, all(feature = "software-tee", not(target_arch = "wasm32"))))]
    pub(crate) fn from_components(product: SnpProduct, tcb: SnpTcb) -> Self {
        let SnpTcb {
            bootloader,
            tee,
            snp,
            microcode,
            fmc,
        } = tcb;
        Self(u64::from_le_bytes(match product {
            SnpProduct::Milan | SnpProduct::Genoa => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
            SnpProduct::Turin => [
                fmc.unwrap_or_default(),
                bootloader,
                tee,
                snp,
                0,
                0,
                0,
                microcode,
            ],
        }))
    }
}

/// The product line of a processor, or nothing when it is none that signs reports this version knows.
///
/// Source: AMD publication 57230, "VCEK Certificate and KDS Interface Specification", product names; model ranges from the
/// processor programming references of the families.
pub(super) fn product_of(cpuid: Cpuid) -> Option<SnpProduct> {
    match (cpuid.family, cpuid.model) {
        (0x19, 0x00..=0x0F) => Some(SnpProduct::Milan),
        // Genoa; Bergamo and Siena have models from 0xA0.
        (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(SnpProduct::Genoa),
        (0x1A, 0x00..=0x11) => Some(SnpProduct::Turin),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_differ_between_genoa_and_turin() {
        let word = TcbVersion(u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(
            word.components(SnpProduct::Genoa),
            SnpTcb {
                bootloader: 1,
                tee: 2,
                snp: 7,
                microcode: 8,
                fmc: None
            }
        );
        assert_eq!(
            word.components(SnpProduct::Turin),
            SnpTcb {
                fmc: Some(1),
                bootloader: 2,
                tee: 3,
                snp: 4,
                microcode: 8
            }
        );
    }

    #[test]
    fn components_survive_encoding() {
        let turin = SnpTcb {
            fmc: Some(9),
            bootloader: 1,
            tee: 2,
            snp: 3,
            microcode: 4,
        };
        let milan = SnpTcb { fmc: None, ..turin };
        for (product, tcb) in [(SnpProduct::Turin, turin), (SnpProduct::Milan, milan)] {
            assert_eq!(
                TcbVersion::from_components(product, tcb).components(product),
                tcb
            );
        }
    }

    #[test]
    fn a_desktop_processor_is_no_product() {
        let desktop = Cpuid {
            family: 0x19,
            model: 0x61,
            stepping: 2,
        };
        assert_eq!(product_of(desktop), None);
        let bergamo = Cpuid {
            family: 0x19,
            model: 0xA0,
            stepping: 2,
        };
        assert_eq!(product_of(bergamo), Some(SnpProduct::Genoa));
    }
}
